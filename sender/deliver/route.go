package deliver

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/sender"
)

// How far one attempt goes.
const (
	maxHosts   = 5
	maxTargets = 10 // addresses of all hosts
	maxFamily  = 2  // addresses of one host and family, so that a dead one does not use up the attempt
)

// mxNone is the host of a null MX (RFC 7505).
const mxNone = ""

// mx is a host that takes mail for a domain; the smallest preference is first choice.
type mx struct {
	host       string // lower case, without the dot at the end
	preference uint16
}

// route is where the mail of a domain goes. It is shared and never changed.
type route struct {
	site  string // the set of hosts, as a name
	hosts []mx
	fixed []target // with Config.Route: no look-ups
	demand
}

// target is one address of a host.
type target struct {
	host string
	addr string  // address:port, or name:port with Config.Route
	from *source // the address to come from; nil for the system's choice
	log  *transcript
	// signed is the host's own name after aliases, if its addresses come from signed DNS; else empty.
	signed string
	asks   *demand // what the message that goes there asks of TLS; nil for nothing
}

// newRoute is the route over MX hosts; without any, the domain's own host takes its mail (RFC 5321 §5.1).
func newRoute(domain string, hosts []mx) *route {
	if len(hosts) == 0 {
		return &route{site: domain, hosts: []mx{{host: domain}}}
	}
	names := make([]string, 0, len(hosts))
	for _, m := range hosts {
		names = append(names, m.host)
	}
	slices.Sort(names)
	return &route{site: strings.Join(slices.Compact(names), ","), hosts: hosts}
}

func fixedRoute(addr string) *route {
	host, _, _ := net.SplitHostPort(addr) // checked by New
	return &route{site: addr, fixed: []target{{host: host, addr: addr}}}
}

// null says that the domain takes no mail (RFC 7505).
func (r *route) null() bool {
	return len(r.hosts) > 0 && !slices.ContainsFunc(r.hosts, func(m mx) bool { return m.host != mxNone })
}

// route finds where a domain's mail goes, or why it goes nowhere.
func (c *Client) route(ctx context.Context, domain string) (*route, result) {
	if c.fixed != nil {
		return c.fixed, result{}
	}
	a := c.dns.lookup(ctx, domain, dns.TypeMX)
	switch {
	case ctx.Err() != nil:
		return nil, cancelled("dns")
	case a.finding == noAnswer:
		return nil, problem("dns", "4.4.3", "cannot find the domain's mail hosts: "+a.why)
	case a.finding == noDomain:
		r := bounce("dns", "5.1.2", "the recipient's domain does not exist")
		r.Suppress = true
		return nil, r
	case a.route.null():
		r := bounce("dns", "5.1.10", "the recipient's domain takes no mail (null MX)")
		r.Suppress = true
		return nil, r
	}
	return a.route, result{}
}

// walk is the way of one attempt over the hosts of a route.
type walk struct {
	c     *Client
	from  *origin
	log   *transcript
	hosts []mx
	asks  *demand
	ready []target // addresses of the hosts looked up so far
	left  int      // addresses that may still be tried

	refusal result // what a tried host said or did
	unknown string // why a host's addresses could not be found out
	private bool   // a host was left out because its addresses are not on the Internet
	partial bool   // there are more hosts than one attempt tries
	foreign bool   // a host was left out because we have no source address of its family
}

// walk orders the hosts by preference, equal ones by chance (RFC 5321 §5.1).
func (c *Client) walk(rt *route) *walk {
	w := &walk{c: c, asks: &rt.demand, ready: rt.fixed, left: maxTargets, hosts: slices.Clone(rt.hosts)}
	rand.Shuffle(len(w.hosts), func(i, j int) { w.hosts[i], w.hosts[j] = w.hosts[j], w.hosts[i] })
	slices.SortStableFunc(w.hosts, func(a, b mx) int { return cmp.Compare(a.preference, b.preference) })
	w.partial = len(w.hosts) > maxHosts
	w.hosts = w.hosts[:min(len(w.hosts), maxHosts)]
	return w
}

