package deliver

import (
	"slices"
	"testing"
)

func TestOpportunisticTLS(t *testing.T) {
	h := startHost(t, "", []string{"starttls", "PIPELINING", "SIZE 10"}, nil)
	h.tls, h.extTLS = selfSigned(t), []string{"PIPELINING"}
	c := newClient(t, Config{Route: h.addr})
	for range 2 {
		out := c.Deliver(t.Context(), letter("a@example.com"))
		want(t, out, "delivered 250 2.0.0 dot")
		if !out.TLS {
			t.Error("sent in the clear")
		}
	}
	if from := h.took()[0].from; from != "MAIL FROM:<b.1@bounces.example.org>" {
		t.Errorf("what the host said before TLS was not forgotten: %s", from)
	}
	if h.connections() != 1 {
		t.Errorf("%d connections", h.connections())
	}
}

func TestBrokenTLSIsFollowedByClear(t *testing.T) {
	h := startHost(t, "", []string{"STARTTLS", "PIPELINING"}, func(p *peer, verb, _ string, _ int) string {
		if verb == "STARTTLS" { // a server that goes on in the clear
			_, _ = p.conn.Write([]byte("220 go ahead\r\n"))
			_, _ = p.conn.Read(make([]byte, 10))
			return "500 what?"
		}
		return ""
	})
	c := newClient(t, Config{Route: h.addr, Reuse: 1})
	for range 2 {
		out := c.Deliver(t.Context(), letter("a@example.com"))
		want(t, out, "delivered 250 2.0.0 dot")
		if out.TLS {
			t.Error("TLS cannot have worked")
		}
	}
	if h.connections() != 3 { // the failure, and one for each message: the host is remembered
		t.Errorf("%d connections", h.connections())
	}
}

func TestRefusedSTARTTLSGoesOnInTheClear(t *testing.T) {
	h := startHost(t, "", []string{"STARTTLS", "PIPELINING"}, answers("STARTTLS", "454 4.7.0 no certificate"))
	want(t, newClient(t, Config{Route: h.addr}).Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
	if h.connections() != 1 {
		t.Errorf("%d connections", h.connections())
	}
}

func TestBytesInjectedAfterSTARTTLS(t *testing.T) {
	h := startHost(t, "", []string{"STARTTLS", "PIPELINING"}, answers("STARTTLS", "220 go ahead\r\n250 injected"))
	h.tls = selfSigned(t)
	out := newClient(t, Config{Route: h.addr}).Deliver(t.Context(), letter("a@example.com"))
	want(t, out, "deferred - 4.5.0 starttls")
	if lines := h.lines(); slices.ContainsFunc(lines, func(l string) bool { return l[2:6] == "MAIL" }) {
		t.Errorf("went on after the injection: %q", lines)
	}
}

func TestHostMemoryIsBounded(t *testing.T) {
	m := newHostMemory()
	for i := range maxRemembered + 10 {
		m.add(loopback() + string(rune('a'+i%20)))
	}
	m.add("one more.example")
	if len(m.until) > maxRemembered {
		t.Errorf("%d hosts are remembered", len(m.until))
	}
}
