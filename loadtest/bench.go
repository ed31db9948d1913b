package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

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
	w, err := newWorld(ctx, b.Postrider, b.Log)
	if err != nil {
		return BenchReport{}, err
	}
	defer w.close()
	own, err := b.own(ctx, w)
	if err != nil {
		return BenchReport{}, err
	}
	systems, notes := []benched{own}, []string(nil)
	peer, stopPeer, err := b.startPeer(ctx, w)
	switch {
	case ctx.Err() != nil:
		return BenchReport{}, ctx.Err()
	case err != nil:
		notes = append(notes, err.Error())
	case stopPeer != nil:
		defer stopPeer()
		systems = append(systems, peer)
	}
	return b.measure(ctx, w, systems, notes)
}

// own is the postrider of the world as a system under test.
func (b Bench) own(ctx context.Context, w *world) (benched, error) {
	keys, err := w.accounts(ctx, b.Accounts)
	load := b.load()
	load.API, load.Keys, load.Sink = w.ready.API, keys, w.sink
	return benched{name: "postrider", load: load, pid: w.child.pid()}, err
}

func (b Bench) load() Load {
	return Load{From: "bench@example.com", Size: b.Size, Recipients: 1, Timeout: b.Timeout, Drain: b.Drain, Settle: b.Settle}
}

// startPeer starts Postfix; without an error and without a stop function, none is wanted.
func (b Bench) startPeer(ctx context.Context, w *world) (benched, func(), error) {
	if b.Postfix == "none" {
		return benched{}, nil, nil
	}
	path, err := findPostfix()
	if err != nil {
		return benched{}, nil, err
	}
	w.say("starting Postfix")
	p, err := startPostfix(ctx, path, filepath.Join(w.dir, "postfix"), w.sink.Addr(), b.Postfix == "tuned")
	if err != nil {
		return benched{}, nil, err
	}
	load := b.load()
	load.SMTP, load.Sink = p.addr, w.sink
	return benched{name: "postfix", load: load, pid: p.child.pid()}, p.stop, nil
}

// measure runs every case on each system in turn, as often as there are rounds.
func (b Bench) measure(ctx context.Context, w *world, systems []benched, notes []string) (BenchReport, error) {
	runs := map[BenchCase]map[string][]Report{}
	for round := range b.Rounds {
		for _, c := range b.Cases {
			if runs[c] == nil {
				runs[c] = map[string][]Report{}
			}
			for _, s := range systems {
				w.say("round %d of %d: %s, %d connections", round+1, b.Rounds, s.name, c.Connections)
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
