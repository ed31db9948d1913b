package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Limits of the resolver.
const (
	queryTime   = 5 * time.Second
	queryTries  = 2
	lookupTime  = 20 * time.Second // a whole look-up, with tries, TCP and aliases
	maxAliases  = 8
	maxAnswers  = 10_000   // kept in memory
	maxMX       = 100      // of one domain
	maxAddrs    = 16       // of one host and family
	maxRecords  = 32       // TXT or TLSA of one name
	maxTLSA     = 16 << 10 // hex digits of all TLSA records of one name
	ttlLeast    = 5 * time.Second
	ttlMost     = time.Hour
	ttlNegative = time.Minute
	udpSize     = 1232 // what crosses the Internet unfragmented
)

// finding is what a look-up came to.
type finding int8

const (
	found    finding = iota + 1
	noData           // the name exists, without records of this type
	noDomain         // the name does not exist
	noAnswer         // nobody could tell: try again later
)

// answer is a look-up's result. It is shared and never changed.
type answer struct {
	finding finding
	why     string // with noAnswer
	addrs   []netip.Addr
	hosts   []mx
	texts   []string
	tlsa    []*dns.TLSA
	route   *route // over the hosts, or without any to the domain itself; of MX look-ups only
	name    string // the last one that aliases lead to, lower case, without the dot at the end
	signed  bool   // a resolver that we trust has checked the signatures (DNSSEC) of all of it
	expires time.Time
}

type question struct {
	name string
	kind uint16
}

// resolver asks recursive DNS servers and keeps what they say for as long as they allow.
type resolver struct {
	servers  []string
	trusted  []bool // by server: its word on signatures (the AD bit, RFC 6840 §5.8) counts
	udp, tcp *dns.Client
	flight   singleflight.Group // one query at a time for a name

	mu    sync.RWMutex
	cache map[question]*answer
}

// newResolver asks these servers, or those of /etc/resolv.conf. A server's AD bit is believed if it is on this machine,
// so that nobody can set the bit on the way, or if the operator says so (RFC 7672 §2.1).
func newResolver(servers []string, trustAD bool) (*resolver, error) {
	if len(servers) == 0 {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return nil, fmt.Errorf("no DNS servers: set resolver, or repair /etc/resolv.conf: %w", err)
		}
		for _, s := range conf.Servers {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	if len(servers) == 0 {
		return nil, errors.New("no DNS servers: set resolver, or add a nameserver to /etc/resolv.conf")
	}
	trusted := make([]bool, len(servers))
	for i, s := range servers {
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			return nil, fmt.Errorf("resolver %q must be host:port", s)
		}
		addr, err := netip.ParseAddr(host)
		trusted[i] = trustAD || err == nil && addr.IsLoopback()
	}
	return &resolver{servers: servers, trusted: trusted, cache: map[question]*answer{},
		udp: &dns.Client{Net: "udp", Timeout: queryTime, UDPSize: udpSize},
		tcp: &dns.Client{Net: "tcp", Timeout: queryTime}}, nil
}

// lookup answers from memory or asks, for at most 20 s and not beyond ctx. The answer is never nil.
func (r *resolver) lookup(ctx context.Context, name string, kind uint16) *answer {
	q := question{name, kind}
	if a := r.kept(q); a != nil {
		return a
	}
	asked := r.flight.DoChan(strconv.Itoa(int(kind))+" "+name, func() (any, error) {
		if a := r.kept(q); a != nil { // the last flight landed just now
			return a, nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), lookupTime) // it has more than one asker
		defer cancel()
		a := r.resolve(ctx, name, kind)
		r.keep(q, a)
		return a, nil
	})
	select {
	case res := <-asked:
		return res.Val.(*answer)
	case <-ctx.Done():
		return &answer{finding: noAnswer, why: "the attempt was cancelled"}
	}
}

// kept is an answer that still holds, or nil.
func (r *resolver) kept(q question) *answer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if a := r.cache[q]; a != nil && time.Now().Before(a.expires) {
		return a
	}
	return nil
}

// keep remembers an answer. When memory is full, one that has expired goes, or else any.
func (r *resolver) keep(q question, a *answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, old := r.cache[q]; !old && len(r.cache) >= maxAnswers {
		var victim question
		now, looked := time.Now(), 0
		for victim = range r.cache { // the order is random
			if looked++; looked == 8 || now.After(r.cache[victim].expires) {
				break
			}
		}
		delete(r.cache, victim)
	}
	r.cache[q] = a
}

