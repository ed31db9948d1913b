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
	Signed    bool   // also with DKIM signatures, and beside Postfix with opendkim
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
	name       string
	load       Load
	pids       []int
	signatures int    // DKIM-Signature fields that each mail of it is to carry
	absent     string // why it is not measured
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
	systems, err := b.own(ctx, w)
	if err != nil {
		return BenchReport{}, err
	}
	peers, notes := b.peers(ctx, w)
	if ctx.Err() != nil {
		return BenchReport{}, ctx.Err()
	}
	return b.measure(ctx, w, append(systems, peers...), notes)
}

func (b Bench) load(w *world) Load {
	return Load{From: "bench@example.com", Size: b.Size, Recipients: 1, Timeout: b.Timeout, Drain: b.Drain, Settle: b.Settle, Sink: w.sink}
}

// peers starts what is wanted to compare with. What cannot be had here is no error: the notes say why.
func (b Bench) peers(ctx context.Context, w *world) (systems []benched, notes []string) {
	if b.Postfix == "none" {
		return nil, nil
	}
	path, err := findPostfix()
	if err != nil {
		return nil, []string{err.Error()}
	}
	plain, err := b.postfix(ctx, w, path, plainPostfix, "")
	if err != nil {
		return nil, []string{err.Error()}
	}
	systems = append(systems, plain)
	if b.Signed {
		signed, err := b.signedPostfix(ctx, w, path)
		if err != nil {
			signed, notes = benched{name: signedPostfix, absent: "did not start"}, append(notes, err.Error())
		}
		if errors.Is(err, errNotInstalled) {
			signed.absent = errNotInstalled.Error()
		}
		systems = append(systems, signed)
	}
	return systems, notes
}

func (b Bench) signedPostfix(ctx context.Context, w *world, path string) (benched, error) {
	w.say("starting opendkim")
	o, err := startOpendkim(ctx, filepath.Join(w.dir, "opendkim"))
	if err != nil {
		return benched{}, err
	}
	w.stop = append(w.stop, o.stop)
	s, err := b.postfix(ctx, w, path, signedPostfix, "smtpd_milters = inet:"+o.addr+"\n")
	s.pids, s.signatures = append(s.pids, o.child.pid()), 1
	return s, err
}

// postfix starts a Postfix with so much more in its main.cf.
func (b Bench) postfix(ctx context.Context, w *world, path, name, more string) (benched, error) {
	if b.Postfix == "tuned" {
		more += postfixTuned
	}
	w.say("starting %s", name)
	p, err := startPostfix(ctx, path, filepath.Join(w.dir, name), w.sink.Addr(), more)
	if err != nil {
		return benched{}, err
	}
	w.stop = append(w.stop, p.stop)
	load := b.load(w)
	load.SMTP = p.addr
	return benched{name: name, load: load, pids: []int{p.child.pid()}}, nil
}

// measure runs every case on each system in turn, as often as there are rounds.
func (b Bench) measure(ctx context.Context, w *world, systems []benched, notes []string) (BenchReport, error) {
	runs := map[BenchCase]map[string][]benchRun{}
	for round := range b.Rounds {
		for _, c := range b.Cases {
			if runs[c] == nil {
				runs[c] = map[string][]benchRun{}
			}
			for _, s := range systems {
				if s.absent != "" {
					continue
				}
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

// benchRun is one run of a case, and who used the machine during it.
type benchRun struct {
	Report
	busy Busy
}

// one warms up and measures. Counting slows the system a little, so it is done in the warm-up,
// which sends the same mail over as many connections.
func (b Bench) one(ctx context.Context, s benched, c BenchCase) (benchRun, error) {
	load := s.load
	load.Connections = c.Connections
	load.Count, load.Meter = b.WarmUp, Meter{PIDs: s.pids, Count: true}
	warm, err := load.Run(ctx)
	if err != nil {
		return benchRun{}, err
	}
	load.Count, load.Meter.Count = c.Messages, false
	busy := watch(s.name, s.pids...)
	rep, err := load.Run(ctx)
	rep.FSyncs, rep.Syscalls = warm.FSyncs, warm.Syscalls
	rep.Notes = append(rep.Notes, warm.Notes...)
	return benchRun{rep, busy()}, err
}
