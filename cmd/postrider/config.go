package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/shards"
)

// config is the configuration file. Every setting has a default but those without which nothing can run.
type config struct {
	Directory        string         `toml:"directory"`                // DSN of the directory database
	DirectoryFile    string         `toml:"directory_file,omitempty"` // a file that holds it
	Servers          []serverConfig `toml:"servers"`
	Shards           int            `toml:"shards"` // at first start only
	HTTP             string         `toml:"http"`
	SMTP             string         `toml:"smtp,omitempty"` // takes bounces and complaints; empty for none
	Metrics          string         `toml:"metrics"`
	Hostname         string         `toml:"hostname"`
	ReturnPathDomain string         `toml:"return_path_domain"`
	VerifiedOnly     bool           `toml:"verified_domains_only"` // an account sends only from domains that it has verified
	PublicURL        string         `toml:"public_url,omitempty"`  // where recipients reach this API, for links in mail: https://… ; empty: no such links
	Secret           string         `toml:"secret,omitempty"`      // 64 hex digits: signs return paths
	SecretFile       string         `toml:"secret_file,omitempty"`
	RetentionDays    int            `toml:"retention_days"`
	Log              logConfig      `toml:"log"`
	Queue            queueConfig    `toml:"queue"`
	Delivery         deliveryConfig `toml:"delivery"`
	sole             bool           // dev: no other process serves these shards
}

type serverConfig struct {
	Name    string `toml:"name"`
	DSN     string `toml:"dsn"`
	DSNFile string `toml:"dsn_file,omitempty"`
}

type logConfig struct {
	Format string `toml:"format"` // console or json
	Level  string `toml:"level"`
}

type queueConfig struct {
	URL          string `toml:"url,omitempty"` // of an external NATS server or cluster, separated by commas; empty: embedded
	User         string `toml:"user,omitempty"`
	Password     string `toml:"password,omitempty"`
	PasswordFile string `toml:"password_file,omitempty"`
	Credentials  string `toml:"credentials,omitempty"` // in place of user: file of a NATS user (.creds) or nkey seed
	TLSCA        string `toml:"tls_ca,omitempty"`      // PEM files
	TLSCert      string `toml:"tls_cert,omitempty"`
	TLSKey       string `toml:"tls_key,omitempty"`
	Dir          string `toml:"dir,omitempty"`    // of the embedded one
	Listen       string `toml:"listen,omitempty"` // where other processes reach it
	Token        string `toml:"token,omitempty"`
	TokenFile    string `toml:"token_file,omitempty"`
}

func (c queueConfig) login() jobs.Login {
	return jobs.Login{User: c.User, Password: c.Password, Credentials: c.Credentials, TLSCA: c.TLSCA, TLSCert: c.TLSCert, TLSKey: c.TLSKey}
}

type deliveryConfig struct {
	Route        string            `toml:"route,omitempty"`         // host:port that takes all mail; empty: MX look-ups
	Port         int               `toml:"port,omitempty"`          // where MX hosts listen; 25
	TrustAD      bool              `toml:"trust_ad,omitempty"`      // believe the DNSSEC verdict of resolvers that are not on this machine
	AllowPrivate bool              `toml:"allow_private,omitempty"` // deliver to loopback and private addresses
	Resolvers    []string          `toml:"resolvers,omitempty"`
	PerSite      int               `toml:"connections_per_site"`
	PerDomain    int               `toml:"messages_per_domain"`
	Retry        []duration        `toml:"retry"` // waits after each failed attempt; the last one repeats
	Life         duration          `toml:"life"`
	Command      duration          `toml:"command_timeout"`
	Sweep        duration          `toml:"sweep"`
	Start        int               `toml:"connections_at_first,omitempty"` // to a site of which nothing is known; 0: 5
	Rules        []ruleConfig      `toml:"rules,omitempty"`                // limits for some destinations; the first that matches counts
	Sources      []sourceConfig    `toml:"sources,omitempty"`              // addresses that mail is sent from; none: the system chooses
	Pools        map[string]string `toml:"account_pools,omitempty"`        // account number = pool whose sources its mail leaves by
	Share        int               `toml:"account_share"`                  // messages a second of an account that do not take turns with other accounts'
	Burst        int               `toml:"account_burst"`                  // how many of them at once
}

