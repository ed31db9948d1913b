package deliver

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func splitAddr(t *testing.T, addr string) (string, int) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return host, n
}

// farm starts hosts on addresses of their own with one port.
func farm(t *testing.T, scripts ...script) (hosts []*host, ips []string, port int) {
	t.Helper()
	for _, s := range scripts {
		ip := loopback()
		h := startHost(t, net.JoinHostPort(ip, strconv.Itoa(port)), pipelining, s)
		_, port = splitAddr(t, h.addr)
		hosts, ips = append(hosts, h), append(ips, ip)
	}
	return hosts, ips, port
}

// routingZone has a domain for each way that routing can go, with a host at ip.
func routingZone(ip string) zone {
	return zone{
		"MX mx.example.":       {". MX 10 host.example."},
		"A host.example.":      {". A " + ip},
		"A implicit.example.":  {". A " + ip},
		"MX null.example.":     {`. MX 0 .`},
		"TXT empty.example.":   {`. TXT "no mail here"`},
		"MX broken.example.":   {"SERVFAIL"},
		"MX lost.example.":     {". MX 10 nowhere.example.", ". MX 20 nowhere2.example."},
		"MX unsure.example.":   {". MX 10 nowhere.example.", ". MX 20 failing.example."},
		"A failing.example.":   {"SERVFAIL"},
		"MX big.example.":      {"TC", ". MX 10 host.example."},
		"MX alias.example.":    {"alias.example. CNAME real.example."},
		"MX real.example.":     {". MX 10 alias2.example."},
		"A alias2.example.":    {"alias2.example. CNAME host.example.", "host.example. A " + ip},
		"MX loop.example.":     {"loop.example. CNAME loop2.example."},
		"MX loop2.example.":    {"loop2.example. CNAME loop.example."},
		"MX self.example.":     {". MX 10 out.example.org."},
		"A out.example.org.":   {". A " + ip},
		"MX literal.example.":  {". MX 10 127.0.0.1."},
		"MX xn--bcher-kva.de.": {". MX 10 host.example."},
		"MX second.example.":   {". MX 10 nowhere.example.", ". MX 20 host.example."},
		"AAAA mixed.example.":  {"SERVFAIL"},
		"A mixed.example.":     {". A " + ip},
	}
}

func TestRouting(t *testing.T) {
	_, ips, port := farm(t, nil)
	server, asked := startDNS(t, routingZone(ips[0]))
	open := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true, Timeouts: quick()})
	closed := newClient(t, Config{Resolver: []string{server}, Port: port, Timeouts: quick()})
	ok := "delivered 250 2.0.0 dot"
	for _, c := range []struct {
		client         *Client
		domain, expect string
		suppress       bool
	}{
		{open, "mx.example", ok, false},
		{open, "MX.Example", ok, false},
		{open, "implicit.example", ok, false},
		{open, "big.example", ok, false},
		{open, "alias.example", ok, false},
		{open, "second.example", ok, false},
		{open, "mixed.example", ok, false},
		{open, "bücher。de", ok, false},
		{open, "null.example", "bounced - 5.1.10 dns", true},
		{open, "nosuch.example", "bounced - 5.1.2 dns", true},
		{open, "under_score.example", "bounced - 5.1.2 dns", true},
		{open, "xn--abc.com", "bounced - 5.1.2 dns", true},
		{open, "[127.0.0.1]", "bounced - 5.1.2 dns", true},
		{open, strings.Repeat("a", 64) + ".example", "bounced - 5.1.2 dns", true},
		{open, "broken.example", "deferred - 4.4.3 dns", false},
		{open, "loop.example", "deferred - 4.4.3 dns", false},
		{open, "unsure.example", "deferred - 4.4.3 dns", false},
		{open, "empty.example", "bounced - 5.4.4 dns", false},
		{open, "lost.example", "bounced - 5.4.4 dns", false},
		{open, "literal.example", "bounced - 5.4.6 dns", false},
		{closed, "mx.example", "bounced - 5.4.6 dns", false},
		{closed, "implicit.example", "bounced - 5.4.6 dns", false},
		{closed, "self.example", "bounced - 5.4.6 dns", false},
	} {
		out := c.client.Deliver(t.Context(), letter("a@"+c.domain))
		if got := describe(out); got != c.expect || out.Suppress != c.suppress {
			t.Errorf("%s: got %s, suppress %v, want %s (%s)", c.domain, got, out.Suppress, c.expect, out.Reply.Text)
		}
	}
	if asked("tcp MX big.example.") != 1 || asked("tcp MX mx.example.") != 0 {
		t.Error("TCP is for truncated answers alone")
	}
	if asked("MX broken.example.") != queryTries {
		t.Errorf("SERVFAIL was asked for %d times", asked("MX broken.example."))
	}
}