// next is the next address to try.
func (w *walk) next(ctx context.Context) (t target, ok bool) {
	for len(w.ready) == 0 {
		if len(w.hosts) == 0 {
			return target{}, false
		}
		host := w.hosts[0].host
		w.hosts = w.hosts[1:]
		addrs, signed := w.addresses(ctx, host)
		for _, a := range addrs {
			if from, ok := w.from.to(a); ok {
				w.ready = append(w.ready, target{host: host, addr: joinPort(a, w.c.cfg.Port), signed: signed, from: from})
			} else {
				w.foreign = true
			}
		}
	}
	if w.left == 0 { // so there was something to try, and its refusal is the outcome
		return target{}, false
	}
	w.left--
	t, w.ready = w.ready[0], w.ready[1:]
	t.asks, t.log = w.asks, w.log
	if w.c.fixed != nil {
		t.from = w.from.first()
	}
	return t, true
}

// addresses are those of a host that may be connected to, IPv4 first: large receivers refuse IPv6 senders for more
// reasons. If all come from signed DNS, so does the name they belong to.
func (w *walk) addresses(ctx context.Context, host string) (out []netip.Addr, signed string) {
	if host == mxNone {
		return nil, ""
	}
	if _, err := netip.ParseAddr(host); err == nil || strings.EqualFold(host, w.c.cfg.Hostname) && !w.c.cfg.AllowPrivate {
		w.private = true // an address where a name must be (RFC 5321 §5.1), or ourselves: a loop
		return nil, ""
	}
	var v4, v6 *answer
	var both sync.WaitGroup
	both.Go(func() { v6 = w.c.dns.lookup(ctx, host, dns.TypeAAAA) })
	v4 = w.c.dns.lookup(ctx, host, dns.TypeA)
	both.Wait()
	insecure := false
	for _, a := range []*answer{v4, v6} {
		if a.finding == noAnswer {
			w.unknown = a.why
		}
		if a.finding == found && a.signed {
			signed = a.name
		}
		insecure = insecure || a.finding == found && !a.signed
		addrs := slices.Clone(a.addrs)
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		n := 0
		for _, addr := range addrs {
			switch {
			case !w.c.reachable(addr):
				w.private = true
			case n < maxFamily:
				out = append(out, addr)
				n++
			}
		}
	}
	if insecure {
		signed = ""
	}
	return out, signed
}

// reachable says that mail may be sent to an address: it is on the Internet and not our own.
func (c *Client) reachable(a netip.Addr) bool {
	if c.cfg.AllowPrivate {
		return true
	}
	network := "tcp4"
	if a.Is6() {
		network = "tcp6"
	}
	return !c.own[a] && c.guard.Safe(network, joinPort(a, c.cfg.Port), nil) == nil
}

// tried notes that a host did not take the message. What a host said tells more than that it could not be reached.
func (w *walk) tried(r result) {
	if !w.refusal.is() || w.refusal.Reply.Code == 0 && r.Reply.Code != 0 {
		w.refusal = r
	}
}

// outOfTime is what an attempt comes to that could not try all it wanted.
func (w *walk) outOfTime() result {
	if w.refusal.is() {
		return w.outcome()
	}
	return problem("connect", "4.4.1", "time ran out before a mail host could be reached")
}

// outcome is what an attempt comes to when no host took or refused the message.
func (w *walk) outcome() result {
	switch {
	case w.refusal.is():
		w.refusal.Verdict, w.refusal.Suppress = sender.OutcomeDeferred, false
		return w.refusal
	case w.unknown != "":
		return problem("dns", "4.4.3", "cannot find the addresses of the mail hosts: "+w.unknown)
	case w.foreign:
		return problem("connect", "4.4.4", "the mail hosts have only addresses of a family (IPv4 or IPv6) that we have no source address of")
	case w.partial:
		return problem("dns", "4.4.4", "the first mail hosts of the domain have no address")
	case w.private:
		return bounce("dns", "5.4.6", "the domain's mail hosts have only private addresses, or are ourselves")
	}
	return bounce("dns", "5.4.4", "the domain has no mail host with an address")
}

// ownAddresses are those of this machine: a mail host there is us.
func ownAddresses() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return own // the guard against private addresses remains
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				own[addr.Unmap()] = true
			}
		}
	}
	return own
}