type ruleConfig struct {
	Match         string   `toml:"match"` // a domain, a mail host or *.ending of mail hosts
	Connections   int      `toml:"connections,omitempty"`
	PerConnection int      `toml:"messages_per_connection,omitempty"`
	Rate          float64  `toml:"rate_per_second,omitempty"`
	Pause         []string `toml:"pause,omitempty"` // regular expressions of replies that pause the site
}

type sourceConfig struct {
	Address  string `toml:"address"`
	Hostname string `toml:"hostname,omitempty"` // in EHLO; empty: the general one
	Pool     string `toml:"pool,omitempty"`
	Warmup   []int  `toml:"warmup,omitempty"` // messages on the first day, the second, …
	Since    string `toml:"since,omitempty"`  // the first day, 2026-11-24
}

type duration struct{ time.Duration }

func (d *duration) UnmarshalText(b []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(b))
	return err
}

func (d duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func defaults() config {
	minutes := func(list ...int) (out []duration) {
		for _, m := range list {
			out = append(out, duration{time.Duration(m) * time.Minute})
		}
		return out
	}
	return config{Shards: 64, HTTP: "127.0.0.1:8080", Metrics: "127.0.0.1:9090", RetentionDays: 90, VerifiedOnly: true,
		Log:   logConfig{Format: "json", Level: "info"},
		Queue: queueConfig{},
		Delivery: deliveryConfig{PerSite: 20, PerDomain: 20, Retry: minutes(1, 5, 15, 30, 60, 120, 240),
			Life: duration{5 * 24 * time.Hour}, Command: duration{5 * time.Minute}, Sweep: duration{15 * time.Second},
			Share: accept.DefaultShare, Burst: accept.DefaultBurst}}
}

// loadConfig reads a configuration file; an unknown setting is an error.
func loadConfig(path string) (config, error) {
	c := defaults()
	meta, err := toml.DecodeFile(path, &c)
	if err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return c, fmt.Errorf("configuration %s: unknown setting %q", path, unknown[0])
	}
	secrets := []struct {
		into *string
		file string
	}{{&c.Directory, c.DirectoryFile}, {&c.Secret, c.SecretFile}, {&c.Queue.Token, c.Queue.TokenFile}, {&c.Queue.Password, c.Queue.PasswordFile}}
	for i := range c.Servers {
		secrets = append(secrets, struct {
			into *string
			file string
		}{&c.Servers[i].DSN, c.Servers[i].DSNFile})
	}
	for _, s := range secrets {
		if s.file == "" {
			continue
		}
		b, err := os.ReadFile(s.file)
		if err != nil {
			return c, fmt.Errorf("configuration %s: %w", path, err)
		}
		*s.into = strings.TrimSpace(string(b))
	}
	return c, c.check(path)
}

