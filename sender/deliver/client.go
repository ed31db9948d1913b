// Package deliver makes one attempt at delivering one message: where it goes, the SMTP dialogue (RFC 5321), and
// how it ended. It keeps connections open between messages. It knows no queue and never decides when to try again.
package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"code.dny.dev/ssrf"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/idna"
	"golang.org/x/sync/errgroup"
)

// Timeouts bound each stage of an attempt. The defaults are the floors of RFC 5321 §4.5.3.2 and should only be
// shortened in tests. A stage must be over in its time: a byte now and then does not prolong it.
type Timeouts struct {
	Connect  time.Duration // TCP connect to one address; 30 s
	Greeting time.Duration // from connect to the whole greeting; 5 min
	Command  time.Duration // EHLO, STARTTLS with its handshake, MAIL, RCPT; 5 min each
	Data     time.Duration // the answer to DATA; 2 min
	Block    time.Duration // writing 64 KiB of content; 3 min
	Dot      time.Duration // the answer to the content; 10 min
	Total    time.Duration // the attempt, with all hosts and the wait for a connection; 20 min
}

// Config says how mail leaves. The zero value of every field but Hostname means its default.
type Config struct {
	Hostname     string        // our name in EHLO: it should resolve to the address we send from, and back
	Route        string        // "host:port" that takes all mail, without MX look-ups; empty for the recipients' own hosts
	Port         int           // where MX hosts listen; 25
	Resolver     []string      // DNS servers as "host:port"; empty for those of /etc/resolv.conf
	TrustAD      bool          // believe what Resolver says about signed DNS (DANE rests on it), even if it is not on this machine
	AllowPrivate bool          // also connect to loopback, private and our own addresses that MX names lead to: for development only
	Timeouts     Timeouts      //
	Start        int           // connections to one site, which is a set of MX hosts, at first; 5, or PerSite with Route
	PerSite      int           // and at most; 20
	MaxConns     int           // connections to all sites; 1,000
	Reuse        int           // messages over one connection; 1,000
	Rules        []Rule        // other limits for some destinations
	Sources      []Source      // addresses to send from; none for the system's choice
	IdleClose    time.Duration // how long a connection may wait for its next message; 5 s, or 60 s with Route
	TLS          *tls.Config   // for STARTTLS, and RootCAs for MTA-STS; nil for Go's defaults
	Log          *zap.Logger
	Metrics      prometheus.Registerer
}

// Envelope is a message ready for the wire.
type Envelope struct {
	From     string // return path; empty for the null sender
	To       string // the one recipient
	Data     []byte // 7-bit content (UTF-8 with SMTPUTF8), dot-stuffed, ending in CRLF.CRLF
	Size     int    // bytes of content before dot-stuffing, for SIZE (RFC 1870)
	SMTPUTF8 bool   // the header needs a host that knows RFC 6531
	// RequireTLS keeps the message from going in the clear: without TLS at any host the outcome is deferred with 4.7.10.
	// Any certificate is accepted, unless the domain's own policy (MTA-STS, DANE) asks for more.
	RequireTLS bool
	// Still is asked once more when the host has agreed to take the content: an error calls the attempt off before a byte
	// of it is sent, and the outcome is deferred with that text. Nil asks nobody. It must not block.
	Still func() error
	Pool  string // the source addresses to send from; empty for the default ones
	// Transcript asks for the dialogue also when the message is delivered; costs about 2 µs.
	Transcript bool
}

// Client delivers messages. It is safe for concurrent use.
type Client struct {
	cfg         Config
	dialer      net.Dialer
	idna        *idna.Profile
	tls         *tls.Config
	clear       *hostMemory // hosts whose TLS failed lately
	dns         *resolver   // nil with Route
	fixed       *route      // nil without Route
	guard       *ssrf.Guardian
	own         map[netip.Addr]bool
	pool        *pool
	sources     *sourceSet
	transcripts sync.Pool    // of *transcript
	sts         *stsPolicies // nil with Route
	reports     *tlsReports
	metrics     *metrics
}

// New checks the configuration and makes a client. It connects to nothing.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	cfg.setDefaults()
	c := &Client{
		cfg:    cfg,
		dialer: net.Dialer{Timeout: cfg.Timeouts.Connect},
		idna:   idna.New(idna.MapForLookup(), idna.StrictDomainName(true), idna.VerifyDNSLength(true), idna.BidiRule()),
		tls:    clientTLS(cfg.TLS),
		clear:  newHostMemory(),
		guard:  ssrf.New(ssrf.WithAnyPort()),
	}
	var err error
	if c.reports, err = newTLSReports(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	c.transcripts.New = func() any { return &transcript{} }
	if err := c.shape(); err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	if cfg.Route != "" {
		c.fixed = fixedRoute(cfg.Route)
	} else {
		if c.dns, err = newResolver(cfg.Resolver, cfg.TrustAD); err != nil {
			return nil, fmt.Errorf("delivery: %w", err)
		}
		c.own = ownAddresses()
		c.sts = newSTSPolicies(c.dns, newSTSFetcher(c, c.tls.RootCAs), c.reports, cfg.Log)
	}
	if c.metrics, err = newMetrics(cfg.Metrics, c.pool); err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	return c, nil
}

