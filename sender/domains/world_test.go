package domains

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

const (
	returnPathHost = "bounces.mx.postrider.test"
	mxHost         = "mx.postrider.test"
	trackingHost   = "links.mx.postrider.test"
)

// world is sending domains on real shards, with a DNS of their own and a clock that is turned by hand.
type world struct {
	*shardtest.Env
	*Domains
	zone *zone

	mu    sync.Mutex
	clock time.Time
	mails []string // to, subject, text
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{Env: pg.New(t, 2), zone: startDNS(t), clock: time.Now().UTC().Truncate(time.Microsecond)}
	w.Domains = w.another()
	return w
}

// another is a second process's view.
func (w *world) another() *Domains {
	d := New(Config{Shards: w.Shards, Store: store.New(w.Shards), Secret: [32]byte{1}, Resolvers: []string{w.zone.addr}, Hostname: mxHost,
		ReturnPathDomain: returnPathHost, TrackingHost: trackingHost, Poll: 10 * time.Millisecond,
		Mail: func(_ context.Context, _ int64, to, subject, text string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mails = append(w.mails, to, subject, text)
			return nil
		},
		Link: func(token string) string { return "https://api.example" + MailboxPath + token }})
	d.now = func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.clock
	}
	return d
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

// publish puts a domain's records of some purposes into the DNS; of all if none are named.
func (w *world) publish(t *testing.T, d Domain, purposes ...Purpose) {
	t.Helper()
	for _, r := range d.Records {
		named := len(purposes) == 0
		for _, p := range purposes {
			named = named || r.Purpose == p
		}
		if named {
			w.zone.add(t, r.Record)
		}
	}
}

func (w *world) check(t *testing.T, account int64, domain string) Domain {
	t.Helper()
	w.pass(fresh)
	d, err := w.Check(t.Context(), account, domain)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) add(t *testing.T, account int64, domain string) Domain {
	t.Helper()
	d, err := w.Add(t.Context(), account, domain)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// zone is a DNS server that knows what it was told.
type zone struct {
	addr string

	mu      sync.Mutex
	records map[string][]dns.RR // by lower-case name with a dot at the end
	broken  string              // all names below it: "servfail" them; "." for all
	silent  bool                // answers nothing
	asked   int
}

func startDNS(t *testing.T) *zone {
	t.Helper()
	z := &zone{records: map[string][]dns.RR{}}
	var udp net.PacketConn
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	for range 20 { // a port that is free for both
		if err != nil {
			break
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		_ = tcp.Close()
		tcp, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil || udp == nil {
		t.Fatal(err)
	}
	z.addr = tcp.Addr().String()
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		ended := make(chan error, 1)
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	return z
}

func (z *zone) add(t *testing.T, r Record) {
	t.Helper()
	head := dns.RR_Header{Name: dns.Fqdn(r.Name), Class: dns.ClassINET, Ttl: 60}
	var rr dns.RR
	switch r.Type {
	case "TXT":
		head.Rrtype = dns.TypeTXT
		parts := []string{}
		for v := r.Value; v != ""; v = v[min(255, len(v)):] {
			parts = append(parts, v[:min(255, len(v))])
		}
		rr = &dns.TXT{Hdr: head, Txt: parts}
	case "CNAME":
		head.Rrtype = dns.TypeCNAME
		rr = &dns.CNAME{Hdr: head, Target: dns.Fqdn(r.Value)}
	case "MX":
		head.Rrtype = dns.TypeMX
		rr = &dns.MX{Hdr: head, Preference: 10, Mx: dns.Fqdn(r.Value)}
	default:
		t.Fatal(r)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(head.Name)
	z.records[name] = append(z.records[name], rr)
}

func (z *zone) txt(t *testing.T, name string, values ...string) {
	t.Helper()
	z.drop(name)
	for _, v := range values {
		z.add(t, Record{Name: name, Type: "TXT", Value: v})
	}
}

func (z *zone) drop(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records, dns.Fqdn(name))
}

func (z *zone) ail(broken string, silent bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.broken, z.silent = broken, silent
}

func (z *zone) questions() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.silent {
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	name, kind := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	if z.broken != "" && dns.IsSubDomain(dns.Fqdn(z.broken), name) {
		m.Rcode = dns.RcodeServerFailure
		_ = w.WriteMsg(m)
		return
	}
	if kind != dns.TypeCNAME {
		for range 10 {
			alias, ok := first(z.records[name]).(*dns.CNAME)
			if !ok {
				break
			}
			m.Answer = append(m.Answer, alias)
			name = alias.Target
		}
	}
	for _, rr := range z.records[name] {
		if rr.Header().Rrtype == kind {
			m.Answer = append(m.Answer, rr)
		}
	}
	if z.records[name] == nil {
		m.Rcode = dns.RcodeNameError
		for other := range z.records {
			if dns.IsSubDomain(name, other) {
				m.Rcode = dns.RcodeSuccess
			}
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(udpSize)
	}
	_ = w.WriteMsg(m)
}

func first(list []dns.RR) dns.RR {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// stateOf is what was found of a record.
func stateOf(t *testing.T, d Domain, p Purpose) Result {
	t.Helper()
	for _, r := range d.Records {
		if r.Purpose == p {
			return r
		}
	}
	t.Fatalf("%s has no record for %s", d.Name, p)
	return Result{}
}
