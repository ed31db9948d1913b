package deliver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// town is a DNS server with domains d0.example, d1.example and so on, each with a mail host of its own at an address.
func town(t *testing.T, ips ...string) string {
	t.Helper()
	z := zone{}
	for i, ip := range ips {
		z[fmt.Sprintf("MX d%d.example.", i)] = []string{fmt.Sprintf(". MX 10 mx%d.example.", i)}
		z[fmt.Sprintf("A mx%d.example.", i)] = []string{". A " + ip}
	}
	server, _ := startDNS(t, z)
	return server
}

// TestConnectionLimitOfAHostIsFound sends to a host that takes three connections and answers 421 to a fourth.
func TestConnectionLimitOfAHostIsFound(t *testing.T) {
	h := startHost(t, loopback()+":0", pipelining, func(p *peer, verb, _ string, _ int) string {
		switch verb {
		case "GREETING":
			p.h.mu.Lock()
			defer p.h.mu.Unlock()
			if p.h.open > 3 {
				return "421 4.7.0 mx.test too many connections, come back later"
			}
		case "DOT":
			<-time.After(time.Millisecond) // work
		}
		return ""
	})
	ip, port := splitAddr(t, h.addr)
	c := newClient(t, Config{Resolver: []string{town(t, ip)}, Port: port, AllowPrivate: true})
	const messages, workers = 1500, 25
	var refused, sent atomic.Int32
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for sent.Add(1) <= messages {
				if out := c.Deliver(t.Context(), letter("a@d0.example")); out.Verdict != sender.OutcomeDelivered {
					refused.Add(1)
					if out.Reply.Code != 421 {
						t.Errorf("%+v", out)
					}
				}
			}
		})
	}
	all.Wait()
	sites := c.Site("d0.example")
	if len(sites) != 1 || sites[0].Limit > 4 {
		t.Errorf("the limit is not found: %+v", sites)
	}
	if n := refused.Load(); n == 0 || n*100 >= 5*messages {
		t.Errorf("%d of %d refused", n, messages)
	}
	if len(sites) == 1 && !strings.Contains(sites[0].String(), "d0.example takes mail; at ") ||
		!strings.HasSuffix(sites[0].String(), "answered 421 4.7.0 mx.test too many connections, come back later") {
		t.Error(sites[0].String())
	}
}

func TestABlockPausesTheSite(t *testing.T) {
	var sick atomic.Bool
	sick.Store(true)
	h := startHost(t, loopback()+":0", pipelining, func(_ *peer, verb, _ string, _ int) string {
		if verb == "MAIL" && sick.Load() {
			return "421 4.7.0 [TSS04] Messages from 192.0.2.25 temporarily deferred due to unexpected volume or user complaints"
		}
		return ""
	})
	ip, port := splitAddr(t, h.addr)
	c := newClient(t, Config{Resolver: []string{town(t, ip)}, Port: port, AllowPrivate: true})
	if until := c.Wait("d0.example", ""); !until.IsZero() {
		t.Error("a site that nobody knows is paused")
	}
	r := c.Try(t.Context(), letter("a@d0.example"))
	want(t, r.Outcome, "deferred 421 4.7.0 mail")
	if wait := time.Until(r.NotBefore); r.Class != "policy" || wait < shutLeast-5*time.Second || wait > shutLeast {
		t.Errorf("class %q, not before %v", r.Class, wait)
	}
	before := h.connections()
	next := c.Try(t.Context(), letter("b@d0.example"))
	want(t, next.Outcome, "deferred - 4.4.1 connect")
	if !next.NotBefore.Equal(r.NotBefore) || !c.Wait("d0.example", "").Equal(r.NotBefore) || h.connections() != before {
		t.Errorf("%+v after %+v", next, r)
	}
	text := "d0.example answered 421 4.7.0 [TSS04] Messages from 192.0.2.25 temporarily deferred due to unexpected volume or user complaints; " +
		"next look at " + clock(r.NotBefore)
	outline := "the mail hosts of d0.example answered 421 4.7.0 to other mail; next look at " + clock(r.NotBefore)
	if next.Reply.Text != outline || c.Sites()[0].String() != text { // the words are the operator's, since they may name a recipient
		t.Errorf("%q, %q", next.Reply.Text, c.Sites()[0])
	}
	sick.Store(false)
	reopen(c)
	want(t, c.Deliver(t.Context(), letter("b@d0.example")), "delivered 250 2.0.0 dot")
	if !c.Wait("d0.example", "").IsZero() {
		t.Error("the site is still paused")
	}
}

