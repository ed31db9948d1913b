package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testDNS has names go unanswered in three ways. That says nothing about the recipients: nothing may bounce.
func testDNS(t *testing.T, p *peers) {
	d := p.fresh(t)
	const n = 5
	ways := []string{"gone", "failing", "silent"}
	ill := map[string]dns.Handler{"silent": dns.HandlerFunc(func(dns.ResponseWriter, *dns.Msg) {}),
		"failing": dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
		})}
	f, ids := map[string]*fake{}, map[string][]string{}
	for _, way := range ways {
		domain := way + ".example.org"
		f[way] = newFake(t, p.place(domain), mood{})
		p.zone.mu.Lock()
		p.zone.ill[domain] = ill[way]
		p.zone.mu.Unlock()
		if way != "gone" {
			ids[way] = d.many(t, domain, n)
		}
	}
	for _, way := range ways[1:] {
		if said := d.deferred(t, 40*time.Second, ids[way]...); !strings.Contains(said, "4.4.3") {
			t.Errorf("%s: %s", way, said)
		}
	}
	p.zone.stop()
	ids["gone"] = d.many(t, "gone.example.org", n)
	never := d.many(t, "never.example.org", n) // does not exist, which nobody can know now
	if said := d.deferred(t, 40*time.Second, append(ids["gone"], never...)...); !strings.Contains(said, "4.4.3") {
		t.Errorf("gone: %s", said)
	}
	clear(p.zone.ill)
	p.zone.start(t)
	for _, way := range ways {
		d.allIn(t, 60*time.Second, ids[way], "sent")
		f[way].holds(t, ids[way])
		if _, doubles := f[way].counts(); doubles > 0 {
			t.Errorf("%s: %d doubles", way, doubles)
		}
	}
	d.allIn(t, 60*time.Second, never, "bounced")
}

// testSiteDown has a host be down for a while. All arrives once, and not by more connections than a site may have.
func testSiteDown(t *testing.T, p *peers) {
	d := p.fresh(t)
	const n = 10 * peerConns
	f := newFake(t, p.place("down.example.org"), mood{})
	first := d.many(t, "down.example.org", 1)
	d.allIn(t, 20*time.Second, first, "sent")
	f.down()
	ids := d.many(t, "down.example.org", n)
	said := d.deferred(t, 40*time.Second, ids[0])
	if !strings.Contains(said, "refused") {
		t.Errorf("of a host that is down is said %s", said)
	}
	f.up(t, mood{})
	d.allIn(t, 90*time.Second, append(first, ids...), "sent")
	f.holds(t, append(first, ids...))
	if _, doubles := f.counts(); doubles > 0 || f.peak > peerConns {
		t.Errorf("%d doubles, %d connections at once", doubles, f.peak)
	}
}
