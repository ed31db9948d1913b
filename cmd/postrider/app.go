package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/api"
	"github.com/postrider/postrider/sender/bounce"
	"github.com/postrider/postrider/sender/deliver"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/sender/domains"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/relay"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/sender/track"
	"github.com/postrider/postrider/shards"
)

// The roles of a process.
const (
	roleAPI    = "api"
	roleSender = "sender"
)

// app is one process of Postrider, built and not yet running.
type app struct {
	cfg        config
	log        *zap.Logger
	metrics    *prometheus.Registry
	shards     *shards.Shards
	server     *jobs.Server // nil when the queue is external
	queue      *jobs.Queue
	ledger     *ledger.Ledger
	deliver    *deliver.Client
	dispatch   *dispatch.Dispatcher
	door       *accept.Door
	api        *api.API
	apiAddr    net.Listener
	relay      *relay.Relay
	linkKeys   *track.Keys
	domains    *domains.Domains
	metricAddr net.Listener
	smtpAddr   net.Listener // nil when no address is set
}

// newApp connects to what must be there and builds the rest. The map must exist; see shards.Setup.
func newApp(ctx context.Context, cfg config, log *zap.Logger) (a *app, err error) {
	calmCollector()
	a = &app{cfg: cfg, log: log, metrics: prometheus.NewRegistry()}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.apiAddr, err = listen("http", cfg.HTTP); err != nil {
		return a, err
	}
	if a.metricAddr, err = listen("metrics", cfg.Metrics); err != nil {
		return a, err
	}
	if cfg.SMTP != "" {
		if a.smtpAddr, err = listen("smtp", cfg.SMTP); err != nil {
			return a, err
		}
	}
	a.shards, err = shards.Open(ctx, shards.Config{Directory: cfg.Directory, Instance: sender.NewID(), Sole: cfg.sole, Log: log, Metrics: a.metrics,
		Retention: time.Duration(cfg.RetentionDays) * 24 * time.Hour, Floor: func() [16]byte {
			if a.dispatch == nil {
				return [16]byte{}
			}
			return a.dispatch.Floor()
		}, Needed: func(ctx context.Context, shard string, from, to [16]byte) (int, error) {
			return store.New(a.shards).Needed(ctx, shard, from, to)
		}})
	if err != nil {
		return a, err
	}
	if err = a.openQueue(ctx); err != nil {
		return a, err
	}
	return a, a.build()
}

// calmCollector trades memory for CPU: at GOGC 100 the collector takes a tenth of the send path. The limit makes
// it work harder long before memory runs out.
func calmCollector() {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(2 << 30)
}

func listen(what, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s for %s: is it in use? choose another with --%s: %w", addr, what, what, err)
	}
	return l, nil
}

func (a *app) openQueue(ctx context.Context) (err error) {
	q := a.cfg.Queue
	if q.URL == "" {
		a.server, err = jobs.StartServer(jobs.ServerConfig{Dir: q.Dir, Listen: q.Listen, Token: q.Token, Log: a.log})
		if err != nil {
			return fmt.Errorf("start the queue: %w", err)
		}
	}
	a.queue, err = jobs.Connect(ctx, jobs.Config{Server: a.server, URL: q.URL, Login: q.login(), Instance: sender.ID(a.shards.Instance()).String(), Log: a.log, Metrics: a.metrics})
	if err != nil {
		return fmt.Errorf("connect to the queue: %w", err)
	}
	return nil
}

