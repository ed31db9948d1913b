package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/sender/sandbox"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/localpg"
)

func devCommand() *cobra.Command {
	c := &cobra.Command{Use: "dev", Short: "Run all of Postrider on this machine: Postgres, queue, sender, an inbox", Args: arguments(cobra.NoArgs)}
	o := bindDev(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := o.check(); err != nil {
			return err
		}
		log, err := newLogger(o.log)
		if err != nil {
			return usageError{err}
		}
		defer func() { _ = log.Sync() }()
		d, err := openDir(o.dir)
		if err != nil {
			return err
		}
		defer d.close()
		return (&dev{o: o, dir: d, log: log, out: c.OutOrStdout()}).run(c.Context())
	}
	return c
}

// dev is the whole system in one process tree.
type dev struct {
	o       *devOptions
	dir     *dir
	log     *zap.Logger
	out     io.Writer
	servers []*localpg.Server // the directory's first
	names   []string
	smtp    net.Listener
	sandbox *sandbox.Sandbox
	app     *app
	account int64
	key     string
}

func (d *dev) run(ctx context.Context) error {
	if d.o.ready != "" {
		if err := os.Remove(d.o.ready); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove the old ready file: %w", err)
		}
	}
	defer d.stopServers()
	if err := d.startServers(ctx); err != nil {
		return err
	}
	cfg, err := d.configure()
	if err != nil {
		return err
	}
	if d.o.sink == "" {
		cfg.Delivery.Route = d.sandbox.SMTPAddr()
	}
	if err := shards.Setup(ctx, cfg.Directory, specs(cfg), cfg.Shards); err != nil {
		return fmt.Errorf("set up the directory: %w", err)
	}
	if d.app, err = newApp(ctx, cfg, d.log); err != nil {
		return err
	}
	d.app.smtpAddr = d.smtp
	defer d.app.close()
	if err := d.app.shards.Migrate(ctx, d.progress("making shards")); err != nil {
		return err
	}
	d.app.shards.Beat(ctx)
	if err := d.firstAccount(ctx); err != nil {
		return err
	}
	if err := d.app.domains.Vouch(ctx, d.account, "example.com"); err != nil {
		return fmt.Errorf("keys of example.com: %w", err)
	}
	if u, err := url.Parse(d.app.server.URL()); err == nil {
		cfg.Queue.Listen = u.Host // the port that was free, for the commands that read the file
	}
	if err := cfg.write(d.dir.config()); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return d.serve(ctx)
}

func (d *dev) serve(ctx context.Context) error {
	stages := d.app.stages()
	base := stage{{"sandbox", d.sandbox.Run}}
	for i, s := range d.servers {
		base = append(base, part{d.names[i], s.Run})
	}
	stages = append(stages, base)
	err := runStages(ctx, stages, d.ready)
	if d.o.ready != "" {
		_ = os.Remove(d.o.ready)
	}
	return err
}

// startServers starts the directory's Postgres and those of the shards side by side.
func (d *dev) startServers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // recovery after kill -9 can take a while
	defer cancel()
	bin, err := localpg.Find(ctx, cacheDir(), os.Stderr)
	if err != nil {
		return err
	}
	d.names = []string{"directory"}
	for i := 1; i <= d.o.servers || d.dir.hasServer(i); i++ { // those of earlier starts hold shards
		d.names = append(d.names, fmt.Sprintf("pg%d", i))
	}
	d.servers = make([]*localpg.Server, len(d.names))
	var mu sync.Mutex
	var g errgroup.Group
	for i, name := range d.names {
		role := "shards"
		if i == 0 {
			role = "directory"
		}
		g.Go(func() error {
			s, err := localpg.Start(ctx, localpg.Config{Name: name, Dir: filepath.Join(d.dir.postgres(), name), Binaries: bin,
				Settings: localpg.DefaultSettings(memory(), role), Log: d.log})
			if err != nil {
				return fmt.Errorf("Postgres %s: %w", name, err)
			}
			mu.Lock()
			d.servers[i] = s
			mu.Unlock()
			return nil
		})
	}
	return g.Wait()
}

func (d *dev) stopServers() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var g errgroup.Group
	for _, s := range d.servers {
		if s != nil {
			g.Go(func() error { return s.Stop(ctx) })
		}
	}
	if err := g.Wait(); err != nil {
		d.log.Warn("Postgres not stopped cleanly, the next start recovers it", zap.Error(err))
	}
}

