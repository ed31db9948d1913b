package deliver

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const sent = "delivered 250 2.0.0 dot"

// goesOnInClear is a host that offers TLS and then cannot do it.
func goesOnInClear(p *peer, verb, _ string, _ int) string {
	if verb == "STARTTLS" {
		_, _ = p.conn.Write([]byte("220 go ahead\r\n"))
		_, _ = p.conn.Read(make([]byte, 10))
		return "500 what?"
	}
	return ""
}

// TestMTASTS holds hosts of every kind against a policy: in enforce nothing goes out but to the host that the policy
// means, in testing everything does, and both count the same.
func TestMTASTS(t *testing.T) {
	ca := newIssuer(t)
	good := func() *tls.Config { return ca.server(time.Hour, "mx.example.com") }
	for _, c := range []struct {
		name   string
		mx     *tls.Config
		script script
		hosts  string
		result string // for the report
	}{
		{"good", good(), nil, "mx.example.com", ""},
		{"good by pattern", good(), nil, "*.example.com", ""},
		{"another name", ca.server(time.Hour, "mx.example.org"), nil, "mx.example.com", "certificate-host-mismatch"},
		{"expired", ca.server(-time.Hour, "mx.example.com"), nil, "mx.example.com", "certificate-expired"},
		{"unknown authority", newIssuer(t).server(time.Hour, "mx.example.com"), nil, "mx.example.com", "certificate-not-trusted"},
		{"TLS 1.0", only(tls.VersionTLS10, good()), nil, "mx.example.com", "validation-failure"},
		{"STARTTLS taken out of the answer", nil, nil, "mx.example.com", "starttls-not-supported"},
		{"STARTTLS refused", good(), answers("STARTTLS", "454 4.7.0 not now"), "mx.example.com", "starttls-not-supported"},
		{"TLS broken", good(), goesOnInClear, "mx.example.com", "validation-failure"},
		{"an old host", good(), answers("EHLO", "502 what?"), "mx.example.com", "starttls-not-supported"},
		{"host not named", good(), nil, "mail.example.com", "validation-failure"},
		{"pattern too short", good(), nil, "*.com", "validation-failure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, mode := range []string{"enforce", "testing", "none"} {
				w := newWorld(t, ca, c.mx, c.script, nil)
				w.policy.publishes(stsText(mode, c.hosts))
				out := w.client.Deliver(t.Context(), letter("a@example.com"))
				if mode == "enforce" && c.result != "" {
					want(t, out, "deferred - 4.7.5 starttls")
					w.mx.noMail()
					if !strings.Contains(out.Reply.Text, "MTA-STS") || out.Reply.Host != "mx.example.com" {
						t.Errorf("%+v", out.Reply)
					}
				} else if want(t, out, sent); out.TLS != (c.result == "" || c.mx != nil && c.script == nil) {
					t.Errorf("%s: TLS is %v", mode, out.TLS)
				}
				switch {
				case mode == "none":
					if got := results(w.client); len(got) != 1 || !strings.Contains(got[0], "no-policy-found") {
						t.Errorf("counted %q", got)
					}
				case c.result == "":
					wantResults(t, w.client, "example.com sts success 1")
				default:
					wantResults(t, w.client, "example.com sts "+c.result+" mx.example.com 1")
				}
			}
		})
	}
}

func TestMTASTSInjection(t *testing.T) {
	ca := newIssuer(t)
	w := newWorld(t, ca, ca.server(time.Hour, "mx.example.com"), answers("STARTTLS", "220 go ahead\r\n250 injected"), nil)
	w.policy.publishes(stsText("enforce", "mx.example.com"))
	want(t, w.client.Deliver(t.Context(), letter("a@example.com")), "deferred - 4.5.0 starttls")
	w.mx.noMail()
}

