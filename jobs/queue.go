package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config is what a queue needs. Exactly one of Server and URL is set.
type Config struct {
	Server   *Server // the embedded one, reached without a socket
	URL      string  // or those of an external server or cluster, separated by commas; nats:// or tls://, with token or user
	Login    Login   // to an external server
	Instance string  // the name of this process among the connections
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	// MaxDisk is shared out to the streams, in bytes: a quarter to jobs, a half to events, a sixteenth to dead jobs.
	// Default and most with Server: the server's. Default with URL: what the streams have, or 4 GiB when they are made.
	MaxDisk int64
	// MaxDeliver is how often a job is tried until it is dead; default 5.
	MaxDeliver int
	// AckWait is how long a job stays with a process that has fallen silent; default 30 s.
	AckWait time.Duration
}

// Queue rings for jobs and runs them. Its methods may be called at once from everywhere.
type Queue struct {
	cfg     Config
	log     *zap.Logger
	nc      *nats.Conn
	js      jetstream.JetStream
	metrics *metrics
	state   atomic.Pointer[error] // how the last look at the streams ended
	broken  atomic.Pointer[error] // why the last connection failed, or ended
	rings   chan struct{}         // places of Ring calls at once
	look    chan struct{}         // has the watcher look at once
	end     context.CancelFunc
	ended   chan struct{}
}

const (
	window      = 256 // jobs of one Ring call on their way at once
	ringsAtOnce = 8
)

// Connect makes a queue. An external server that cannot be reached yet is no error: what needs it fails until it
// is there, and it is looked for until Close. An error says that the configuration is wrong.
func Connect(ctx context.Context, cfg Config) (*Queue, error) {
	cfg.MaxDeliver = cmp.Or(cfg.MaxDeliver, 5)
	cfg.AckWait = cmp.Or(cfg.AckWait, 30*time.Second)
	if err := check(&cfg); err != nil {
		return nil, fmt.Errorf("connect to queue: %w", err)
	}
	q := &Queue{cfg: cfg, log: cfg.Log, rings: make(chan struct{}, ringsAtOnce), look: make(chan struct{}, 1), ended: make(chan struct{})}
	if q.log == nil {
		q.log = zap.NewNop()
	}
	login, err := cfg.Login.options()
	if err != nil {
		return nil, fmt.Errorf("connect to queue: %w", err)
	}
	if q.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("connect to queue: %w", err)
	}
	if q.nc, err = nats.Connect(cfg.URL, append(q.options(), login...)...); err != nil {
		return nil, fmt.Errorf("connect to queue: %w", err)
	}
	q.js, err = jetstream.New(q.nc, jetstream.WithPublishAsyncMaxPending(2*window*ringsAtOnce),
		jetstream.WithPublishAsyncTimeout(deadline), jetstream.WithDefaultTimeout(deadline))
	if err != nil {
		q.nc.Close()
		return nil, fmt.Errorf("connect to queue: %w", err)
	}
	watching, end := context.WithCancel(context.Background())
	q.end = end
	q.note(q.streams(ctx, true))
	go q.watch(watching)
	return q, nil
}

// Ready says why the queue cannot be used now, as last seen at most 5 s ago; nil when it can be. A full queue is ready:
// it refuses new jobs, but those in it are done.
func (q *Queue) Ready() error {
	if !q.nc.IsConnected() {
		return q.away()
	}
	return *q.state.Load()
}

// note keeps how the last look at the streams ended.
func (q *Queue) note(err error) {
	q.state.Store(&err)
	q.metrics.up(err == nil)
}

// away is errAway with what the connection last failed of, such as a wrong password.
func (q *Queue) away() error {
	if err := q.nc.LastError(); err != nil { // said no
		return fmt.Errorf("%w (%w)", errAway, err)
	}
	if err := q.broken.Load(); err != nil { // did not answer
		return fmt.Errorf("%w (%w)", errAway, *err)
	}
	return errAway
}

// lost notes why there is no connection, or still none.
func (q *Queue) lost(_ *nats.Conn, err error) {
	if err != nil {
		q.broken.Store(&err)
		q.log.Debug("queue connection lost", zap.Error(err))
	}
	q.lookNow()
}

// Close ends the connection. Run must have returned.
func (q *Queue) Close() {
	q.end()
	<-q.ended
	q.flush()
	q.nc.Close()
}

// flush waits until what was said is with the server. An answer that is lost only makes a job run again.
func (q *Queue) flush() {
	if !q.nc.IsConnected() {
		return
	}
	if err := q.nc.FlushTimeout(deadline); err != nil {
		q.log.Debug("queue connection not flushed", zap.Error(err))
	}
}

func check(cfg *Config) error {
	switch {
	case (cfg.Server == nil) == (cfg.URL == ""):
		return errors.New("set either Server or URL")
	case cfg.MaxDeliver < 1 || cfg.MaxDeliver > 1000:
		return fmt.Errorf("MaxDeliver %d: must be 1 to 1,000", cfg.MaxDeliver)
	case cfg.MaxDisk != 0 && cfg.MaxDisk < minDisk:
		return fmt.Errorf("MaxDisk %d: must be 4 MiB at least", cfg.MaxDisk)
	case cfg.AckWait < time.Second || cfg.AckWait > time.Hour:
		return fmt.Errorf("AckWait %s: must be 1 s to 1 h", cfg.AckWait)
	case cfg.Server != nil && cfg.Login != (Login{}):
		return errors.New("a login is for an external server")
	}
	if cfg.Server != nil {
		cfg.MaxDisk = min(cmp.Or(cfg.MaxDisk, cfg.Server.cfg.MaxDisk), cfg.Server.cfg.MaxDisk)
		return nil
	}
	for i, one := range strings.Split(cfg.URL, ",") {
		// The text of a parse error would hold the token.
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || (u.Scheme != "nats" && u.Scheme != "tls") {
			return fmt.Errorf("URL number %d is not like nats://token@host:4222 or tls://user:password@host:4222", i+1)
		}
	}
	return nil
}

func (q *Queue) options() []nats.Option {
	opts := []nats.Option{
		nats.Name("postrider " + q.cfg.Instance), nats.Timeout(deadline), nats.FlusherTimeout(deadline),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.CustomReconnectDelay(pause),
		nats.ReconnectBufSize(-1), // what cannot be sent now is an error now, and the sweeper's
		nats.ConnectHandler(func(*nats.Conn) { q.lookNow() }),
		nats.ReconnectHandler(func(*nats.Conn) { q.lookNow() }),
		nats.DisconnectErrHandler(q.lost), nats.ReconnectErrHandler(q.lost),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			q.log.Debug("queue connection", zap.Error(err))
		}),
	}
	if s := q.cfg.Server; s != nil {
		opts = append(opts, nats.InProcessServer(inProcess{s}), nats.Token(s.cfg.Token))
	}
	return opts
}

// pause grows from 100 ms to 2 s, a quarter of it by chance.
func pause(attempt int) time.Duration {
	d := min(100*time.Millisecond<<min(attempt, 5), deadline)
	return d - rand.N(d/4)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
