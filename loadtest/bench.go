package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// readyPatience covers a first start, which may fetch Postgres.
const readyPatience = 5 * time.Minute

// Bench measures a fresh `postrider dev` against a Postfix of its own on this machine: the same
// mail, the same sink, the same load, in turns.
type Bench struct {
	Postrider string // the program
	Accounts  int    // that send, in turns
	Size      int    // bytes of text in a mail
	Cases     []BenchCase
	WarmUp    int    // messages before each case, not measured; calls are counted in them
	Rounds    int    // times each case is run; the table shows medians
	Postfix   string // "plain", "tuned" or "none"
	Timeout   time.Duration
	Drain     time.Duration
	Settle    time.Duration
	Log       io.Writer // what is being done, a line each
}

// BenchCase is so many messages over so many connections.
type BenchCase struct{ Connections, Messages int }

func (b Bench) check() error {
	switch {
	case b.Rounds < 1 || b.Rounds > 100:
		return errors.New("--rounds must be between 1 and 100")
	case b.WarmUp < 1:
		return errors.New("--warmup must be above 0")
	case len(b.Cases) == 0:
		return errors.New("there is no case to run")
	case b.Postfix != "plain" && b.Postfix != "tuned" && b.Postfix != "none":
		return errors.New("--postfix must be plain, tuned or none")
	}
	return nil
}

// benched is one system under test.
type benched struct {
	name string
	load Load
	pid  int
}

// Run sets everything up in a temporary folder, measures, and takes everything down again, also
// when ctx ends.
func (b Bench) Run(ctx context.Context) (BenchReport, error) {
	if err := b.check(); err != nil {
		return BenchReport{}, err
	}
	dir, err := tempDir()
	if err != nil {
		return BenchReport{}, err
	}
	defer os.RemoveAll(dir)
	sink, err := NewSink("127.0.0.1:0")
	if err != nil {
		return BenchReport{}, err
	}
	sinkCtx, stopSink := context.WithCancel(context.WithoutCancel(ctx)) // it outlives what delivers to it
	sinkDone := make(chan error, 1)
	go func() { sinkDone <- sink.Run(sinkCtx) }()
	defer func() { stopSink(); <-sinkDone }()

	own, stop, err := b.startPostrider(ctx, dir, sink)
	if err != nil {
		return BenchReport{}, err
	}
	defer stop()
	systems, notes := []benched{own}, []string(nil)
	peer, stopPeer, err := b.startPeer(ctx, dir, sink)
	switch {
	case ctx.Err() != nil:
		return BenchReport{}, ctx.Err()
	case err != nil:
		notes = append(notes, err.Error())
	case stopPeer != nil:
		defer stopPeer()
		systems = append(systems, peer)
	}
	return b.measure(ctx, systems, notes)
}

// tempDir makes a folder that Postgres's and Postfix's users can reach.
func tempDir() (string, error) {
	parent := "/var/tmp"
	if _, err := os.Stat(parent); err != nil {
		parent = os.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "loadtest-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func (b Bench) startPostrider(ctx context.Context, dir string, sink *Sink) (benched, func(), error) {
	b.say("starting postrider")
	readyFile := filepath.Join(dir, "ready.json")
	c, err := startChild("postrider", filepath.Join(dir, "postrider.log"), b.Postrider, "dev",
		"--dir", filepath.Join(dir, "postrider"), "--sink", sink.Addr(), "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0",
		"--inbox", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--search", "postgres", "--ready-file", readyFile, "--log-level", "warn")
	if err != nil {
		return benched{}, nil, err
	}
	stop := func() { c.stop(c.pid()) }
	err = c.until(ctx, readyPatience, func() bool {
		_, err := os.Stat(readyFile)
		return err == nil
	})
	if err != nil {
		stop()
		return benched{}, nil, err
	}
	load, err := b.loadOf(ctx, readyFile)
	if err != nil {
		stop()
		return benched{}, nil, err
	}
	load.Sink = sink
	return benched{name: "postrider", load: load, pid: c.pid()}, stop, nil
}

func (b Bench) loadOf(ctx context.Context, readyFile string) (Load, error) {
	ready, err := ReadReady(readyFile)
	if err != nil {
		return Load{}, err
	}
	b.say("making %d accounts", b.Accounts)
	keys, err := MakeAccounts(ctx, b.Postrider, ready.Config, b.Accounts)
	load := b.load()
	load.API, load.Keys = ready.API, keys
	return load, err
}

func (b Bench) load() Load {
	return Load{From: "bench@example.com", Size: b.Size, Recipients: 1, Timeout: b.Timeout, Drain: b.Drain, Settle: b.Settle}
}

// startPeer starts Postfix; without an error and without a stop function, none is wanted.
func (b Bench) startPeer(ctx context.Context, dir string, sink *Sink) (benched, func(), error) {
	if b.Postfix == "none" {
		return benched{}, nil, nil
	}
	path, err := findPostfix()
	if err != nil {
		return benched{}, nil, err
	}
	b.say("starting Postfix")
	p, err := startPostfix(ctx, path, filepath.Join(dir, "postfix"), sink.Addr(), b.Postfix == "tuned")
	if err != nil {
		return benched{}, nil, err
	}
	load := b.load()
	load.SMTP, load.Sink = p.addr, sink
	return benched{name: "postfix", load: load, pid: p.child.pid()}, p.stop, nil
}

// measure runs every case on each system in turn, as often as there are rounds.
func (b Bench) measure(ctx context.Context, systems []benched, notes []string) (BenchReport, error) {
	runs := map[BenchCase]map[string][]Report{}
	for round := range b.Rounds {
		for _, c := range b.Cases {
			if runs[c] == nil {
				runs[c] = map[string][]Report{}
			}
			for _, s := range systems {
				b.say("round %d of %d: %s, %d connections", round+1, b.Rounds, s.name, c.Connections)
				rep, err := b.one(ctx, s, c)
				if err != nil {
					return BenchReport{}, fmt.Errorf("%s, %d connections: %w", s.name, c.Connections, err)
				}
				runs[c][s.name] = append(runs[c][s.name], rep)
			}
		}
	}
	return newBenchReport(b, systems, runs, notes), nil
}

// one warms up and measures. Counting slows the system a little, so it is done in the warm-up,
// which sends the same mail over as many connections.
func (b Bench) one(ctx context.Context, s benched, c BenchCase) (Report, error) {
	load := s.load
	load.Connections = c.Connections
	load.Count, load.Meter = b.WarmUp, Meter{PIDs: []int{s.pid}, Count: true}
	warm, err := load.Run(ctx)
	if err != nil {
		return Report{}, err
	}
	load.Count, load.Meter.Count = c.Messages, false
	rep, err := load.Run(ctx)
	rep.FSyncs, rep.Syscalls = warm.FSyncs, warm.Syscalls
	rep.Notes = append(rep.Notes, warm.Notes...)
	return rep, err
}

func (b Bench) say(format string, args ...any) {
	if b.Log != nil {
		fmt.Fprintf(b.Log, format+"\n", args...)
	}
}