func (c *config) check(path string) error {
	wrong := func(name, what string) error { return fmt.Errorf("configuration %s: %s %s", path, name, what) }
	switch {
	case c.Directory == "":
		return wrong("directory", "is missing: the DSN of the directory database")
	case len(c.Servers) == 0:
		return wrong("servers", "is missing: at least one [[servers]] with name and dsn")
	case c.Hostname == "":
		return wrong("hostname", "is missing: the name that this host greets other mail servers with")
	case len(c.Secret) != 64:
		return wrong("secret", "must be 64 hex digits (openssl rand -hex 32)")
	case c.Queue.URL == "" && c.Queue.Dir == "":
		return wrong("queue", "needs dir (embedded) or url (external)")
	case c.Queue.URL == "" && c.Queue.login() != (jobs.Login{}):
		return wrong("queue", "has user, credentials or tls_… without url: they are for an external server")
	case c.Queue.Dir != "" && c.Queue.Listen != "" && c.Queue.Token == "":
		return wrong("queue.token", "is missing: with listen, others can reach the queue")
	case c.RetentionDays < 1 || time.Duration(c.RetentionDays)*24*time.Hour <= c.Delivery.Life.Duration:
		return wrong("retention_days", "must be at least 1 and longer than delivery.life: older mail is deleted")
	case len(c.Delivery.Retry) == 0 || slices.Min(c.delays()) < time.Second:
		return wrong("delivery", "needs at least one retry, and retry, life, command_timeout and sweep of a second or more")
	case c.Delivery.Share < 1 || c.Delivery.Burst < 1:
		return wrong("delivery", "needs account_share and account_burst of 1 or more")
	case c.PublicURL != "" && !strings.HasPrefix(c.PublicURL, "https://") && !strings.HasPrefix(c.PublicURL, "http://"):
		return wrong("public_url", "must begin with https:// (or http://, where nobody is outside)")
	case c.Log.Format != "json" && c.Log.Format != "console":
		return wrong("log.format", "must be json or console")
	}
	if _, err := hex.DecodeString(c.Secret); err != nil {
		return wrong("secret", "must be 64 hex digits (openssl rand -hex 32)")
	}
	for i, s := range c.Servers {
		if s.Name == "" || s.DSN == "" {
			return wrong(fmt.Sprintf("servers[%d]", i), "needs name and dsn")
		}
	}
	if c.ReturnPathDomain == "" {
		c.ReturnPathDomain = "bounces." + c.Hostname
	}
	return nil
}

// delays are the settings that would make a busy loop, or end a message at once, if they were 0.
func (c *config) delays() []time.Duration {
	d := c.Delivery
	out := []time.Duration{d.Life.Duration, d.Command.Duration, d.Sweep.Duration}
	for _, r := range d.Retry {
		out = append(out, r.Duration)
	}
	return out
}

func (c *config) secret() (key [32]byte) {
	b, _ := hex.DecodeString(c.Secret) // checked
	copy(key[:], b)
	return key
}

// write puts the file in place by rename, readable by its owner only: it holds passwords.
func (c *config) write(path string) error {
	var b strings.Builder
	b.WriteString("# Written by postrider dev at every start; for `postrider … --config`.\n")
	if err := toml.NewEncoder(&b).Encode(c); err != nil {
		return err
	}
	return writeFile(path, []byte(b.String()))
}

func writeFile(path string, content []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func newLogger(c logConfig) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", c.Level)
	}
	z := zap.NewProductionConfig()
	z.Level = zap.NewAtomicLevelAt(level)
	z.DisableCaller, z.DisableStacktrace = true, true
	z.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	if c.Format == "console" {
		z.Encoding = "console"
		z.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		z.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	}
	z.Sampling = nil
	return z.Build()
}

// devOptions are the flags of postrider dev.
type devOptions struct {
	dir, http, smtp, inbox, metrics string
	servers, shards                 int
	search, sink, ready             string
	log                             logConfig
}

func bindDev(f *pflag.FlagSet) *devOptions {
	o := &devOptions{}
	f.StringVar(&o.dir, "dir", ".postrider", "folder for everything it stores")
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "address of the API; port 0: any free one")
	f.StringVar(&o.smtp, "smtp", "127.0.0.1:2525", "address of the SMTP listener")
	f.StringVar(&o.inbox, "inbox", "127.0.0.1:8025", "address of the inbox page and API")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:9090", "address of metrics and profiles")
	f.IntVar(&o.servers, "servers", 2, "physical Postgres servers")
	f.IntVar(&o.shards, "shards", 16, "logical shards, at first start only")
	f.StringVar(&o.search, "search", "auto", "auto or postgres")
	f.StringVar(&o.sink, "sink", "", "deliver all mail to this SMTP server in place of the built-in sandbox")
	f.StringVar(&o.ready, "ready-file", "", "file written once everything answers")
	f.StringVar(&o.log.Format, "log", "console", "console or json")
	f.StringVar(&o.log.Level, "log-level", "info", "debug, info, warn or error")
	return o
}

