package deliver

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestPeersWithoutAPolicy is RFC 7435: whatever TLS there is, is used.
func TestPeersWithoutAPolicy(t *testing.T) {
	ca := newIssuer(t)
	for name, c := range map[string]struct {
		mx     *tls.Config
		script script
		tls    bool
		result string
	}{
		"good":        {ca.server(time.Hour, "mx.example.com"), nil, true, "success"},
		"self-signed": {selfSigned(t), nil, true, "success"},
		"expired":     {ca.server(-time.Hour, "mx.example.com"), nil, true, "success"},
		"TLS 1.0":     {only(tls.VersionTLS10, selfSigned(t)), nil, true, "success"},
		"TLS 1.2":     {only(tls.VersionTLS12, selfSigned(t)), nil, true, "success"},
		"broken":      {selfSigned(t), goesOnInClear, false, "validation-failure mx.example.com"},
		"none":        {nil, nil, false, "starttls-not-supported mx.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ca, c.mx, c.script, func(w *world, _ int) { delete(w.zone, "TXT _mta-sts.example.com.") })
			out := w.client.Deliver(t.Context(), letter("a@example.com"))
			if want(t, out, sent); out.TLS != c.tls {
				t.Errorf("TLS is %v", out.TLS)
			}
			wantResults(t, w.client, "example.com no-policy-found "+c.result+" 1")
		})
	}
}

func TestRequireTLS(t *testing.T) {
	strict := letter("a@example.com")
	strict.RequireTLS = true
	ca := newIssuer(t)
	noSTS := func(w *world, _ int) { delete(w.zone, "TXT _mta-sts.example.com.") }
	for name, c := range map[string]struct {
		mx     *tls.Config
		script script
		expect string
	}{
		"any certificate": {selfSigned(t), nil, sent},
		"no TLS":          {nil, nil, "deferred - 4.7.10 starttls"},
		"refused":         {selfSigned(t), answers("STARTTLS", "454 4.7.0 not now"), "deferred - 4.7.10 starttls"},
		"broken":          {selfSigned(t), goesOnInClear, "deferred - 4.7.10 starttls"},
		"TLS 1.0":         {only(tls.VersionTLS10, selfSigned(t)), nil, "deferred - 4.7.10 starttls"},
		"injected":        {selfSigned(t), answers("STARTTLS", "220 go ahead\r\n250 injected"), "deferred - 4.5.0 starttls"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ca, c.mx, c.script, noSTS)
			out := w.client.Deliver(t.Context(), strict)
			if want(t, out, c.expect); out.TLS != (c.expect == sent) {
				t.Errorf("TLS is %v", out.TLS)
			}
			if c.expect != sent {
				w.mx.noMail()
			}
			fixed := newClient(t, Config{Route: w.mx.addr})
			want(t, fixed.Deliver(t.Context(), strict), c.expect)
		})
	}
	t.Run("not over what is open in the clear", func(t *testing.T) {
		w := newWorld(t, ca, selfSigned(t), func(p *peer, verb, line string, n int) string {
			if p.id < 3 {
				return goesOnInClear(p, verb, line, n)
			}
			return ""
		}, noSTS)
		if out := w.client.Deliver(t.Context(), letter("a@example.com")); out.TLS {
			t.Error("TLS cannot have worked")
		}
		if out := w.client.Deliver(t.Context(), strict); !out.TLS { // a host remembered as broken is asked again
			t.Errorf("%+v", out)
		}
		if n := w.mx.connections(); n != 3 || w.client.pool.size() != 1 {
			t.Errorf("%d connections, %d open", n, w.client.pool.size())
		}
		if out := w.client.Deliver(t.Context(), letter("a@example.com")); !out.TLS || w.mx.connections() != 3 {
			t.Error("the safer connection is good for both")
		}
	})
}

// TestConnectionsAreSharedByWhatTheyProved: example.com enforces, other.example of the same host asks for nothing.
func TestConnectionsAreSharedByWhatTheyProved(t *testing.T) {
	ca := newIssuer(t)
	for name, c := range map[string]struct {
		mx          *tls.Config
		expect      string
		connections int
	}{
		"good": {ca.server(time.Hour, "mx.example.com"), sent, 1},
		"bad":  {selfSigned(t), "deferred - 4.7.5 starttls", 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ca, c.mx, nil, nil)
			w.policy.publishes(stsText("enforce", "mx.example.com"))
			want(t, w.client.Deliver(t.Context(), letter("a@other.example")), sent)
			want(t, w.client.Deliver(t.Context(), letter("a@example.com")), c.expect)
			want(t, w.client.Deliver(t.Context(), letter("a@other.example")), sent)
			if n := w.mx.connections(); n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
		})
	}
	t.Run("DANE", func(t *testing.T) { // only example.com has signed MX records
		self := selfSigned(t)
		w := newWorld(t, ca, self, nil, func(w *world, port int) {
			sign(w, port, []string{tlsa(t, 3, 1, 1, leaf(t, self))})
			w.zone["MX other.example."] = w.zone["MX other.example."][1:]
		})
		for i, domain := range []string{"other.example", "example.com", "other.example", "example.com"} {
			if want(t, w.client.Deliver(t.Context(), letter("a@"+domain)), sent); w.mx.connections() != min(i+1, 2) {
				t.Errorf("%d connections after %s", w.mx.connections(), domain)
			}
		}
		wantResults(t, w.client, "example.com tlsa success 1", "other.example no-policy-found success 1")
	})
	t.Run("DANE by the domain's name", func(t *testing.T) { // which says nothing about the other domain
		cfg := ca.server(time.Hour, "example.com")
		w := signedWorld(t, ca, cfg, nil, tlsa(t, 2, 0, 1, ca.cert))
		want(t, w.client.Deliver(t.Context(), letter("a@example.com")), sent)
		want(t, w.client.Deliver(t.Context(), letter("a@other.example")), "deferred - 4.7.5 starttls")
	})
}

func TestResultsAreBoundedAndTaken(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newClient(t, Config{Route: "127.0.0.1:1", Metrics: reg})
	for i := range maxReported + 10 {
		c.reports.count(&policy{domain: fmt.Sprint(i, ".example")}, "mx.example", tlsGood)
	}
	for i := range maxFailures + 10 {
		c.reports.count(&policy{domain: "0.example"}, fmt.Sprint("mx", i), noSTARTTLS)
	}
	begun := c.reports.since
	since, list := c.TakeTLSResults()
	if len(list) != maxReported || !since.Equal(begun) {
		t.Errorf("%d results since %v", len(list), since)
	}
	if first := list[0]; first.Domain != "0.example" || first.Success != 1 || len(first.Failures) != maxFailures {
		t.Errorf("%+v", first)
	}
	if _, left := c.TLSResults(); len(left) != 0 || !c.reports.since.After(begun) {
		t.Errorf("%d results are left", len(left))
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "postrider_deliver_tls_total" {
				got = append(got, strings.TrimSpace(fmt.Sprint(m.Label[0].GetValue(), " ", m.Label[1].GetValue(), " ", m.GetCounter().GetValue())))
			}
		}
	}
	if !slices.Equal(got, []string{"no-policy-found starttls-not-supported 30", "no-policy-found success 10010"}) {
		t.Errorf("%q", got)
	}
}
