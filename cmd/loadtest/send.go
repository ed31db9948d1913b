package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/postrider/postrider/loadtest"
)

// sendFlags are what a Load does not hold as such.
type sendFlags struct {
	load                                             loadtest.Load
	over, key, keyFile, readyFile, postrider, config string
	accounts                                         int
	sink, pids                                       string
	progress, asJSON                                 bool
}

func send(ctx context.Context, args []string) error {
	s, err := parseSend(args)
	if err != nil {
		return err
	}
	if err := s.resolve(ctx); err != nil {
		return err
	}
	if s.progress || terminal(os.Stderr) {
		s.load.Progress = os.Stderr
	}
	if s.sink == "" {
		return s.run(ctx)
	}
	if s.load.Sink, err = loadtest.NewSink(s.sink); err != nil {
		return err
	}
	// The sink stays while the last attempts end, also after an interrupt.
	sinkCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- s.load.Sink.Run(sinkCtx) }()
	err = s.run(ctx)
	stop()
	return cmp.Or(err, <-done)
}

func parseSend(args []string) (*sendFlags, error) {
	s, f := &sendFlags{}, newFlags("send")
	f.StringVar(&s.load.API, "api", "", "send by HTTP to this `URL` (http://host:port)")
	f.StringVar(&s.load.SMTP, "smtp", "", "send by SMTP to this `host:port`")
	f.StringVar(&s.over, "over", "", "http or smtp, of those in the ready file (default http, or smtp with --smtp)")
	f.StringVar(&s.readyFile, "ready-file", "", "take addresses, key, config and pid from the `file` that postrider dev wrote")
	f.StringVar(&s.load.User, "user", "loadtest", "SMTP: user `name` for AUTH PLAIN, sent in clear")
	f.StringVar(&s.key, "key", "", "API key")
	f.StringVar(&s.key, "pass", "", "SMTP: password, the same as --key")
	f.StringVar(&s.keyFile, "keys", "", "take API keys from this `file`, one a line")
	f.IntVar(&s.accounts, "accounts", 0, "make so many accounts for the run with --postrider, and send by all of them")
	f.StringVar(&s.postrider, "postrider", "bin/postrider", "the `program` that makes accounts")
	f.StringVar(&s.config, "config", "", "its configuration `file` (default: from --ready-file)")
	f.StringVar(&s.load.From, "from", "bench@example.com", "sender `address`")
	f.IntVar(&s.load.Count, "n", 0, "submissions to send (default 1000, or no limit with --duration)")
	f.DurationVar(&s.load.Duration, "duration", 0, "stop after this long")
	f.Float64Var(&s.load.Rate, "rate", 0, "open loop: submissions a second, whatever the system does (default: closed loop)")
	f.IntVar(&s.load.Connections, "connections", 0, "at work at once (default 10); with --rate the most that may be (default 50)")
	f.IntVar(&s.load.Size, "size", 2048, "`bytes` of text in a mail")
	f.IntVar(&s.load.Recipients, "recipients", 1, "messages a submission")
	f.DurationVar(&s.load.Timeout, "timeout", time.Minute, "for one submission")
	f.DurationVar(&s.load.Drain, "drain", 30*time.Second, "give up on what has not arrived when nothing came for so long")
	f.DurationVar(&s.load.Settle, "settle", 500*time.Millisecond, "wait after the last arrival for duplicates and late CPU use")
	f.StringVar(&s.sink, "sink", "", "receive at this `host:port`, where the system must deliver to")
	f.StringVar(&s.pids, "pid", "", "measure the process trees of these `pids`, with commas between (default: from --ready-file)")
	f.StringVar(&s.load.Meter.CGroup, "cgroup", "", "measure this cgroup v2 `folder` instead")
	f.BoolVar(&s.load.Meter.Count, "count", true, "count fsyncs and system calls with perf, which slows the system by some percent")
	f.BoolVar(&s.progress, "progress", false, "a line a second on standard error (default on a terminal)")
	f.BoolVar(&s.asJSON, "json", false, "report as one JSON object")
	return s, f.parse(args)
}

// resolve fills in what the ready file knows and what depends on other flags.
func (s *sendFlags) resolve(ctx context.Context) error {
	if err := s.readReady(); err != nil {
		return err
	}
	if s.load.Connections == 0 {
		s.load.Connections = 10
		if s.load.Rate > 0 {
			s.load.Connections = 50
		}
	}
	if s.load.Count == 0 && s.load.Duration == 0 {
		s.load.Count = 1000
	}
	if s.pids != "" {
		pids, err := numbers(s.pids)
		if err != nil {
			return err
		}
		s.load.Meter.PIDs = pids
	}
	return s.findKeys(ctx)
}

func (s *sendFlags) readReady() error {
	over := s.over
	if over == "" && s.load.SMTP != "" {
		over = "smtp"
	}
	if s.readyFile != "" {
		ready, err := loadtest.ReadReady(s.readyFile)
		if err != nil {
			return err
		}
		s.load.API = cmp.Or(s.load.API, ready.API)
		if over == "smtp" {
			s.load.SMTP = cmp.Or(s.load.SMTP, ready.SMTP)
		}
		s.key = cmp.Or(s.key, ready.Key)
		s.config = cmp.Or(s.config, ready.Config)
		s.load.Meter.PIDs = []int{ready.PID}
	}
	switch over {
	case "", "http":
		s.load.SMTP = ""
	case "smtp":
		if s.load.SMTP == "" {
			return fmt.Errorf("%w: --over smtp needs --smtp or --ready-file", errUsage)
		}
	default:
		return fmt.Errorf("%w: --over must be http or smtp", errUsage)
	}
	if s.load.API == "" && s.load.SMTP == "" {
		return fmt.Errorf("%w: give --api, --smtp or --ready-file", errUsage)
	}
	return nil
}

func (s *sendFlags) findKeys(ctx context.Context) (err error) {
	switch {
	case s.keyFile != "":
		s.load.Keys, err = loadtest.ReadKeys(s.keyFile)
	case s.accounts > 0 && s.config == "":
		err = fmt.Errorf("%w: --accounts needs --config or --ready-file", errUsage)
	case s.accounts > 0:
		s.load.Keys, err = loadtest.MakeAccounts(ctx, s.postrider, s.config, s.accounts)
	case s.key != "":
		s.load.Keys = []string{s.key}
	case s.load.SMTP == "":
		err = fmt.Errorf("%w: give --key, --keys, --accounts or --ready-file", errUsage)
	}
	return err
}

// run reports also what it has of an interrupted run.
func (s *sendFlags) run(ctx context.Context) error {
	rep, err := s.load.Run(ctx)
	if err != nil && !errors.Is(err, context.Canceled) || rep.Run == "" {
		return err
	}
	return cmp.Or(show(rep, s.asJSON), err)
}