func TestAddressesNotOnTheInternet(t *testing.T) {
	c := newClient(t, Config{Resolver: []string{"127.0.0.1:1"}})
	for addr, ok := range map[string]bool{"127.0.0.1": false, "10.1.2.3": false, "192.168.1.1": false, "172.16.0.9": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false, "::1": false, "fe80::1": false, "fd00::1": false, "64:ff9b::7f00:1": false,
		"8.8.8.8": true, "2a00:1450:4001:830::200e": true} {
		a := &answer{}
		a.add(net.ParseIP(addr))
		if got := c.reachable(a.addrs[0]); got != ok {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// TestPreferences sends 1,000 messages to 10, 10, 20: the equal ones share, and 20 is for when both are down.
func TestPreferences(t *testing.T) {
	hosts, ips, port := farm(t, nil, nil, nil)
	server, _ := startDNS(t, zone{
		"MX example.com.": {". MX 20 c.example.", ". MX 10 a.example.", ". MX 10 b.example."},
		"A a.example.":    {". A " + ips[0]}, "A b.example.": {". A " + ips[1]}, "A c.example.": {". A " + ips[2]},
	})
	c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true, Reuse: 1})
	for range 1000 {
		want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
	}
	a, b, third := len(hosts[0].took()), len(hosts[1].took()), len(hosts[2].took())
	if a < 400 || b < 400 || third != 0 {
		t.Errorf("%d, %d and %d", a, b, third)
	}
}

func TestNextHost(t *testing.T) {
	for name, s := range map[string]script{
		"refuses everybody": answers("GREETING", "554 5.7.1 no"),
		"is busy":           answers("GREETING", "421 4.3.2 busy"),
		"refuses EHLO":      answers("EHLO", "421 4.3.2 busy"),
		"closes":            answers("GREETING", drop),
		"hangs":             answers("GREETING", hang),
		"closes at MAIL":    answers("MAIL", drop),
		"is busy at MAIL":   answers("MAIL", "421 4.3.2 busy"),
	} {
		t.Run(name, func(t *testing.T) {
			hosts, ips, port := farm(t, s, nil)
			server, _ := startDNS(t, zone{
				"MX example.com.": {". MX 10 a.example.", ". MX 20 b.example."},
				"A a.example.":    {". A " + ips[0]}, "A b.example.": {". A " + ips[1]},
			})
			c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true, Timeouts: quick()})
			out := c.Deliver(t.Context(), letter("a@example.com"))
			want(t, out, "delivered 250 2.0.0 dot")
			if out.Reply.Host != "b.example" || hosts[0].connections() != 1 {
				t.Errorf("by %s after %d connections to the first", out.Reply.Host, hosts[0].connections())
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		_, ips, port := farm(t, nil)
		server, _ := startDNS(t, zone{"A example.com.": {". A " + loopback(), ". A " + ips[0]}, "A dead.example.": {". A " + loopback()},
			"AAAA dead.example.": {". AAAA ::1"}})
		c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true})
		want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
		out := c.Deliver(t.Context(), letter("a@dead.example"))
		want(t, out, "deferred - 4.4.1 connect")
		if !strings.Contains(out.Reply.Text, "connection refused") || out.Reply.Host != "dead.example" {
			t.Errorf("%+v", out.Reply)
		}
	})
	t.Run("a refusal by RCPT is final", func(t *testing.T) {
		hosts, ips, port := farm(t, answers("RCPT", "550 5.1.1 no such user"), nil)
		server, _ := startDNS(t, zone{"MX example.com.": {". MX 10 a.example.", ". MX 20 b.example."},
			"A a.example.": {". A " + ips[0]}, "A b.example.": {". A " + ips[1]}})
		c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true})
		want(t, c.Deliver(t.Context(), letter("a@example.com")), "bounced 550 5.1.1 rcpt")
		if hosts[1].connections() != 0 {
			t.Error("another host was asked")
		}
	})
}

