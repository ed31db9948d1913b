package deliver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// tlsa is the TLSA record of a certificate as a zone has it.
func tlsa(t *testing.T, usage, selector, matching int, c *x509.Certificate) string {
	t.Helper()
	rr := &dns.TLSA{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTLSA, Class: dns.ClassINET, Ttl: 300}}
	if err := rr.Sign(usage, selector, matching, c); err != nil {
		t.Fatal(err)
	}
	return rr.String()
}

func leaf(t *testing.T, cfg *tls.Config) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// signedWorld is a world whose resolver vouches for all of it. A validating resolver sets the AD bit, which is all that
// we look at, so the test's DNS server sets it; signatures themselves are the resolver's to check.
func signedWorld(t *testing.T, ca *issuer, mx *tls.Config, s script, records ...string) *world {
	return newWorld(t, ca, mx, s, func(w *world, port int) { sign(w, port, records) })
}

func sign(w *world, port int, records []string) {
	w.zone[fmt.Sprintf("TLSA _%d._tcp.mx.example.com.", port)] = records
	for name := range w.zone {
		if len(w.zone[name]) > 0 {
			w.zone[name] = append([]string{"AD"}, w.zone[name]...)
		}
	}
	delete(w.zone, "TXT _mta-sts.example.com.")
}

// TestDANE holds hosts against TLSA records. In the first part the host is what its records say, in the second it is not.
func TestDANE(t *testing.T) {
	ca, other := newIssuer(t), newIssuer(t)
	self := selfSigned(t) // no name, and expired: with usage 3 neither matters
	old := only(tls.VersionTLS10, selfSigned(t))
	named := ca.server(time.Hour, "mx.example.com")
	domain := ca.server(time.Hour, "example.com")
	wrong := tlsa(t, 3, 1, 1, leaf(t, named))
	noRoot := ca.server(time.Hour, "mx.example.com")
	noRoot.Certificates[0].Certificate = noRoot.Certificates[0].Certificate[:1]
	for _, c := range []struct {
		name    string
		mx      *tls.Config
		script  script
		records []string
		result  string
	}{
		{"3 1 1", self, nil, []string{tlsa(t, 3, 1, 1, leaf(t, self))}, ""},
		{"3 0 1", self, nil, []string{tlsa(t, 3, 0, 1, leaf(t, self))}, ""},
		{"3 1 2", self, nil, []string{tlsa(t, 3, 1, 2, leaf(t, self))}, ""},
		{"3 0 0", self, nil, []string{tlsa(t, 3, 0, 0, leaf(t, self))}, ""},
		{"the second of two", self, nil, []string{wrong, tlsa(t, 3, 1, 1, leaf(t, self))}, ""},
		{"2 0 1", named, nil, []string{tlsa(t, 2, 0, 1, ca.cert)}, ""},
		{"2 1 2", named, nil, []string{tlsa(t, 2, 1, 2, ca.cert)}, ""},
		{"2 0 1, name of the domain", domain, nil, []string{tlsa(t, 2, 0, 1, ca.cert)}, ""},
		{"2 0 0, authority not shown", noRoot, nil, []string{tlsa(t, 2, 0, 0, ca.cert)}, ""},

		{"another key", self, nil, []string{wrong}, "validation-failure"},
		{"another authority", named, nil, []string{tlsa(t, 2, 0, 1, other.cert)}, "validation-failure"},
		{"authority not shown", noRoot, nil, []string{tlsa(t, 2, 0, 1, ca.cert)}, "validation-failure"},
		{"another name", ca.server(time.Hour, "mx.example.org"), nil, []string{tlsa(t, 2, 0, 1, ca.cert)}, "certificate-host-mismatch"},
		{"expired", ca.server(-time.Hour, "mx.example.com"), nil, []string{tlsa(t, 2, 0, 1, ca.cert)}, "certificate-expired"},
		{"no STARTTLS", nil, nil, []string{wrong}, "starttls-not-supported"},
		{"STARTTLS refused", self, answers("STARTTLS", "454 4.7.0 not now"), []string{tlsa(t, 3, 1, 1, leaf(t, self))}, "starttls-not-supported"},
		{"TLS broken", self, goesOnInClear, []string{tlsa(t, 3, 1, 1, leaf(t, self))}, "validation-failure"},
		{"TLS 1.0", old, nil, []string{tlsa(t, 3, 1, 1, leaf(t, old))}, "validation-failure"},
		{"SERVFAIL", self, nil, []string{"SERVFAIL"}, "dnssec-invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := signedWorld(t, ca, c.mx, c.script, c.records...)
			out := w.client.Deliver(t.Context(), letter("a@example.com"))
			switch {
			case c.result == "":
				if want(t, out, sent); !out.TLS {
					t.Error("sent in the clear")
				}
				wantResults(t, w.client, "example.com tlsa success 1")
				return
			case c.result == "dnssec-invalid":
				want(t, out, "deferred - 4.7.5 dns")
			default:
				want(t, out, "deferred - 4.7.5 starttls")
			}
			w.mx.noMail()
			wantResults(t, w.client, "example.com tlsa "+c.result+" mx.example.com 1")
			if !strings.Contains(out.Reply.Text, "TLSA") || out.Reply.Host != "mx.example.com" {
				t.Errorf("%+v", out.Reply)
			}
		})
	}
}