// configure is the configuration of this run: the same shape as that of real servers, with quick timings.
func (d *dev) configure() (config, error) {
	cfg := defaults()
	cfg.sole = true
	cfg.Shards, cfg.HTTP, cfg.Metrics = d.o.shards, d.o.http, d.o.metrics
	cfg.Hostname, cfg.ReturnPathDomain = "postrider.example.com", "bounces.example.com"
	cfg.Log = d.o.log
	cfg.Directory = d.servers[0].DSN("postgres")
	for i, s := range d.servers[1:] {
		cfg.Servers = append(cfg.Servers, serverConfig{Name: d.names[i+1], DSN: s.DSN("postgres")})
	}
	secrets, err := d.dir.secrets()
	if err != nil {
		return cfg, err
	}
	cfg.Secret = secrets.ReturnPath
	cfg.Queue = queueConfig{Dir: d.dir.queue(), Listen: "127.0.0.1:0", Token: secrets.Queue}
	cfg.Delivery.AllowPrivate, cfg.Delivery.Route = true, d.o.sink
	cfg.Delivery.PerSite = 200 // the sandbox is one host for the whole world
	if d.o.sink != "" {
		cfg.Delivery.PerSite = 50
	}
	cfg.VerifiedOnly = false
	cfg.Delivery.Retry = nil
	for s := time.Second; s <= 128*time.Second; s *= 2 {
		cfg.Delivery.Retry = append(cfg.Delivery.Retry, duration{s})
	}
	cfg.Delivery.Command, cfg.Delivery.Sweep = duration{15 * time.Second}, duration{5 * time.Second}
	return cfg, d.openSandbox()
}

// openSandbox opens the outside world, which needs to know where bounces go before anything is sent.
func (d *dev) openSandbox() (err error) {
	if d.smtp, err = listen("smtp", d.o.smtp); err != nil {
		return err
	}
	d.sandbox, err = sandbox.New(sandbox.Config{SMTP: "127.0.0.1:0", Inbox: d.o.inbox, Hostname: "mx.sandbox.test", Log: d.log,
		Reports: d.smtp.Addr().String(), Fetch: func(u *url.URL) bool { return u.Host == d.app.apiAddr.Addr().String() }})
	if err == nil {
		err = d.sandbox.Listen()
	}
	if err != nil {
		return fmt.Errorf("inbox: %w", err)
	}
	return nil
}

func (d *dev) firstAccount(ctx context.Context) error {
	known, err := d.dir.key()
	if err != nil {
		return err
	}
	if known != "" {
		if k, err := d.app.shards.FindKey(ctx, known); err == nil {
			d.key, d.account = known, k.Account
			return nil
		}
	}
	a, key, err := d.app.shards.CreateAccount(ctx, "dev")
	if err != nil {
		return err
	}
	d.key, d.account = key, a.ID
	return d.dir.keepKey(key)
}

// progress shows a line that moves at a terminal, and nothing elsewhere.
func (d *dev) progress(what string) shards.Progress {
	if !terminal(os.Stderr) {
		return nil
	}
	return func(done, total int) {
		end := ""
		if done == total {
			end = "\r\x1b[K"
		}
		fmt.Fprintf(os.Stderr, "\r%s: %d of %d%s", what, done, total, end)
	}
}

// readyFile is what scripts read; its names are part of the contract.
type readyFile struct {
	Version       string        `json:"version"`
	PID           int           `json:"pid"`
	Config        string        `json:"config"`
	API           string        `json:"api"`
	SMTP          string        `json:"smtp"`
	Inbox         string        `json:"inbox"`
	Metrics       string        `json:"metrics"`
	Account       int64         `json:"account"`
	Key           string        `json:"key"`
	DirectoryDSN  string        `json:"directory_dsn"`
	Servers       []readyServer `json:"servers"`
	NATS          string        `json:"nats"`
	Elasticsearch *string       `json:"elasticsearch"`
}

type readyServer struct {
	Name string `json:"name"`
	DSN  string `json:"dsn"`
}

// ready tells a person on the terminal and a program by the ready file where everything is.
func (d *dev) ready() error {
	r := readyFile{Version: version, PID: os.Getpid(), Config: d.dir.config(), API: "http://" + d.app.apiAddr.Addr().String(),
		SMTP: d.smtp.Addr().String(), Inbox: "http://" + d.sandbox.InboxAddr(), Metrics: "http://" + d.app.metricAddr.Addr().String() + "/metrics",
		Account: d.account, Key: d.key, DirectoryDSN: d.app.cfg.Directory, NATS: d.app.server.URL()}
	for _, s := range d.app.cfg.Servers {
		r.Servers = append(r.Servers, readyServer{s.Name, s.DSN})
	}
	d.greet(r)
	if d.o.ready == "" {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeFile(d.o.ready, append(b, '\n')); err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	return nil
}

func (d *dev) greet(r readyFile) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nPostrider %s is ready.\n\n", version)
	for _, l := range [][2]string{{"API", r.API}, {"SMTP", r.SMTP + " (bounces)"}, {"Inbox", r.Inbox}, {"Metrics", r.Metrics}, {"Key", r.Key}, {"Config", r.Config},
		{"Search", "on Postgres"}} {
		fmt.Fprintf(&b, "  %-8s %s\n", l[0], l[1])
	}
	fmt.Fprintf(&b, `
Send a mail, then look into the inbox:

  curl %s/api/1.0/messages/send -d '{"key":"%s","message":{"from_email":"hello@example.com","subject":"Hello","text":"It works.","to":[{"email":"you@example.net"}]}}'

`, r.API, r.Key)
	_, _ = io.WriteString(d.out, b.String())
}
