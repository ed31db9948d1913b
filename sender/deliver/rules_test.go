package deliver

import (
	"sync"
	"testing"
	"time"
)

func TestRulesThatAreRefused(t *testing.T) {
	for name, r := range map[string]Rule{
		"empty":          {},
		"everything":     {Match: "*"},
		"in the middle":  {Match: "a.*.com"},
		"an address":     {Match: "a@b.com"},
		"not ASCII":      {Match: "bücher.de"},
		"negative":       {Match: "b.com", Connections: -1},
		"too slow":       {Match: "b.com", RatePerSecond: 1e-9},
		"negative rate":  {Match: "b.com", RatePerSecond: -1},
		"bad expression": {Match: "b.com", Pause: []string{"("}},
	} {
		if _, err := New(Config{Hostname: "a.b", Route: "h:1", Rules: []Rule{r}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTheFirstRuleThatMatchesCounts(t *testing.T) {
	usual := limits{start: 5, most: 20, reuse: 1000}
	r, err := newRules([]Rule{{Match: "special.example", Connections: 1}, {Match: "*.Google.com.", Connections: 2}, {Match: "mx.b.example", Connections: 3},
		{Match: "late.example", Connections: 4}, {Match: "special.example", Connections: 9}}, usual)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		domain, hosts string
		most          int
		apart         bool
	}{
		{"special.example", "mx1.google.com", 1, true},
		{"other.example", "mx.x.example,mx1.google.com", 2, false},
		{"other.example", "google.com", 20, false},
		{"other.example", "mx.b.example", 3, false},
		{"late.example", "mx.b.example", 3, false},
		{"late.example", "mx.c.example", 4, true},
	} {
		rule := r.named(c.domain, c.hosts)
		l := r.limits(siteKey{hosts: c.hosts, rule: rule})
		if l.most != c.most || (rule != nil) != c.apart {
			t.Errorf("%s at %s: %d connections, apart %v", c.domain, c.hosts, l.most, rule != nil)
		}
	}
}

func TestRulesAtWork(t *testing.T) {
	h := startHost(t, loopback()+":0", pipelining, func(p *peer, verb, line string, _ int) string {
		if verb == "RCPT" && line == "RCPT TO:<odd@d2.example>" {
			return "550 5.7.1 we are closed today"
		}
		return ""
	})
	ip, port := splitAddr(t, h.addr)
	c := newClient(t, Config{Resolver: []string{town(t, ip, ip, ip)}, Port: port, AllowPrivate: true, Rules: []Rule{
		{Match: "mx0.example", Connections: 1, MessagesPerConnection: 4},
		{Match: "d1.example", RatePerSecond: 20},
		{Match: "d2.example", Pause: []string{`Closed\s+today`}},
	}})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { want(t, c.Deliver(t.Context(), letter("a@d0.example")), "delivered 250 2.0.0 dot") })
	}
	all.Wait()
	if h.connections() != 5 {
		t.Errorf("%d connections for 20 messages", h.connections())
	}
	start := time.Now()
	for range 40 {
		all.Go(func() { want(t, c.Deliver(t.Context(), letter("a@d1.example")), "delivered 250 2.0.0 dot") })
	}
	all.Wait()
	if took := time.Since(start); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("40 messages at 20 a second, of which a second's worth may come at once, took %v", took)
	}
	r := c.Try(t.Context(), letter("odd@d2.example"))
	want(t, r.Outcome, "bounced 550 5.7.1 rcpt")
	if r.Class != "policy" || c.Wait("d2.example", "").IsZero() || !c.Wait("d0.example", "").IsZero() {
		t.Errorf("the pattern did not pause the site: %+v", r)
	}
}

// TestARateThatLeavesNoRoomPutsOff sends three messages at one in 20 s.
func TestARateThatLeavesNoRoomPutsOff(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	c := newClient(t, Config{Route: h.addr, Rules: []Rule{{Match: "slow.example", RatePerSecond: 0.05}}})
	want(t, c.Deliver(t.Context(), letter("a@slow.example")), "delivered 250 2.0.0 dot")
	r := c.Try(t.Context(), letter("a@slow.example"))
	want(t, r.Outcome, "deferred - 4.4.1 connect")
	if wait := time.Until(r.NotBefore); wait < 15*time.Second || wait > 20*time.Second {
		t.Errorf("not before %v", wait)
	}
	want(t, c.Deliver(t.Context(), letter("a@quick.example")), "delivered 250 2.0.0 dot")
}