// TestUnusableTLSA: the records say that there is TLS, and nothing that we may check.
func TestUnusableTLSA(t *testing.T) {
	ca := newIssuer(t)
	self := selfSigned(t)
	for _, record := range []string{tlsa(t, 1, 1, 1, ca.cert), tlsa(t, 0, 0, 1, ca.cert), ". TLSA 3 1 1 abcd", ". TLSA 3 1 9 " + strings.Repeat("ab", 32), ". TLSA 3 7 1 " + strings.Repeat("ab", 32)} {
		w := signedWorld(t, ca, self, nil, record)
		if out := w.client.Deliver(t.Context(), letter("a@example.com")); !out.TLS {
			t.Errorf("%s: %+v", record, out)
		}
		w = signedWorld(t, ca, nil, nil, record)
		want(t, w.client.Deliver(t.Context(), letter("a@example.com")), "deferred - 4.7.5 starttls")
		w.mx.noMail()
		if got := results(w.client); !slices.Contains(got, "example.com tlsa tlsa-invalid mx.example.com 1") {
			t.Errorf("%q", got)
		}
	}
}

// TestDANENeedsSignedDNS leaves out one signature at a time, or trust in the resolver: then the records mean nothing.
func TestDANENeedsSignedDNS(t *testing.T) {
	ca := newIssuer(t)
	wrong := tlsa(t, 3, 1, 1, ca.cert)
	unsigned := func(kinds ...string) func(*world, int) {
		return func(w *world, port int) {
			w.zone["AAAA mx.example.com."] = []string{". AAAA ::1"}
			sign(w, port, []string{wrong})
			for name, records := range w.zone {
				if slices.ContainsFunc(kinds, func(k string) bool { return strings.HasPrefix(name, k+" ") }) {
					w.zone[name] = records[1:]
				}
			}
		}
	}
	for _, kind := range []string{"MX", "A", "AAAA", "TLSA"} {
		w := newWorld(t, ca, nil, nil, unsigned(kind))
		t.Log(kind)
		want(t, w.client.Deliver(t.Context(), letter("a@example.com")), sent)
		wantResults(t, w.client, "example.com no-policy-found starttls-not-supported mx.example.com 1")
	}
	w := newWorld(t, ca, nil, nil, unsigned())
	w.client.dns.trusted[0] = false
	want(t, w.client.Deliver(t.Context(), letter("a@example.com")), sent)
	for server, trusted := range map[string]bool{"127.0.0.53:53": true, "[::1]:53": true, "192.0.2.1:53": false, "localhost:53": false} {
		r, err := newResolver([]string{server}, false)
		if err != nil || r.trusted[0] != trusted {
			t.Errorf("%s: %v, %v", server, r.trusted, err)
		}
	}
	if r, err := newResolver([]string{"192.0.2.1:53"}, true); err != nil || !r.trusted[0] {
		t.Error("the operator's word was not taken")
	}
}

// TestDANEOfAnAlias takes the records of the name that an alias leads to, and the alias's own if that has none.
func TestDANEOfAnAlias(t *testing.T) {
	ca := newIssuer(t)
	self := selfSigned(t)
	right, wrong := tlsa(t, 3, 1, 1, leaf(t, self)), tlsa(t, 3, 1, 1, ca.cert)
	for _, real := range []string{right, ""} {
		w := newWorld(t, ca, self, nil, func(w *world, port int) {
			first := right
			if real != "" {
				first = wrong
				w.zone[fmt.Sprintf("TLSA _%d._tcp.real.example.com.", port)] = []string{real}
			}
			w.zone["A mx.example.com."] = append([]string{"mx.example.com. CNAME real.example.com."},
				strings.Replace(w.zone["A mx.example.com."][0], ".", "real.example.com.", 1))
			sign(w, port, []string{first})
		})
		want(t, w.client.Deliver(t.Context(), letter("a@example.com")), sent)
		wantResults(t, w.client, "example.com tlsa success 1")
	}
}

// TestDANEWinsOverMTASTS has a host that fails the domain's MTA-STS policy and is as its TLSA records say, and the reverse.
func TestDANEWinsOverMTASTS(t *testing.T) {
	ca := newIssuer(t)
	self, good := selfSigned(t), ca.server(time.Hour, "mx.example.com")
	for _, c := range []struct {
		mx     *tls.Config
		record string
		expect string
	}{{self, tlsa(t, 3, 1, 1, leaf(t, self)), sent}, {good, tlsa(t, 3, 1, 1, leaf(t, self)), "deferred - 4.7.5 starttls"},
		{self, tlsa(t, 1, 1, 1, ca.cert), "deferred - 4.7.5 starttls"}} { // unusable: then MTA-STS speaks
		w := newWorld(t, ca, c.mx, nil, func(w *world, port int) {
			sign(w, port, []string{c.record})
			w.zone["TXT _mta-sts.example.com."] = []string{`. TXT "v=STSv1; id=1"`}
		})
		w.policy.publishes(stsText("enforce", "mx.example.com"))
		want(t, w.client.Deliver(t.Context(), letter("a@example.com")), c.expect)
		if asked, _ := w.policy.counts(); asked != 1 {
			t.Error("there was no policy to win over")
		}
	}
}