func (cfg *Config) check() error {
	if cfg.Hostname == "" || !wireSafe(cfg.Hostname) {
		return errors.New("hostname must be the full name of this machine, such as mail.example.com")
	}
	if cfg.Route != "" {
		if host, port, err := net.SplitHostPort(cfg.Route); err != nil || host == "" || port == "" {
			return fmt.Errorf("route %q must be host:port", cfg.Route)
		}
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return fmt.Errorf("port %d is not between 1 and 65535", cfg.Port)
	}
	t := &cfg.Timeouts
	if min(cfg.Start, cfg.PerSite, cfg.MaxConns, cfg.Reuse) < 0 ||
		min(cfg.IdleClose, t.Connect, t.Greeting, t.Command, t.Data, t.Block, t.Dot, t.Total) < 0 {
		return errors.New("limits and times cannot be negative")
	}
	return nil
}

// shape makes what decides how much mail goes where, and from where.
func (c *Client) shape() error {
	usual := limits{start: c.cfg.Start, most: c.cfg.PerSite, reuse: c.cfg.Reuse, proved: c.cfg.Route != ""}
	rules, err := newRules(c.cfg.Rules, usual)
	if err != nil {
		return err
	}
	c.pool = newPool(c.cfg.MaxConns, c.cfg.IdleClose, rules)
	c.sources, err = newSources(c.cfg.Sources, c.cfg.Hostname, time.Now())
	return err
}

func (cfg *Config) setDefaults() {
	t, idle := &cfg.Timeouts, 5*time.Second
	if cfg.Route != "" {
		idle = time.Minute
	}
	for _, d := range []struct {
		v  *time.Duration
		to time.Duration
	}{{&cfg.IdleClose, idle}, {&t.Connect, 30 * time.Second}, {&t.Greeting, 5 * time.Minute}, {&t.Command, 5 * time.Minute},
		{&t.Data, 2 * time.Minute}, {&t.Block, 3 * time.Minute}, {&t.Dot, 10 * time.Minute}, {&t.Total, 20 * time.Minute}} {
		if *d.v == 0 {
			*d.v = d.to
		}
	}
	for _, n := range []struct {
		v  *int
		to int
	}{{&cfg.Port, 25}, {&cfg.PerSite, 20}, {&cfg.MaxConns, 1000}, {&cfg.Reuse, 1000}} {
		if *n.v == 0 {
			*n.v = n.to
		}
	}
	if cfg.Start == 0 && cfg.Route != "" {
		cfg.Start = cfg.PerSite
	} else if cfg.Start == 0 {
		cfg.Start = 5
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
}

// Run closes connections that have been idle for too long, until ctx ends. Then it closes all idle ones, and those
// in use as soon as their attempts end. Attempts under way are ended by their own contexts. It also renews MTA-STS
// policies.
func (c *Client) Run(ctx context.Context) error {
	if c.sts != nil {
		var renewal sync.WaitGroup
		renewal.Go(func() { c.sts.run(ctx) })
		defer renewal.Wait()
	}
	tick := time.NewTicker(min(max(c.cfg.IdleClose/4, 10*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			quit(c.pool.expire(now))
		case <-ctx.Done():
			quit(c.pool.close())
			return nil
		}
	}
}

// quit takes leave of idle connections, many at a time: one that does not take its QUIT holds up few others.
func quit(sessions []*session) {
	if len(sessions) == 0 {
		return
	}
	var g errgroup.Group
	g.SetLimit(16)
	for _, s := range sessions {
		g.Go(func() error { s.quit(); return nil })
	}
	_ = g.Wait() // the only error is nil
}

// prepare makes the addresses fit for the wire and returns the recipient's domain in ASCII (RFC 5891 §4.4).
func (c *Client) prepare(e *Envelope) (domain string, bad result) {
	at := strings.LastIndexByte(e.To, '@')
	if at < 1 || !wireSafe(e.To) {
		return "", bounce("rcpt", "5.1.3", "the recipient's address cannot be written in SMTP")
	}
	if !wireSafe(e.From) {
		return "", bounce("mail", "5.1.7", "the return path cannot be written in SMTP")
	}
	if n := len(e.Data); string(e.Data[max(n-5, 0):]) != "\r\n.\r\n" {
		return "", problem("data", "4.3.0", "internal error: the content does not end in CRLF.CRLF")
	}
	domain = e.To[at+1:]
	if c.fixed == nil || !ascii(domain) {
		mapped, err := c.idna.ToASCII(strings.TrimSuffix(domain, "."))
		if err != nil || mapped == "" {
			bad = bounce("dns", "5.1.2", "the recipient's domain is not a valid domain name")
			bad.Suppress = true
			return "", bad
		}
		if !ascii(domain) {
			e.To = e.To[:at+1] + mapped
		}
		domain = mapped
	}
	e.SMTPUTF8 = e.SMTPUTF8 || !ascii(e.To) || !ascii(e.From)
	return domain, result{}
}

// wireSafe says that a string cannot break out of the <> of a command, or of its line.
func wireSafe(s string) bool {
	for i := range len(s) {
		if b := s[i]; b <= ' ' || b == 0x7f || b == '<' || b == '>' {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// reason is the innermost text of a network error, without the addresses and calls that it repeats.
func reason(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer in time"
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

func joinPort(a netip.Addr, port int) string { return net.JoinHostPort(a.String(), strconv.Itoa(port)) }