func TestMTASTSTriesTheNextHost(t *testing.T) {
	ca := newIssuer(t)
	var second *host
	w := newWorld(t, ca, nil, nil, func(w *world, port int) {
		ip := loopback()
		second = startHost(t, net.JoinHostPort(ip, w.mx.addr[strings.LastIndexByte(w.mx.addr, ':')+1:]), append([]string{"STARTTLS"}, pipelining...), nil)
		second.tls = ca.server(time.Hour, "mx2.example.com")
		w.zone["A mx2.example.com."] = []string{". A " + ip}
		w.zone["MX example.com."] = []string{". MX 10 mx.example.com.", ". MX 20 mx2.example.com."}
	})
	w.policy.publishes(stsText("enforce", "*.example.com"))
	out := w.client.Deliver(t.Context(), letter("a@example.com"))
	if want(t, out, sent); !out.TLS || out.Reply.Host != "mx2.example.com" {
		t.Errorf("%+v", out)
	}
	w.mx.noMail()
	wantResults(t, w.client, "example.com sts success 1", "example.com sts starttls-not-supported mx.example.com 1")
	_, list := w.client.TLSResults()
	if strings.Join(list[0].Text, "|") != "version: STSv1|mode: enforce|max_age: 86400|mx: *.example.com" || strings.Join(list[0].Hosts, "|") != "*.example.com" {
		t.Errorf("%+v", list)
	}
}

func serves(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(text))
	}
}

// elsewhere redirects to where there is what was asked for.
func elsewhere(there http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			there(w, r)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	}
}

// TestPolicyThatCannotBeHad is as if there were none: the mail goes to a host without TLS, and the report tells.
func TestPolicyThatCannotBeHad(t *testing.T) {
	ca := newIssuer(t)
	good := stsText("enforce", "mx.example.com")
	for _, c := range []struct {
		name, result string
		serve        http.HandlerFunc
		cfg          *tls.Config
		txt          []string
	}{
		{name: "not found", result: "sts-policy-fetch-error", serve: http.NotFound},
		{name: "redirect", result: "sts-policy-fetch-error", serve: elsewhere(serves(good))},
		{name: "cut off", result: "sts-policy-fetch-error", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(good))
		}},
		{name: "too long", result: "sts-policy-invalid", serve: serves(good + strings.Repeat("x: y\r\n", 11_000))},
		{name: "HTML", result: "sts-policy-invalid", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(good))
		}},
		{name: "nonsense", result: "sts-policy-invalid", serve: serves("hello")},
		{name: "certificate for another name", result: "sts-webpki-invalid", serve: serves(good), cfg: ca.server(time.Hour, "example.com")},
		{name: "expired certificate", result: "sts-webpki-invalid", serve: serves(good), cfg: ca.server(-time.Hour, "mta-sts.example.com")},
		{name: "unknown authority", result: "sts-webpki-invalid", serve: serves(good), cfg: newIssuer(t).server(time.Hour, "mta-sts.example.com")},
		{name: "no record", serve: serves(good), txt: []string{}},
		{name: "two records", serve: serves(good), txt: []string{`. TXT "v=STSv1; id=1"`, `. TXT "v=STSv1; id=2"`}},
		{name: "no DNS", serve: serves(good), txt: []string{"SERVFAIL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, ca, nil, nil, func(w *world, _ int) {
				if c.cfg != nil {
					w.policy = startPolicyHost(t, c.cfg)
					w.zone["A mta-sts.example.com."] = []string{". A " + w.policy.ip}
				}
				if c.txt != nil {
					w.zone["TXT _mta-sts.example.com."] = c.txt
				}
			})
			w.policy.says(c.serve)
			for range 2 {
				want(t, w.client.Deliver(t.Context(), letter("a@example.com")), sent)
			}
			expect := []string{"example.com no-policy-found starttls-not-supported mx.example.com 1"}
			asked := 0
			if c.result != "" {
				expect = append(expect, "example.com sts "+c.result+"  1")
				asked = 1
			}
			wantResults(t, w.client, expect...)
			if got, conns := w.policy.counts(); conns != asked || got > asked {
				t.Errorf("the policy host was asked %d times over %d connections, want %d: the answer is to be remembered", got, conns, asked)
			}
		})
	}
}

