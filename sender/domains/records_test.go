package domains

import (
	"strings"
	"testing"
)

// found is what stands at a record's name, and what is to be said of it.
type found struct {
	purpose Purpose
	publish []string
	state   State
	says    string
}

func (w *world) find(t *testing.T, c found, name, value string) {
	t.Helper()
	w.zone.txt(t, name, c.publish...)
	r := w.lookAt(t.Context(), Record{Name: name, Type: "TXT", Value: value, Purpose: c.purpose})
	if r.State != c.state || !strings.Contains(r.Error, c.says) || (r.State == Valid) != (r.Error == "") {
		t.Errorf("%s %.90q: %s %q, want %s %q", c.purpose, c.publish, r.State, r.Error, c.state, c.says)
	}
	w.zone.drop(name)
}

// TestWhatIsFound publishes a record in many ways, right and wrong.
func TestWhatIsFound(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "mail.example.com")
	name := map[Purpose]string{Ownership: stateOf(t, d, Ownership).Name, DKIM: stateOf(t, d, DKIM).Name}
	value := map[Purpose]string{Ownership: stateOf(t, d, Ownership).Value, DKIM: stateOf(t, d, DKIM).Value} // of the RSA key
	key, another := tags(value[DKIM])["p"], stateOf(t, w.add(t, 2, "mail.example.com"), DKIM).Value
	for _, c := range []found{
		{Ownership, []string{"other", value[Ownership]}, Valid, ""},
		{Ownership, []string{"postrider-verify=of-another-account"}, Wrong, "of-another-account"},
		{Ownership, []string{value[Ownership] + "x"}, Wrong, "add a TXT record with the value"},
		{DKIM, []string{value[DKIM]}, Valid, ""},
		{DKIM, []string{"p=" + key}, Valid, ""},
		{DKIM, []string{"v=DKIM1;k=rsa;t=s;s=email;h=sha1:sha256; p=" + key[:100] + " " + key[100:] + ";"}, Valid, ""},
		{DKIM, []string{"unrelated", value[DKIM]}, Valid, ""},
		{DKIM, []string{value[DKIM][:255]}, Wrong, "cut off after 255 characters"},
		{DKIM, []string{"v=DKIM1; k=rsa; p="}, Wrong, "revoked"},
		{DKIM, []string{"v=DKIM1; k=ed25519; p=" + key}, Wrong, "Ed25519 key has 32"},
		{DKIM, []string{"v=DKIM1; k=rsa; p=AAAA"}, Wrong, "not an RSA key"},
		{DKIM, []string{another}, Wrong, "another key"},
		{DKIM, []string{value[DKIM], "v=DKIM1; p=AAAA"}, Wrong, "2 key records"},
		{DKIM, []string{value[DKIM] + "; t=s:y"}, Wrong, "t=y"},
		{DKIM, []string{value[DKIM] + "; h=sha1"}, Wrong, "h="},
		{DKIM, []string{value[DKIM] + "; s=tlsrpt"}, Wrong, "s="},
	} {
		w.find(t, c, name[c.purpose], value[c.purpose])
	}
}

