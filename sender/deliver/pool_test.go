package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

func TestConnectionIsReusedSoManyTimes(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	c := newClient(t, Config{Route: h.addr, Reuse: 3})
	for range 7 {
		want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
	}
	if h.connections() != 3 {
		t.Errorf("%d connections for 7 messages", h.connections())
	}
	h.awaitClosed(2)
	quits := 0
	for _, l := range h.lines() {
		if l[2:] == "QUIT" {
			quits++
		}
	}
	if quits != 2 {
		t.Errorf("%d connections ended with QUIT", quits)
	}
}

// TestStaleConnection closes a kept connection in every way that hosts do, while it waits or at the next MAIL.
func TestStaleConnection(t *testing.T) {
	for name, answer := range map[string]string{"closed": drop, "reset": reset, "421 to MAIL": "421 4.4.2 idle for too long"} {
		for _, ext := range [][]string{pipelining, nil} {
			t.Run(name, func(t *testing.T) {
				h := startHost(t, "", ext, func(p *peer, verb, _ string, n int) string {
					if verb == "MAIL" && n == 2 {
						return answer
					}
					return ""
				})
				c := newClient(t, Config{Route: h.addr})
				for range 3 {
					want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
				}
				if h.connections() != 3 || len(h.took()) != 3 {
					t.Errorf("%d mails over %d connections", len(h.took()), h.connections())
				}
			})
		}
	}
	t.Run("421 while idle", func(t *testing.T) {
		gone := make(chan struct{}, 2)
		h := startHost(t, "", pipelining, func(p *peer, verb, _ string, _ int) string {
			if verb == "DOT" {
				_, _ = p.conn.Write([]byte("250 2.0.0 ok\r\n"))
				go func() { // later, when the client has taken its answer
					<-time.After(50 * time.Millisecond)
					_, _ = p.conn.Write([]byte("421 4.4.2 idle for too long\r\n"))
					gone <- struct{}{}
				}()
				<-gone
				return drop
			}
			return ""
		})
		c := newClient(t, Config{Route: h.addr})
		for range 2 {
			want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
			h.awaitClosed(1)
		}
	})
	t.Run("421 also afresh", func(t *testing.T) {
		h := startHost(t, "", pipelining, answers("MAIL", "421 4.7.0 slow down"))
		c := newClient(t, Config{Route: h.addr})
		want(t, c.Deliver(t.Context(), letter("a@example.com")), "deferred 421 4.7.0 mail")
		if h.connections() != 1 {
			t.Errorf("%d connections", h.connections())
		}
	})
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	c := newClient(t, Config{Route: h.addr, IdleClose: 20 * time.Millisecond})
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
	h.awaitClosed(1)
	if lines := h.lines(); lines[len(lines)-1] != "1:QUIT" {
		t.Errorf("%q", lines)
	}
}

func TestRunClosesEverythingAtTheEnd(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	h := startHost(t, "", pipelining, func(p *peer, verb, _ string, _ int) string {
		if verb == "DOT" && p.id == 2 {
			close(started)
			<-finish
		}
		return ""
	})
	c, err := New(Config{Hostname: "out.example.org", Route: h.addr})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	// Two connections: one idle at the end, one in use.
	key := siteKey{h.addr, c.sources.pools[""][0], nil}
	st, v, err := c.pool.enter(t.Context(), key, "example.com", time.Now().Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s, r := c.open(t.Context(), c.fixed.fixed[0], time.Now().Add(time.Minute))
	if s == nil {
		t.Fatalf("%+v", r)
	}
	slow := make(chan sender.Outcome, 1)
	go func() { slow <- c.Deliver(t.Context(), letter("slow@example.com")) }()
	<-started
	e := letter("a@example.com")
	want(t, c.send(s, st, &e).Outcome, "delivered 250 2.0.0 dot")
	c.pool.leave(st, v, well, nil)
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	h.awaitClosed(1)
	close(finish)
	want(t, <-slow, "delivered 250 2.0.0 dot")
	h.awaitClosed(1)
	if c.pool.size() != 0 {
		t.Errorf("%d connections are open", c.pool.size())
	}
}

func TestLimitOfASite(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	c := newClient(t, Config{Route: h.addr, PerSite: 3})
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			for range 5 {
				want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
			}
		})
	}
	all.Wait()
	if h.peak > 3 || h.connections() > 3 || len(h.took()) != 200 {
		t.Errorf("%d mails over %d connections, %d at once", len(h.took()), h.connections(), h.peak)
	}
}

func TestWaitersGiveUp(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	h := startHost(t, "", pipelining, func(_ *peer, verb, _ string, _ int) string {
		if verb == "DOT" {
			close(reached)
			<-release
		}
		return ""
	})
	c := newClient(t, Config{Route: h.addr, PerSite: 1})
	first := make(chan sender.Outcome, 1)
	go func() { first <- c.Deliver(t.Context(), letter("a@example.com")) }()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, c.Deliver(ctx, letter("b@example.com")), "deferred - 4.3.2 connect")
	key := siteKey{h.addr, c.sources.pools[""][0], nil}
	if _, _, err := c.pool.enter(ctx, key, "example.com", time.Now().Add(time.Minute)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled waiter got %v", err)
	}
	want(t, c.deliver(t.Context(), &Envelope{To: "b@example.com", Data: []byte(text)}, &transcript{}, time.Now().Add(20*time.Millisecond)).Outcome,
		"deferred - 4.4.5 connect")
	close(release)
	want(t, <-first, "delivered 250 2.0.0 dot")
}

// TestLimitOfAllSites has more sites than connections: those that are idle make room.
func TestLimitOfAllSites(t *testing.T) {
	h := startHost(t, loopback()+":0", pipelining, nil)
	host, port := splitAddr(t, h.addr)
	z := zone{}
	const sites = 12
	for i := range sites {
		z[fmt.Sprintf("MX d%d.example.", i)] = []string{fmt.Sprintf(". MX 10 mx%d.example.", i)}
		z[fmt.Sprintf("A mx%d.example.", i)] = []string{". A " + host}
	}
	server, _ := startDNS(t, z)
	c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true, MaxConns: 4})
	var all sync.WaitGroup
	for i := range sites {
		all.Go(func() {
			for range 5 {
				want(t, c.Deliver(t.Context(), letter(fmt.Sprintf("a@d%d.example", i))), "delivered 250 2.0.0 dot")
			}
		})
	}
	all.Wait()
	if n := c.pool.size(); n > 4 {
		t.Errorf("%d connections are open", n)
	}
	if len(h.took()) != sites*5 {
		t.Errorf("%d mails", len(h.took()))
	}
}