// resolve asks, and asks on where an alias leads out of the answer.
func (r *resolver) resolve(ctx context.Context, name string, kind uint16) *answer {
	target, ttl, signed := dns.Fqdn(name), ttlMost, true
	for aliases := 0; aliases <= maxAliases; {
		msg, err := r.ask(ctx, target, kind)
		if err != nil {
			return &answer{finding: noAnswer, why: err.Error(), expires: time.Now().Add(ttlLeast)}
		}
		signed = signed && msg.AuthenticatedData
		var hops int
		target, hops, ttl = follow(msg, target, ttl)
		aliases += hops
		if aliases > maxAliases {
			break
		}
		if a := read(msg, target, kind, ttl); a.finding != noData || hops == 0 || authority(msg) {
			a.name, a.signed = strings.ToLower(strings.TrimSuffix(target, ".")), signed
			if kind == dns.TypeMX && a.finding != noDomain {
				a.route = newRoute(name, a.hosts)
				a.route.signed = signed
			}
			return a
		}
	}
	return &answer{finding: noAnswer, why: "the name leads through too many aliases", expires: time.Now().Add(ttlLeast)}
}

// follow goes through the aliases in an answer (RFC 1034 §3.6.2) as far as they lead.
func follow(msg *dns.Msg, name string, ttl time.Duration) (target string, hops int, left time.Duration) {
	for hops <= maxAliases {
		next := ""
		for _, rr := range msg.Answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
				next, ttl = c.Target, min(ttl, seconds(c.Hdr.Ttl))
				break
			}
		}
		if next == "" {
			break
		}
		name = next
		hops++
	}
	return name, hops, ttl
}

// authority says that the server followed the aliases to their end and found nothing there (RFC 2308 §2.2).
func authority(msg *dns.Msg) bool {
	return slices.ContainsFunc(msg.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
}

// read takes the records of the target from an answer.
func read(msg *dns.Msg, target string, kind uint16, ttl time.Duration) *answer {
	a, digits := &answer{}, 0
	for _, rr := range msg.Answer {
		h := rr.Header()
		if h.Rrtype != kind || !strings.EqualFold(h.Name, target) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.MX:
			if len(a.hosts) < maxMX {
				a.hosts = append(a.hosts, mx{strings.ToLower(strings.TrimSuffix(rr.Mx, ".")), rr.Preference})
			}
		case *dns.A:
			a.add(rr.A)
		case *dns.AAAA:
			a.add(rr.AAAA)
		case *dns.TXT:
			if len(a.texts) < maxRecords {
				a.texts = append(a.texts, strings.Join(rr.Txt, ""))
			}
		case *dns.TLSA:
			if digits += len(rr.Certificate); len(a.tlsa) < maxRecords && digits <= maxTLSA {
				a.tlsa = append(a.tlsa, rr)
			}
		}
		ttl = min(ttl, seconds(h.Ttl))
	}
	switch {
	case len(a.hosts)+len(a.addrs)+len(a.texts)+len(a.tlsa) > 0:
		a.finding, ttl = found, max(ttl, ttlLeast)
	case msg.Rcode == dns.RcodeNameError:
		a.finding, ttl = noDomain, ttlNegative
	default:
		a.finding, ttl = noData, ttlNegative
	}
	a.expires = time.Now().Add(ttl)
	return a
}

func (a *answer) add(ip net.IP) {
	if addr, ok := netip.AddrFromSlice(ip); ok && len(a.addrs) < maxAddrs {
		a.addrs = append(a.addrs, addr.Unmap())
	}
}

func seconds(ttl uint32) time.Duration { return time.Duration(ttl) * time.Second }

// ask puts a question to the servers in turn until one of them knows that there is, or is not, an answer.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	m.SetEdns0(udpSize, false)
	m.AuthenticatedData = true // tell us whether it is signed: RFC 6840 §5.7
	var last error
	for try := range queryTries {
		i := try % len(r.servers)
		server := r.servers[i]
		m.Id = dns.Id()
		got, _, err := r.udp.ExchangeContext(ctx, m, server)
		if err == nil && got.Truncated {
			got, _, err = r.tcp.ExchangeContext(ctx, m, server) // RFC 7766 §5
		}
		switch {
		case err != nil:
			last = errors.New("DNS server did not answer: " + reason(err))
		case len(got.Question) != 1 || got.Question[0].Qtype != kind || !strings.EqualFold(got.Question[0].Name, name):
			last = errors.New("DNS server answered another question")
		case got.Rcode == dns.RcodeSuccess || got.Rcode == dns.RcodeNameError:
			got.AuthenticatedData = got.AuthenticatedData && r.trusted[i]
			return got, nil
		default:
			last = errors.New("DNS server answered " + dns.RcodeToString[got.Rcode])
			if got.Rcode == dns.RcodeFormatError || got.Rcode == dns.RcodeNotImplemented {
				m.Extra = nil // a server of before RFC 6891
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}