// reopen lets the pauses of all sites end now.
func reopen(c *Client) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for _, st := range c.pool.sites {
		if !st.pace.shut.IsZero() {
			st.pace.shut = time.Now()
		}
	}
}

// TestNoHerdAfterAnOutage has 200 messages come again and again while their host is away, and when it is back.
func TestNoHerdAfterAnOutage(t *testing.T) {
	ln, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ip, port := splitAddr(t, addr)
	_ = ln.Close()
	c := newClient(t, Config{Resolver: []string{town(t, ip)}, Port: port, AllowPrivate: true, IdleClose: 500 * time.Millisecond})
	wave := func() (delivered int) {
		var all sync.WaitGroup
		var n atomic.Int32
		for range 200 {
			all.Go(func() {
				if out := c.Deliver(t.Context(), letter("a@d0.example")); out.Verdict == sender.OutcomeDelivered {
					n.Add(1)
				} else if out.Verdict != sender.OutcomeDeferred || out.Suppress {
					t.Errorf("%+v", out)
				}
			})
		}
		all.Wait()
		return int(n.Load())
	}
	wave()
	site := c.Site("d0.example")[0]
	if site.Paused.IsZero() || !strings.HasPrefix(site.String(), "d0.example is not answering (cannot connect to "+addr+": connection refused); next look at ") {
		t.Fatal(site)
	}
	h := startHost(t, addr, pipelining, nil)
	if n := wave(); n != 0 || h.connections() != 0 {
		t.Errorf("%d delivered to a site that is paused, over %d connections", n, h.connections())
	}
	reopen(c)
	if n := wave(); n < 1 {
		t.Errorf("%d delivered", n)
	}
	if h.peak > 20 {
		t.Errorf("%d connections at once", h.peak)
	}
	first := slices.Index(h.lines(), "1:.")
	for _, line := range h.lines()[:first] {
		if !strings.HasPrefix(line, "1:") {
			t.Errorf("another connection came before the first delivered: %q", line)
		}
	}
	if n := wave(); n != 200 {
		t.Errorf("%d delivered when all was well again", n)
	}
}

// TestDeadSitesLeaveTheRoomToOthers has 40 dead sites among 240, and room for 40 attempts. A dead one here takes the
// connection and says nothing.
func TestDeadSitesLeaveTheRoomToOthers(t *testing.T) {
	hosts, ips, port := farm(t, nil, answers("GREETING", hang))
	const sites = 240
	all := make([]string, sites)
	for i := range all {
		all[i] = ips[0]
		if i%6 == 0 {
			all[i] = ips[1]
		}
	}
	times := Timeouts{Greeting: 20 * time.Second}
	c := newClient(t, Config{Resolver: []string{town(t, all...)}, Port: port, AllowPrivate: true, MaxConns: 40, Timeouts: times})
	var dead, live sync.WaitGroup
	ctx := t.Context()
	stop, end := context.WithCancel(ctx)
	defer end()
	for i := range sites {
		to := fmt.Sprintf("a@d%d.example", i)
		if i%6 == 0 {
			for range 3 {
				dead.Go(func() {
					if out := c.Deliver(stop, letter(to)); out.Verdict != sender.OutcomeDeferred {
						t.Errorf("%+v", out)
					}
				})
			}
			continue
		}
		for range 3 {
			live.Go(func() { want(t, c.Deliver(ctx, letter(to)), "delivered 250 2.0.0 dot") })
		}
	}
	start := time.Now()
	live.Wait()
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("the live sites took %v", took)
	}
	if len(hosts[0].took()) != 600 {
		t.Errorf("%d mails", len(hosts[0].took()))
	}
	end()
	dead.Wait()
}