func (o *devOptions) check() error {
	switch {
	case o.servers < 1 || o.servers > 16:
		return usageError{errors.New("--servers must be 1 to 16")}
	case o.shards < 1 || o.shards > 1024:
		return usageError{errors.New("--shards must be 1 to 1024")}
	case o.search == "elasticsearch":
		return errors.New("--search elasticsearch is not supported by this version: use postgres")
	case o.search != "auto" && o.search != "postgres":
		return usageError{errors.New("--search must be auto or postgres")}
	case o.log.Format != "console" && o.log.Format != "json":
		return usageError{errors.New("--log must be console or json")}
	}
	var err error
	o.dir, err = filepath.Abs(o.dir)
	return err
}

// operatorOptions are the flags of the commands for operators.
type operatorOptions struct {
	config string
	json   bool
}

func bindOperator(c *cobra.Command) *operatorOptions {
	o := &operatorOptions{}
	c.Flags().StringVar(&o.config, "config", os.Getenv("POSTRIDER_CONFIG"), "configuration file (or POSTRIDER_CONFIG)")
	c.Flags().BoolVar(&o.json, "json", false, "answer in JSON")
	return o
}

func (o *operatorOptions) load() (config, error) {
	if o.config == "" {
		return config{}, usageError{errors.New("say where the configuration is: --config FILE or POSTRIDER_CONFIG (postrider dev writes DIR/postrider.toml)")}
	}
	return loadConfig(o.config)
}

// serveOptions are the flags of postrider serve.
type serveOptions struct {
	config string
	roles  []string
}

func bindServe(f *pflag.FlagSet) *serveOptions {
	o := &serveOptions{}
	f.StringVar(&o.config, "config", os.Getenv("POSTRIDER_CONFIG"), "configuration file (or POSTRIDER_CONFIG)")
	f.StringSliceVar(&o.roles, "roles", []string{roleAPI, roleSender}, "what this process does: api, sender")
	return o
}

// accountName, keyAccount and keyScope are the flags of single verbs.
func bindAccountName(f *pflag.FlagSet) *string {
	return f.String("name", "", "the account's name")
}

func bindKey(f *pflag.FlagSet, scope bool) (account *int64, s *string) {
	account = f.Int64("account", 0, "the account's number")
	s = new(string)
	if scope {
		f.StringVar(s, "scope", string(shards.ScopeFull), "full, send, read or test")
	}
	return account, s
}

func bindEd25519(f *pflag.FlagSet) *bool {
	return f.Bool("ed25519", false, "sign with the Ed25519 key alone instead of with both")
}

func bindPause(c *cobra.Command, why bool) *pauseOptions {
	f, o := c.Flags(), &pauseOptions{}
	o.given = f.Changed
	f.StringVar(&o.shard, "shard", "", "only this shard")
	f.Int64Var(&o.account, "account", 0, "only this account")
	if why {
		f.StringVar(&o.why, "why", "", "why, for whoever finds it paused")
	}
	return o
}

// bindFilter is what commands choose jobs by. Accounts are no part of it: jobs do not carry them, rows do.
func bindFilter(c *cobra.Command, reason, limit bool) *jobs.Filter {
	f, flags := &jobs.Filter{}, c.Flags()
	flags.StringVar(&f.Kind, "kind", "", "only jobs of this kind")
	flags.StringVar(&f.Shard, "shard", "", "only jobs of this shard")
	if reason {
		flags.StringVar(&f.Reason, "reason", "", "only jobs with this in their reason")
	}
	if limit {
		flags.IntVar(&f.Limit, "limit", 100, fmt.Sprintf("how many at most, 1 to %d", jobs.MaxList))
	}
	return f
}

func bindRebuild(f *pflag.FlagSet) (shard *string, wipe *bool) {
	return f.String("shard", "", "only this shard"), f.Bool("wipe", false, "empty the queue first; dead jobs and events stay")
}

func bindAll(f *pflag.FlagSet) *bool {
	return f.Bool("all", false, "all dead jobs, or all that --kind, --shard and --reason choose")
}
