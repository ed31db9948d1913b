package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/miekg/dns"
)

// peerTime is how long a host may take for an answer, but for the one to the final dot.
const peerTime = 3 * time.Second

// peerConns is how many connections a site may have, and how many messages may be under way to one domain.
const peerConns = 20

// peers is a postrider serve that finds hosts as it does in the world: by their names. Each domain's host has an
// address of its own in 127/8, and all of them listen on one port.
type peers struct {
	*dev
	zone  *zone
	port  string
	hosts atomic.Int32
}

func newPeers(t *testing.T) *peers {
	t.Helper()
	p := &peers{zone: newZone(t)}
	var err error
	if _, p.port, err = net.SplitHostPort(freeAddress(t)); err != nil {
		t.Fatal(err)
	}
	port, err := net.LookupPort("tcp", p.port)
	if err != nil {
		t.Fatal(err)
	}
	p.dev = newCluster(t).serveTo(t, object{"resolvers": []string{p.zone.addr}, "port": port, "allow_private": true,
		"connections_per_site": peerConns, "messages_per_domain": peerConns, "retry": []string{"1s", "2s", "4s"}, "life": "1h",
		"command_timeout": peerTime.String(), "sweep": "1s"})
	return p
}

// serveTo starts a postrider serve that delivers in its own way.
func (c *cluster) serveTo(t *testing.T, delivery object) *dev {
	t.Helper()
	d := &dev{Key: c.key, Config: filepath.Join(t.TempDir(), "postrider.toml"), output: &tail{}, ended: make(chan struct{})}
	http, metrics := freeAddress(t), freeAddress(t)
	d.API, d.Metrics = "http://"+http, "http://"+metrics+"/metrics"
	cfg := maps.Clone(c.config)
	cfg["http"], cfg["metrics"], cfg["queue"], cfg["delivery"] = http, metrics, object{"dir": t.TempDir()}, delivery
	var b strings.Builder
	err := toml.NewEncoder(&b).Encode(cfg)
	if err == nil {
		err = os.WriteFile(d.Config, []byte(b.String()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.serve(t)
	return d
}

// place gives a domain a host, and returns the address that this host has to listen on.
func (p *peers) place(domain string) string {
	n := p.hosts.Add(1)
	ip := fmt.Sprintf("127.77.%d.%d", n/250, n%250+1)
	p.zone.mu.Lock()
	p.zone.hosts[domain] = ip
	p.zone.mu.Unlock()
	return net.JoinHostPort(ip, p.port)
}

// many sends to so many recipients at a domain in one call, and returns the ids.
func (d *dev) many(t *testing.T, domain string, n int) (ids []string) {
	t.Helper()
	to := make([]object, n)
	for i := range to {
		to[i] = object{"email": fmt.Sprintf("r%d@%s", i, domain)}
	}
	for _, r := range d.results(t, mail("", object{"to": to})) {
		ids = append(ids, r["_id"].(string))
	}
	return ids
}

// allIn waits until all messages are in a state.
func (d *dev) allIn(t *testing.T, limit time.Duration, ids []string, want string) {
	t.Helper()
	left := ids
	defer func() {
		if t.Failed() && len(left) > 0 {
			t.Logf("%d of %d are not %s; the first is %v", len(left), len(ids), want, d.state(t, left[0]))
		}
	}()
	wait(t, limit, fmt.Sprintf("%d messages to be %s", len(ids), want), func() bool {
		for len(left) > 0 && d.state(t, left[0])["state"] == want {
			left = left[1:]
		}
		return len(left) == 0
	})
}

// deferred waits until all messages have been tried in vain, wants them to be kept, and returns what is said of them.
func (d *dev) deferred(t *testing.T, limit time.Duration, ids ...string) string {
	t.Helper()
	said := ""
	for _, id := range ids {
		var m object
		wait(t, limit, "an attempt of "+id+" to fail", func() bool {
			m = d.state(t, id)
			return strings.Contains(events(m), "deferral") || m["state"] != "queued"
		})
		if m["state"] != "queued" {
			t.Fatalf("not kept for another attempt: %v", m)
		}
		said += fmt.Sprint(m["smtp_events"])
	}
	return said
}

// zone is the DNS that a system under test asks. A domain has one host by MX, mx.DOMAIN, which has one address.
type zone struct {
	addr string

	mu    sync.Mutex
	hosts map[string]string      // addresses by domain
	ill   map[string]dns.Handler // what is done for a domain in place of an answer
	stop  func()
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{addr: "127.0.0.1:0", hosts: map[string]string{}, ill: map[string]dns.Handler{}}
	z.start(t)
	t.Cleanup(func() { z.stop() })
	return z
}

// start serves on UDP and TCP, at the address where it did before.
func (z *zone) start(t *testing.T) {
	t.Helper()
	var udp net.PacketConn
	var tcp net.Listener
	var err error
	for range 20 { // the port that is free for one may be taken for the other
		if udp, err = net.ListenPacket("udp", z.addr); err != nil {
			continue
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			break
		}
		_ = udp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	z.addr = udp.LocalAddr().String()
	servers := []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}}
	var running sync.WaitGroup
	for _, s := range servers {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		running.Go(func() { _ = s.ActivateAndServe() })
		<-up
	}
	z.stop = sync.OnceFunc(func() {
		for _, s := range servers {
			_ = s.Shutdown()
		}
		running.Wait()
	})
}

// ServeDNS answers MX and A, and that there is nothing else.
func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	q := r.Question[0]
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	domain := strings.TrimPrefix(name, "mx.")
	z.mu.Lock()
	ip, known, ill := z.hosts[domain], z.hosts[domain] != "", z.ill[domain]
	z.mu.Unlock()
	if ill != nil {
		ill.ServeDNS(w, r)
		return
	}
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 5}
	switch {
	case !known:
		m.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeMX && name == domain:
		m.Answer = append(m.Answer, &dns.MX{Hdr: head, Preference: 10, Mx: "mx." + q.Name})
	case q.Qtype == dns.TypeA && name != domain:
		m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.ParseIP(ip)})
	}
	_ = w.WriteMsg(m)
}