// TestSlowPolicyHost holds up no mail for long; when the policy has come, it holds.
func TestSlowPolicyHost(t *testing.T) {
	ca := newIssuer(t)
	w := newWorld(t, ca, nil, nil, nil)
	w.client.sts.wait = 50 * time.Millisecond
	answer := make(chan struct{})
	w.policy.says(func(rw http.ResponseWriter, _ *http.Request) {
		<-answer
		rw.Header().Set("Content-Type", "text/plain")
		_, _ = rw.Write([]byte(stsText("enforce", "mx.example.com")))
	})
	out := w.client.Deliver(t.Context(), letter("a@example.com"))
	if want(t, out, sent); out.Took > time.Second {
		t.Errorf("took %v", out.Took)
	}
	w.client.sts.wait = 10 * time.Second
	close(answer)
	want(t, w.client.Deliver(t.Context(), letter("a@example.com")), "deferred - 4.7.5 starttls")
	if n := len(w.mx.took()); n != 1 {
		t.Errorf("%d mails in the clear", n)
	}
}

// TestPolicyOutlivesItsHost takes away the record, then the host: the policy holds until its end. A new id brings a new one.
func TestPolicyOutlivesItsHost(t *testing.T) {
	ca := newIssuer(t)
	w := newWorld(t, ca, nil, nil, nil)
	sts := w.client.sts
	w.policy.publishes(stsText("enforce", "mx.example.com"))
	kept := func(expect string) {
		t.Helper()
		want(t, w.client.Deliver(t.Context(), letter("a@example.com")), expect)
	}
	refused := "deferred - 4.7.5 starttls"
	kept(refused)
	p := sts.known["example.com"].stsPolicy
	if left := time.Until(p.expires); left < 23*time.Hour || left > 24*time.Hour || time.Until(p.renew) > 12*time.Hour {
		t.Errorf("%+v", p)
	}
	w.policy.says(http.NotFound)
	if sts.learn("example.com") != p { // the same id, long before its end: not even asked for
		t.Error("the policy was replaced")
	}
	if asked, _ := w.policy.counts(); asked != 1 {
		t.Errorf("fetched %d times", asked)
	}
	p.renew = time.Now()
	if due := sts.due(time.Now().Add(time.Hour)); len(due) != 1 || sts.learn(due[0]) != p {
		t.Errorf("due: %q", due)
	}
	kept(refused)
	wantResults(t, w.client, "example.com sts starttls-not-supported mx.example.com 2", "example.com sts sts-policy-fetch-error  1")

	record := func(text string) {
		server, _ := startDNS(t, zone{"TXT _mta-sts.example.com.": {`. TXT "` + text + `"`}})
		var err error
		if sts.dns, err = newResolver([]string{server}, false); err != nil {
			t.Fatal(err)
		}
	}
	record("v=spf1 -all")
	sts.learn("example.com")
	kept(refused)

	record("v=STSv1; id=2")
	w.policy.publishes(stsText("none", "mx.example.com"))
	p.renew = time.Now().Add(time.Hour)
	sts.learn("example.com")
	kept(sent)
	sts.known["example.com"].expires = time.Now()
	if sts.due(time.Now().Add(time.Second)); len(sts.known) != 0 {
		t.Error("a policy is kept after its end")
	}
}

func TestPolicyHostsAreOnTheInternet(t *testing.T) {
	ca := newIssuer(t)
	w := newWorld(t, ca, nil, nil, nil)
	w.policy.publishes(stsText("enforce", "mx.example.com"))
	w.client.cfg.AllowPrivate = false
	_, fault, err := w.client.sts.fetch(t.Context(), "example.com")
	if fault != stsFetchError || err == nil || !strings.Contains(err.Error(), "no address on the Internet") {
		t.Errorf("%s, %v", fault, err)
	}
	if _, conns := w.policy.counts(); conns != 0 {
		t.Error("connected to a private address")
	}
}