// TestPolicies are the records about who may send, which others may have written before.
func TestPolicies(t *testing.T) {
	w := open(t)
	d, z := w.add(t, 1, "mail.example.com"), w.zone
	name := map[Purpose]string{SPF: stateOf(t, d, SPF).Name, DMARC: stateOf(t, d, DMARC).Name}
	value := map[Purpose]string{SPF: stateOf(t, d, SPF).Value, DMARC: stateOf(t, d, DMARC).Value}
	for _, about := range []string{"ten", "eleven"} {
		record := "v=spf1"
		for range len(about) + 5 { // 8 and 11
			record += " a:x.test"
		}
		z.txt(t, about+".test", record+" -all")
	}
	z.txt(t, "nested.test", "v=spf1 ip4:192.0.2.1 include:"+returnPathHost+" -all")
	z.txt(t, "loop.test", "v=spf1 include:loop.test -all")
	long := "v=spf1 " + strings.Repeat("ip4:192.0.2.1 ", 200) + "include:" + returnPathHost + " -all"
	for _, c := range []found{
		{SPF, []string{value[SPF]}, Valid, ""},
		{SPF, []string{"V=SPF1 a mx ?include:" + strings.ToUpper(returnPathHost) + ". -all", "unrelated", "v=spf10"}, Valid, ""},
		{SPF, []string{"v=spf1 include:nested.test ~all"}, Valid, ""},
		{SPF, []string{"v=spf1 redirect=nested.test"}, Valid, ""},
		{SPF, []string{"v=spf1 include:ten.test include:" + returnPathHost + " -all"}, Valid, ""},
		{SPF, []string{long}, Valid, ""}, // too long for UDP: asked again by TCP
		{SPF, []string{"v=spf1 include:eleven.test include:" + returnPathHost + " -all"}, Wrong, "more than 10 look-ups"},
		{SPF, []string{"v=spf1 include:loop.test include:" + returnPathHost + " -all"}, Wrong, "more than 10 look-ups"},
		{SPF, []string{"v=spf1 include:void.test include:" + returnPathHost + " -all"}, Wrong, "void.test, which has none"},
		{SPF, []string{"v=spf1 -include:" + returnPathHost + " -all"}, Wrong, "does not include"},
		{SPF, []string{"v=spf1 -all"}, Wrong, "put include:" + returnPathHost},
		{SPF, []string{value[SPF], "v=spf1 -all"}, Wrong, "2 SPF records"},
		{SPF, []string{"v=spf2.0/pra include:" + returnPathHost}, Missing, "no TXT record"},
		{DMARC, []string{value[DMARC]}, Valid, ""},
		{DMARC, []string{"v=DMARC1;p=REJECT; rua=mailto:a@example.com"}, Valid, ""},
		{DMARC, []string{"v=DMARC1; p=all"}, Wrong, "none, quarantine or reject"},
		{DMARC, []string{value[DMARC], "v=DMARC1; p=reject"}, Wrong, "2 DMARC records"},
		{DMARC, []string{"p=none; v=DMARC1"}, Missing, ""},
	} {
		w.find(t, c, name[c.purpose], value[c.purpose])
	}
}

// TestAliases are the sub-domains that lead here.
func TestAliases(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "example.com")
	back, links := stateOf(t, d, ReturnPath).Record, stateOf(t, d, Tracking).Record
	for _, c := range []struct {
		r       Record
		publish []Record
		state   State
		says    string
	}{
		{back, nil, Missing, "no CNAME record"},
		{back, []Record{back}, Valid, ""},
		{back, []Record{{Name: back.Name, Type: "CNAME", Value: "elsewhere.test"}}, Wrong, "elsewhere.test"},
		{back, []Record{{Name: back.Name, Type: "MX", Value: "other.test"}, {Name: back.Name, Type: "MX", Value: mxHost}}, Wrong, "its SPF is not: no TXT record"},
		{back, []Record{{Name: back.Name, Type: "MX", Value: mxHost}, {Name: back.Name, Type: "TXT", Value: "v=spf1 include:" + returnPathHost + " -all"}}, Valid, ""},
		{back, []Record{{Name: back.Name, Type: "MX", Value: "other.test"}}, Wrong, "MX to " + mxHost},
		{links, []Record{links}, Valid, ""},
		{links, []Record{{Name: links.Name, Type: "MX", Value: mxHost}}, Missing, ""},
	} {
		for _, r := range c.publish {
			w.zone.add(t, r)
		}
		if r := w.lookAt(t.Context(), c.r); r.State != c.state || !strings.Contains(r.Error, c.says) {
			t.Errorf("%v: %s %q, want %s %q", c.publish, r.State, r.Error, c.state, c.says)
		}
		w.zone.drop(c.r.Name)
	}
}

// TestInheritedPolicy finds the policy of the domain above; one that fails is unknown.
func TestInheritedPolicy(t *testing.T) {
	w := open(t)
	w.zone.txt(t, "_dmarc.example.com", "v=DMARC1; p=reject")
	for domain, want := range map[string]State{"a.b.example.com": Valid, "a.b.c.d.e.f.g.h.i.j.k.example.com": Valid, "example.net": Missing} {
		if r := w.lookAt(t.Context(), Record{"_dmarc." + domain, "TXT", "v=DMARC1; p=none", DMARC}); r.State != want {
			t.Errorf("%s: %+v", domain, r)
		}
	}
	w.zone.ail("_dmarc.example.com", false)
	if r := w.lookAt(t.Context(), Record{"_dmarc.a.example.com", "TXT", "v=DMARC1; p=none", DMARC}); r.State != Unknown {
		t.Errorf("%+v", r)
	}
}

// TestAliasLoop ends.
func TestAliasLoop(t *testing.T) {
	w := open(t)
	w.zone.add(t, Record{Name: "a.test", Type: "CNAME", Value: "b.test"})
	w.zone.add(t, Record{Name: "b.test", Type: "CNAME", Value: "a.test"})
	r := w.lookAt(t.Context(), Record{"a.test", "TXT", "v=DKIM1; k=rsa; p=AAAA", DKIM})
	if r.State != Unknown && r.State != Missing {
		t.Errorf("%+v", r)
	}
}
