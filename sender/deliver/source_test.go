package deliver

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSourcesThatAreRefused(t *testing.T) {
	here := netip.MustParseAddr("127.0.0.1")
	for name, s := range map[string][]Source{
		"none":           {{}},
		"unspecified":    {{Address: netip.MustParseAddr("0.0.0.0")}},
		"not ours":       {{Address: netip.MustParseAddr("192.0.2.1")}},
		"hostname":       {{Address: here, Hostname: "a b"}},
		"pool":           {{Address: here, Pool: "a b"}},
		"negative":       {{Address: here, Sent: -1}},
		"no first day":   {{Address: here, Warmup: []int{5}}},
		"none on a day":  {{Address: here, Warmup: []int{5, 0}, Since: time.Now()}},
		"the same twice": {{Address: here}, {Address: here, Pool: "other"}},
	} {
		if _, err := New(Config{Hostname: "a.b", Route: "h:1", Sources: s}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, err := New(Config{Hostname: "a.b", Route: "h:1", Sources: []Source{{Address: netip.MustParseAddr("192.0.2.1")}}})
	if err == nil || !strings.Contains(err.Error(), "source 192.0.2.1 is no address of this machine") {
		t.Error(err)
	}
}

// TestMailLeavesFromItsSource has each recipient's mail come from one address of the pool, again and again, with its own
// name and its own connections.
func TestMailLeavesFromItsSource(t *testing.T) {
	var mu sync.Mutex
	names := map[string]string{}            // by address
	froms := map[string]map[string]string{} // by recipient: addresses
	h := startHost(t, loopback()+":0", pipelining, func(p *peer, verb, line string, _ int) string {
		mu.Lock()
		defer mu.Unlock()
		ip, _, _ := strings.Cut(p.conn.RemoteAddr().String(), ":")
		switch verb {
		case "EHLO":
			names[ip] = line
		case "RCPT":
			if froms[line] == nil {
				froms[line] = map[string]string{}
			}
			froms[line][ip] = line
		}
		return ""
	})
	ip, port := splitAddr(t, h.addr)
	sources := []Source{{Address: netip.MustParseAddr("127.0.0.11"), Hostname: "out1.example.org"}, {Address: netip.MustParseAddr("127.0.0.12")},
		{Address: netip.MustParseAddr("127.0.0.13"), Hostname: "vip.example.org", Pool: "vip"}}
	c := newClient(t, Config{Resolver: []string{town(t, ip)}, Port: port, AllowPrivate: true, Sources: sources})
	for range 3 {
		for i := range 20 {
			r := c.Try(t.Context(), letter(fmt.Sprintf("r%d@d0.example", i)))
			want(t, r.Outcome, "delivered 250 2.0.0 dot")
			if !strings.HasPrefix(r.Source, "127.0.0.1") {
				t.Error(r.Source)
			}
		}
	}
	e := letter("vip@d0.example")
	e.Pool = "vip"
	want(t, c.Deliver(t.Context(), e), "delivered 250 2.0.0 dot")
	e.Pool = "nowhere"
	r := c.Try(t.Context(), e)
	want(t, r.Outcome, "deferred - 4.3.5 connect")
	mu.Lock()
	defer mu.Unlock()
	wantNames := map[string]string{"127.0.0.11": "EHLO out1.example.org", "127.0.0.12": "EHLO out.example.org", "127.0.0.13": "EHLO vip.example.org"}
	if fmt.Sprint(names) != fmt.Sprint(wantNames) || h.connections() != 3 {
		t.Errorf("%v over %d connections", names, h.connections())
	}
	for to, ips := range froms {
		if len(ips) != 1 || strings.Contains(to, "vip") != (ips["127.0.0.13"] != "") {
			t.Errorf("%s came from %v", to, ips)
		}
	}
	if s := c.Sources(); len(s) != 3 || s[0].Sent+s[1].Sent != 60 || s[0].Sent == 0 || s[1].Sent == 0 || s[2].Sent != 1 || s[0].Limit != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAFamilyWithoutASource(t *testing.T) {
	server, _ := startDNS(t, zone{"MX six.example.": {". MX 10 mx.example."}, "AAAA mx.example.": {". AAAA ::1"}})
	c := newClient(t, Config{Resolver: []string{server}, Port: 1, AllowPrivate: true, Sources: []Source{{Address: netip.MustParseAddr("127.0.0.1")}}})
	want(t, c.Deliver(t.Context(), letter("a@six.example")), "deferred - 4.4.4 connect")
}

func TestGreylistedMailComesBackFromTheSameSource(t *testing.T) {
	var mu sync.Mutex
	first := map[string]string{}
	h := startHost(t, loopback()+":0", pipelining, func(p *peer, verb, line string, _ int) string {
		if verb != "RCPT" {
			return ""
		}
		mu.Lock()
		defer mu.Unlock()
		ip, _, _ := strings.Cut(p.conn.RemoteAddr().String(), ":")
		if first[line] == "" {
			first[line] = ip
			return "450 4.2.0 <x>: Recipient address rejected: Greylisted"
		}
		if first[line] != ip {
			return "450 4.2.0 <x>: Recipient address rejected: Greylisted again"
		}
		return ""
	})
	ip, port := splitAddr(t, h.addr)
	var sources []Source
	for i := range 8 {
		sources = append(sources, Source{Address: netip.AddrFrom4([4]byte{127, 0, 0, byte(20 + i)})})
	}
	c := newClient(t, Config{Resolver: []string{town(t, ip)}, Port: port, AllowPrivate: true, Sources: sources})
	for i := range 30 {
		to := fmt.Sprintf("r%d@d0.example", i)
		want(t, c.Deliver(t.Context(), letter(to)), "deferred 450 4.2.0 rcpt")
		want(t, c.Deliver(t.Context(), letter(to)), "delivered 250 2.0.0 dot")
	}
}

// TestWarmup gives one address four messages on its second day, and another as many as it likes.
func TestWarmup(t *testing.T) {
	now := time.Now()
	warming := Source{Address: netip.MustParseAddr("127.0.0.31"), Warmup: []int{2, 4, 8}, Since: now.Add(-24 * time.Hour), Sent: 1}
	set, err := newSources([]Source{warming}, "a.b", now)
	if err != nil {
		t.Fatal(err)
	}
	pick := func(at time.Time) (*origin, result) { return set.pick("", "a@b.c", at) }
	for range 3 {
		if _, r := pick(now); r.is() {
			t.Fatal(r.Reply.Text)
		}
	}
	_, r := pick(now)
	if !r.is() || r.Reply.Text != "the source addresses have sent what their warm-up allows today; next turn at 00:00 UTC" ||
		!r.notBefore.After(now) || r.notBefore.Sub(now) > 24*time.Hour {
		t.Errorf("a fifth one: %+v", r)
	}
	o := set.pools[""][0]
	o.settle(&result{from: o.v4}, now, false) // one was not delivered
	if _, r := pick(now); r.is() {
		t.Error("what was not delivered is counted")
	}
	for day, most := range map[int]int{-5: 2, 1: 8, 2: 100, 300: 100} { // of 100 tried
		got := 0
		at := now.Add(time.Duration(day) * 24 * time.Hour)
		for range 100 {
			if _, r := pick(at); !r.is() {
				got++
			}
		}
		if got != most {
			t.Errorf("day %+d: %d messages, want %d", day, got, most)
		}
	}
	set, err = newSources([]Source{warming, {Address: netip.MustParseAddr("127.0.0.32")}}, "a.b", now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, r := set.pick("", fmt.Sprintf("r%d@b.c", i), now); r.is() {
			t.Fatal("put off, though another address has no limit")
		}
	}
	if set.list[0].sent != 4 || set.list[1].sent != 97 {
		t.Errorf("%d and %d", set.list[0].sent, set.list[1].sent)
	}
}

func TestOriginsOfTwoFamilies(t *testing.T) {
	a, b, c := &source{Source: Source{Address: netip.MustParseAddr("192.0.2.1")}}, &source{Source: Source{Address: netip.MustParseAddr("192.0.2.2")}},
		&source{Source: Source{Address: netip.MustParseAddr("2001:db8::1")}}
	list := pair([]*source{a, b}, []*source{c})
	if len(list) != 2 || *list[0] != (origin{a, c}) || *list[1] != (origin{b, c}) {
		t.Errorf("%+v", list)
	}
	if s, ok := list[1].to(netip.MustParseAddr("2001:db8::9")); !ok || s != c {
		t.Error("the wrong source for IPv6")
	}
	now := time.Now()
	b.take(now)
	list[1].settle(&result{from: c}, now, true)
	if b.sent != 0 || c.sent != 1 {
		t.Errorf("counted on the wrong source: %d %d", b.sent, c.sent)
	}
}