func TestParsePolicy(t *testing.T) {
	now := time.Now()
	for text, ok := range map[string]bool{
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 1":                               true,
		"mx:*.A.example.\r\nmax_age:99999999999999999\r\nmode:testing\r\nversion:STSv1\r\n\r\n":  true,
		"version: STSv1\nmode: none\nmax_age: 5":                                                 true,
		"version: STSv1\nmode: enforce\nmode: none\nmax_age: 5\nnew: thing: more\nmx: a.example": true,
		"version: STSv1\nmode: enforce\nmax_age: 5":                                              false,
		"version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1":                               false,
		"version: STSv1\nmode: strict\nmx: a.example\nmax_age: 1":                                false,
		"version: STSv1\nmode: enforce\nmx: a.example":                                           false,
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1":                              false,
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 99999999999999999999999":         false,
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 1\nwhat":                         false,
		"version: STSv1\nmode: enforce\nmax_age: 1\n" + strings.Repeat("mx: a\n", stsMaxHosts+1): false,
		"version: STSv1\nmode: enforce\nmax_age: 1\nmx: " + strings.Repeat("a", stsMaxNames+1):   false,
		"": false,
	} {
		p, err := parseSTS(text, now)
		if (err == nil) != ok {
			t.Errorf("%.80q: %v", text, err)
		}
		if err != nil {
			continue
		}
		if life := p.expires.Sub(now); life < stsLeast || life > stsMost || p.enforce != (p.mode == "enforce") {
			t.Errorf("%.80q: %+v", text, p)
		}
	}
	p := &stsPolicy{hosts: []string{"mx.example", "*.out.example"}}
	for host, ok := range map[string]bool{"MX.example.": true, "a.out.example": true, "out.example": false, "a.b.out.example": false, "xmx.example": false,
		"example": false, "": false} {
		if p.match(host) != ok {
			t.Errorf("%s: %v", host, !ok)
		}
	}
	for text, id := range map[string]string{"v=STSv1; id=20160831085700Z;": "20160831085700Z", "v=STSv1;id=a": "a", "v=STSv1 ; x=y; id=b": "b",
		"v=STSv1; id=a-b": "", "v=STSv1": "", "v=STSv10; id=1": "", "id=1; v=STSv1": "", "v=STSv1; id=" + strings.Repeat("a", 33): "", "": ""} {
		if got := stsID([]string{"another", text}); got != id {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(stsText("enforce", "a.example", "*.b.example"))
	f.Add("version:STSv1\nmode:none\nmax_age:18446744073709551615")
	now := time.Now()
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseSTS(text, now)
		if err != nil {
			return
		}
		if life := p.expires.Sub(now); life < stsLeast || life > stsMost || p.renew.After(p.expires) || len(p.hosts) > stsMaxHosts {
			t.Errorf("%+v", p)
		}
		again, err := parseSTS(strings.Join(p.lines(), "\n"), now)
		if err != nil || !slices.Equal(again.hosts, p.hosts) || again.mode != p.mode || !again.expires.Equal(p.expires) {
			t.Errorf("%+v came back as %+v, %v", p, again, err)
		}
	})
}

func TestPoliciesKeptAreBounded(t *testing.T) {
	m := newSTSPolicies(nil, &stsFetcher{}, nil, nil)
	p := &stsPolicy{expires: time.Now().Add(time.Hour)}
	for i := range stsAbsent + 10 {
		name := strings.Repeat("x", i%7) + time.Duration(i).String()
		m.keep(name, nil, time.Hour)
		if i < stsKept+10 {
			m.keep("p"+name, &stsEntry{stsPolicy: p}, time.Hour)
		}
	}
	if len(m.none) != stsAbsent || len(m.known) != stsKept {
		t.Errorf("%d domains with and %d without a policy", len(m.known), len(m.none))
	}
}