func (a *app) build() (err error) {
	c := a.cfg.Delivery
	st := store.New(a.shards)
	a.ledger = ledger.New(ledger.Config{Shards: a.shards, Store: st, Queue: a.queue, Log: a.log, Metrics: a.metrics})
	timeouts := deliver.Timeouts{Command: c.Command.Duration}
	if c.Command.Duration < time.Minute { // dev: everything that the other side does is quick, or hangs on purpose
		timeouts = deliver.Timeouts{Connect: 5 * time.Second, Greeting: c.Command.Duration, Command: c.Command.Duration, Data: c.Command.Duration,
			Block: c.Command.Duration, Dot: 11 * time.Minute, Total: 12 * time.Minute}
	}
	sources, err := c.sources()
	if err != nil {
		return err
	}
	pool, err := c.pools()
	if err != nil {
		return err
	}
	a.deliver, err = deliver.New(deliver.Config{Start: c.Start, Rules: c.rules(), Sources: sources,
		Hostname: a.cfg.Hostname, Route: c.Route, Resolver: c.Resolvers, Port: c.Port, AllowPrivate: c.AllowPrivate, TrustAD: c.TrustAD,
		PerSite: c.PerSite, Timeouts: timeouts, Log: a.log, Metrics: a.metrics})
	if err != nil {
		return err
	}
	retry := make([]time.Duration, len(c.Retry))
	for i, r := range c.Retry {
		retry[i] = r.Duration
	}
	key := bounce.Key(a.cfg.secret())
	sending := a.cfg.sendingDomains(a.shards)
	sending.Log, sending.Metrics = a.log, a.metrics
	if base := a.public(); base != "" {
		sending.Mail, sending.Link = a.tellMailbox, func(token string) string { return base + domains.MailboxPath + token }
	}
	a.domains = domains.New(sending)
	mayUse := a.domains.MaySend
	if !a.cfg.VerifiedOnly {
		mayUse = nil
	}
	a.dispatch = dispatch.New(dispatch.Config{Shards: a.shards, Store: st, Ledger: a.ledger, Deliver: a.deliver, Queue: a.queue,
		Retry: retry, PerDomain: c.PerDomain, SweepEvery: c.Sweep.Duration, Log: a.log, Metrics: a.metrics,
		Unsubscribe: a.unsubscribeLink, Keys: a.domains.Keys, Pool: pool, ReturnPath: func(account int64, id sender.ID, domain, own string) string {
			return key.Encode(bounce.ReturnPath{Account: account, Message: id}) + "@" + a.returnPathDomain(account, domain, own)
		}})
	a.door = accept.New(accept.Config{Shards: a.shards, Store: st, MaySend: mayUse, Life: c.Life.Duration, Share: c.Share, Burst: c.Burst, Reserve: a.dispatch.Reserve, Hand: a.dispatch.Hand,
		Drop: a.dispatch.Drop, Ring: a.dispatch.Ring, At: a.dispatch.At, Log: a.log, Metrics: a.metrics})
	links, err := a.links(st)
	if err != nil {
		return err
	}
	a.relay = relay.New(relay.Config{Hostname: a.cfg.Hostname, Key: key, Store: st, Ledger: a.ledger, Log: a.log, Metrics: a.metrics})
	a.api = api.New(api.Config{Shards: a.shards, Store: st, Door: a.door, Log: a.log, Domains: a.domains, Resolver: c.resolver(),
		Addresses: func() []api.Address { return addresses(a.deliver.Sources()) }, Ready: a.ready, Track: links, Warn: a.warn, At: a.dispatch.At})
	return nil
}

// warn says what is in trouble though sends are accepted and delivered.
func (a *app) warn() []string {
	if err := a.queue.Ready(); err != nil {
		return []string{"queue: " + err.Error()}
	}
	return nil
}

// returnPathDomain is where the bounces of mail from a domain go: where its submission says, if the account may, where the domain's owner has
// pointed a name at us (so that SPF passes for the From domain), or to the installation's own.
func (a *app) returnPathDomain(account int64, domain, own string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if own != "" && (!a.cfg.VerifiedOnly || own == a.cfg.ReturnPathDomain) {
		return own
	}
	if _, parent, ok := strings.Cut(own, "."); ok { // another's name would send in another's name
		if id, err := a.domains.Identity(ctx, account, parent); err == nil && id.ReturnPath == own {
			return own
		}
	}
	if id, err := a.domains.Identity(ctx, account, domain); err == nil && id.ReturnPath != "" {
		return id.ReturnPath
	}
	return a.cfg.ReturnPathDomain
}

// ready says whether a send can be accepted: at least one server must answer.
func (a *app) ready() error {
	for _, v := range a.shards.Map().Servers() {
		if v.Up() {
			return nil
		}
	}
	return errors.New("no Postgres server answers")
}

// stages are the parts in the order in which they stop: intake, delivery, the ledger, and what all need.
func (a *app) stages() []stage {
	intake := stage{{"api", func(ctx context.Context) error { return a.api.Run(ctx, a.apiAddr) }}}
	if a.smtpAddr != nil {
		intake = append(intake, part{"smtp", func(ctx context.Context) error { return a.relay.Run(ctx, a.smtpAddr) }})
	}
	return []stage{
		intake,
		{{"accept", a.door.Run}},
		{{"dispatch", a.dispatch.Run}},
		{{"ledger", a.ledger.Run}, {"delivery", a.deliver.Run}, {"domains", a.domains.Run}},
		{{"shards", a.shards.Run}, {"metrics", func(ctx context.Context) error { return serveMetrics(ctx, a.metricAddr, a.metrics, a.ready) }}},
	}
}

// close releases what newApp opened and no stage has closed.
func (a *app) close() {
	if a.queue != nil {
		a.queue.Close()
	}
	if a.server != nil {
		limit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		a.server.Stop(limit)
		cancel()
	}
	if a.shards != nil {
		a.shards.Close()
	}
	for _, l := range []net.Listener{a.apiAddr, a.metricAddr, a.smtpAddr} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// serveMetrics serves metrics, profiles and health on an address of its own.
func serveMetrics(ctx context.Context, l net.Listener, r *prometheus.Registry, ready func() error) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
