// Package sandbox is the outside world for a laptop, a test or a benchmark: an MX that takes mail for every
// domain, whose recipients decide by their local part what happens to it, and an inbox that shows what was
// taken in, as a page and as an API in the shape of Mailpit's. It keeps everything in memory and sends
// nothing to anybody, except reports to the one bounce listener and fetches of the links it was allowed.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	defaultCapacity = 20_000
	defaultBytes    = 256 << 20
	defaultHostname = "mx.sandbox.test"

	drainTime = time.Second // what a transaction in progress has left when Run is told to end
)

// Config is what the sandbox needs. Zero values are good, except the two listen addresses.
type Config struct {
	SMTP, Inbox string // listen addresses, host:port; port 0 is any free one
	Hostname    string // what the MX calls itself; mx.sandbox.test when empty
	// Capacity (mails, 20,000 when 0) and Bytes (raw size of all mails together, 256 MiB when 0) bound the
	// inbox: the oldest mails go first, the newest one always stays.
	Capacity int
	Bytes    int64
	// Reports is the host:port of the listener for bounces, which is told late bounces and complaints by
	// SMTP. Without it none are sent, and the log says so once.
	Reports string
	// Fetch tells which links open@ and click@ may fetch: the platform's own tracking links and nothing
	// else. Nil allows none.
	Fetch func(*url.URL) bool
	Log   *zap.Logger // nil logs nothing
}

func (c *Config) complete() error {
	for name, addr := range map[string]string{"SMTP": c.SMTP, "Inbox": c.Inbox} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("sandbox: listen address %s %q: %w; write host:port, port 0 for any free one", name, addr, err)
		}
	}
	if c.Reports != "" {
		if _, _, err := net.SplitHostPort(c.Reports); err != nil {
			return fmt.Errorf("sandbox: address of the bounce listener %q: %w; write host:port", c.Reports, err)
		}
	}
	if c.Capacity < 0 || c.Bytes < 0 {
		return errors.New("sandbox: capacity and bytes of the inbox must not be negative; 0 takes the default")
	}
	if c.Capacity == 0 {
		c.Capacity = defaultCapacity
	}
	if c.Bytes == 0 {
		c.Bytes = defaultBytes
	}
	if c.Hostname == "" {
		c.Hostname = defaultHostname
	}
	if c.Fetch == nil {
		c.Fetch = func(*url.URL) bool { return false }
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return nil
}

// Sandbox is the MX and the inbox.
type Sandbox struct {
	cfg    Config
	inbox  *inbox
	after  *aftermath
	mx     *mx
	smtp   *listener
	http   *http.Server
	inboxL net.Listener
}

// New validates cfg and builds the sandbox. It listens on nothing yet.
func New(cfg Config) (*Sandbox, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	box := newInbox(cfg.Capacity, cfg.Bytes)
	after := newAftermath(cfg)
	return &Sandbox{
		cfg:   cfg,
		inbox: box,
		after: after,
		mx:    newMX(cfg, box, after),
		http:  newHTTPServer(cfg, box),
	}, nil
}

// Listen binds both addresses. From then on connections are taken; they are answered once Run runs.
func (s *Sandbox) Listen() error {
	l, err := net.Listen("tcp", s.cfg.SMTP)
	if err != nil {
		return fmt.Errorf("sandbox: listen for SMTP: %w", err)
	}
	if s.inboxL, err = net.Listen("tcp", s.cfg.Inbox); err != nil {
		l.Close()
		return fmt.Errorf("sandbox: listen for the inbox: %w", err)
	}
	s.smtp = newListener(l, maxConns)
	return nil
}

// SMTPAddr is the host:port of the MX, known after Listen.
func (s *Sandbox) SMTPAddr() string { return s.smtp.Addr().String() }

// InboxAddr is the host:port of the inbox, known after Listen.
func (s *Sandbox) InboxAddr() string { return s.inboxL.Addr().String() }

// Run serves until ctx ends or a listener fails, then drains for at most a second: transactions in progress
// are answered, hanging and slow ones are cut off, reports not yet due are dropped. Call it once, after Listen.
func (s *Sandbox) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.mx.run(ctx, s.smtp) })
	group.Go(func() error { return s.runInbox(ctx) })
	group.Go(func() error { return s.after.run(ctx) })
	return group.Wait()
}

func (s *Sandbox) runInbox(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.inboxL) }()
	select {
	case err := <-served:
		return fmt.Errorf("sandbox: serve the inbox: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if s.http.Shutdown(drain) != nil {
		s.http.Close()
	}
	<-served
	return nil
}