// TestManyHosts has 100 MX with dead addresses: an attempt tries 5 hosts and 10 addresses.
func TestManyHosts(t *testing.T) {
	z := zone{}
	for i := range 120 {
		z["MX example.com."] = append(z["MX example.com."], fmt.Sprintf(". MX %d m%d.example.", i, i))
		z[fmt.Sprintf("A m%d.example.", i)] = []string{". A 127.9.9.1", ". A 127.9.9.2", ". A 127.9.9.3"}
	}
	z["MX example.com."] = append([]string{"TC"}, z["MX example.com."]...)
	server, asked := startDNS(t, z)
	c := newClient(t, Config{Resolver: []string{server}, Port: 1, AllowPrivate: true})
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "deferred - 4.4.1 connect")
	n := 0
	for i := range 120 {
		n += asked(fmt.Sprintf("A m%d.example.", i))
	}
	if n != maxHosts {
		t.Errorf("%d hosts were looked up", n)
	}
}

func TestDomainsOfOneHostShareASite(t *testing.T) {
	hosts, ips, port := farm(t, nil)
	server, asked := startDNS(t, zone{
		"MX one.example.": {". MX 10 a.example.", ". MX 20 b.example."}, "MX two.example.": {". MX 5 B.example.", ". MX 1 a.example."},
		"A a.example.": {". A " + ips[0]}, "A b.example.": {". A " + ips[0]},
	})
	c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true})
	for range 3 {
		want(t, c.Deliver(t.Context(), letter("a@one.example")), "delivered 250 2.0.0 dot")
		want(t, c.Deliver(t.Context(), letter("a@two.example")), "delivered 250 2.0.0 dot")
	}
	if hosts[0].connections() != 1 {
		t.Errorf("%d connections", hosts[0].connections())
	}
	if asked("MX one.example.") != 1 {
		t.Error("an answer was not kept")
	}
}

func TestAnswersAreKeptAsLongAsAllowed(t *testing.T) {
	server, _ := startDNS(t, zone{
		"A short.example.": {"short.example. 1 IN A 127.0.0.1"}, "A long.example.": {"long.example. 999999 IN A 127.0.0.1"},
		"A broken.example.": {"SERVFAIL"},
		"A alias.example.":  {"alias.example. 20 IN CNAME long.example.", "long.example. 300 IN A 127.0.0.1"},
	})
	r, err := newResolver([]string{server}, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, ttl := range map[string]time.Duration{"short.example": ttlLeast, "long.example": ttlMost, "no.example": ttlNegative,
		"broken.example": ttlLeast, "alias.example": 20 * time.Second} {
		a := r.lookup(t.Context(), name, dns.TypeA)
		if left := time.Until(a.expires); left > ttl || left < ttl-2*time.Second {
			t.Errorf("%s is kept for %v, want %v", name, left, ttl)
		}
	}
	for i := range maxAnswers + 100 {
		r.keep(question{strconv.Itoa(i), dns.TypeA}, &answer{})
	}
	if len(r.cache) > maxAnswers {
		t.Errorf("%d answers are kept", len(r.cache))
	}
}

func TestOneQueryForManyAskers(t *testing.T) {
	_, ips, port := farm(t, nil)
	server, asked := startDNS(t, zone{"MX example.com.": {". MX 10 a.example."}, "A a.example.": {". A " + ips[0]}})
	c := newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true})
	outcomes := make(chan string, 50)
	for range 50 {
		go func() { outcomes <- describe(c.Deliver(t.Context(), letter("a@example.com"))) }()
	}
	for range 50 {
		if got := <-outcomes; got != "delivered 250 2.0.0 dot" {
			t.Error(got)
		}
	}
	if n := asked("MX example.com."); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestWalkIsNewEachTime(t *testing.T) {
	hosts := []mx{{"a", 10}, {"b", 20}}
	c := &Client{}
	rt := newRoute("example.com", hosts)
	c.walk(rt).hosts[0].host = "changed"
	if !slices.Equal(rt.hosts, hosts) || rt.site != "a,b" {
		t.Errorf("%+v", rt)
	}
}