func TestSitesAreForgotten(t *testing.T) {
	p := newPool(10, time.Minute, &rules{usual: limits{start: 5, most: 20, reuse: 10}})
	visitOf := func(name string, s signal) {
		st, v, err := p.enter(t.Context(), siteKey{hosts: name}, name, time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		p.leave(st, v, s, &sender.Reply{Text: "away"})
	}
	for i := range maxResting + 100 {
		visitOf("good"+strconv.Itoa(i), well)
		visitOf("bad"+strconv.Itoa(i), unreached)
	}
	if len(p.sites) != maxResting || p.resting.Len() != maxResting || p.sites[siteKey{hosts: "bad0"}] != nil {
		t.Errorf("%d sites, %d rest", len(p.sites), p.resting.Len())
	}
	visitOf("bad500", unreached)
	p.expire(time.Now().Add(restFor + time.Minute))
	if len(p.sites) != 0 || p.resting.Len() != 0 {
		t.Errorf("%d sites are remembered after an hour", len(p.sites))
	}
}

// TestARelayIsNotPaused has one host for all domains refuse, put off and block some of their mail.
func TestARelayIsNotPaused(t *testing.T) {
	said := []string{"451 4.7.1 try again later", "550 5.7.1 Client host blocked using zen.spamhaus.org", "421 4.7.0 [TSS04] temporarily deferred", "550 no"}
	var n atomic.Int32
	h := startHost(t, "", pipelining, func(_ *peer, verb, line string, _ int) string {
		if verb == "RCPT" && strings.Contains(line, "<bad@") {
			return said[int(n.Add(1))%len(said)]
		}
		return ""
	})
	c := newClient(t, Config{Route: h.addr, PerSite: 7})
	for range 40 {
		if r := c.Try(t.Context(), letter("bad@example.com")); r.Reply.Code == 0 || !r.NotBefore.IsZero() {
			t.Fatalf("%+v", r)
		}
		want(t, c.Deliver(t.Context(), letter("good@example.com")), "delivered 250 2.0.0 dot")
	}
	if s := c.Site("example.com"); len(s) != 1 || s[0].Limit != 7 {
		t.Errorf("%+v", s)
	}
	away := newClient(t, Config{Route: "127.0.0.1:1"})
	for range 10 {
		want(t, away.Deliver(t.Context(), letter("a@example.com")), "deferred - 4.4.1 connect")
	}
	if s := away.Sites(); len(s) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestWhoWaitsOutsideLongestIsGivenUp has more hosts that say nothing than there is room for, inside and outside.
func TestWhoWaitsOutsideLongestIsGivenUp(t *testing.T) {
	_, ips, port := farm(t, nil, answers("GREETING", hang))
	server := town(t, ips[0], ips[1], ips[1], ips[1], ips[1], ips[1], ips[1])
	c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true, MaxConns: 2})
	ctx, end := context.WithCancel(t.Context())
	defer end()
	outcomes := make(chan sender.Outcome, 6)
	for i := range 6 {
		go func() { outcomes <- c.Deliver(ctx, letter(fmt.Sprintf("a@d%d.example", i+1))) }()
	}
	first := <-outcomes
	want(t, first, "deferred - 4.4.1 connect")
	if first.Reply.Text != "no answer so far, and too many other messages wait for hosts that do not answer" {
		t.Errorf("%+v", first)
	}
	want(t, c.Deliver(t.Context(), letter("a@d0.example")), "delivered 250 2.0.0 dot")
	end()
	for range 5 {
		if out := <-outcomes; out.Verdict != sender.OutcomeDeferred {
			t.Errorf("%+v", out)
		}
	}
}
