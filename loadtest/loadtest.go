// Package loadtest is the outside world in a box: it sends mail into a system by HTTP or SMTP,
// receives what comes out at a sink of its own, and says how fast, how late and at what price it
// came, and whether every message that was taken arrived exactly once.
//
// A run has four parts: a Pacer says when, a target says where, results gather what was answered,
// and a Report adds up. The system under test is a black box, reached through sockets and read
// through /proc.
package loadtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The most that one run may ask for. They bound memory: see serialSet and mail.
const (
	MaxConnections = 4_096
	MaxRecipients  = 1_000
	MaxBody        = 24 << 20 // bytes
)

// Load is one run. A zero Count means no limit but Duration, and the other way round; one of the
// two must be set.
type Load struct {
	API  string   // HTTP target: "http://host:port"; used when SMTP is empty
	SMTP string   // SMTP target: "host:port"
	User string   // SMTP: AUTH PLAIN name, in clear; no AUTH when there are no Keys
	Keys []string // API keys, taken in turns by each submission (HTTP) or each connection (SMTP)
	From string   // sender address
	// Froms are sender addresses, of each key one, by HTTP; none means From.
	Froms []string
	// Domains of the recipients, in turns; none means twenty that nobody owns.
	Domains []string

	Count       int           // submissions
	Duration    time.Duration // stop after this long
	Rate        float64       // submissions a second, open loop; 0 is a closed loop
	Poisson     bool          // open loop: at random moments instead of even ones
	Connections int           // closed loop: so many at work; open loop: at most so many
	Size        int           // bytes of text in a mail
	Recipients  int           // messages a submission

	// SendAt says when the messages of a submission are to be sent, in whole seconds; nil is now. HTTP only.
	SendAt func(seq int) time.Time

	Timeout time.Duration // for one submission, and for dialling
	Drain   time.Duration // give up on what has not arrived when nothing came for so long
	Settle  time.Duration // after the last arrival, to see late duplicates and late CPU use

	Sink     *Sink // where the mail comes out; nil means arrivals are not known
	Meter    Meter
	Progress io.Writer // one line a second; nil for none

	target target                          // instead of the one that API or SMTP names
	seen   func(s submission, text []byte) // sees the answer of each submission that was taken; called from many goroutines
}

func (l Load) check() error {
	switch {
	case l.API == "" && l.SMTP == "":
		return errors.New("no target: give --api, --smtp or --ready-file")
	case l.SMTP == "" && len(l.Keys) == 0:
		return errors.New("no API key: give --key, --keys, --accounts or --ready-file")
	case l.Count <= 0 && l.Duration <= 0:
		return errors.New("no end: give -n or --duration")
	case l.Rate < 0 || l.Rate > 1e6:
		return errors.New("--rate must be between 0 and 1000000 a second")
	case l.Poisson && l.Rate == 0:
		return errors.New("random moments need a rate")
	case l.SendAt != nil && l.SMTP != "":
		return errors.New("a time to send at goes by HTTP only")
	case l.Connections < 1 || l.Connections > MaxConnections:
		return fmt.Errorf("--connections must be between 1 and %d", MaxConnections)
	case l.Recipients < 1 || l.Recipients > MaxRecipients:
		return fmt.Errorf("--recipients must be between 1 and %d", MaxRecipients)
	case l.Size < 0 || l.Size > MaxBody:
		return fmt.Errorf("--size must be between 0 and %d bytes", MaxBody)
	case l.Count > maxSerials/l.Recipients:
		return fmt.Errorf("-n times --recipients must be at most %d", maxSerials)
	case l.Timeout <= 0:
		return errors.New("--timeout must be above 0")
	case !plain(l.From):
		return fmt.Errorf("--from %q is not a plain address", l.From)
	case len(l.Froms) > 0 && (l.SMTP != "" || len(l.Froms) != len(l.Keys)):
		return errors.New("a sender address for each key goes by HTTP only, and each key needs one")
	case slices.ContainsFunc(l.Froms, func(a string) bool { return !plain(a) }):
		return errors.New("a sender is not a plain address")
	case slices.ContainsFunc(l.Domains, func(d string) bool { return !plain(d) }):
		return errors.New("a recipients' domain is not a plain name")
	case slices.ContainsFunc(l.Keys, func(k string) bool { return !plain(k) }):
		return errors.New("a key is empty, or has characters other than letters, digits and @ . _ - +")
	}
	return nil
}

// plain strings need no escaping in JSON, SMTP or a header.
func plain(s string) bool {
	return s != "" && len(s) <= 254 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-+") == ""
}

// Run sends the load, waits for it to arrive and reports. When ctx ends, it stops sending and
// reports what it has, with the context's error.
func (l Load) Run(ctx context.Context) (Report, error) {
	_, rep, err := l.do(ctx)
	return rep, err
}

// run is a Load at work.
type run struct {
	Load
	name     string // stands in every mail, so that the sink can tell runs apart
	target   target
	start    time.Time
	accepted serialSet
	failed   atomic.Int64 // messages
	results  results
	arrivals *arrivals // nil without a sink
}

func newRun(l Load) (*run, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	r := &run{Load: l, name: newName()}
	m := newMail(r.name, l)
	switch {
	case l.target != nil:
		r.target = l.target
	case l.SMTP != "":
		r.target = smtpTarget{addr: l.SMTP, user: l.User, keys: l.Keys, mail: m}
	default:
		r.target = sendTarget(l.API, l.Keys, m)
	}
	if l.Sink != nil {
		r.arrivals = l.Sink.tally.open(r.name)
	}
	return r, nil
}

func newName() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// do is Run for those who look closer at the run afterwards.
func (l Load) do(ctx context.Context) (*run, Report, error) {
	r, err := newRun(l)
	if err != nil {
		return nil, Report{}, err
	}
	rep, err := r.do(ctx)
	return r, rep, err
}

func (r *run) do(ctx context.Context) (Report, error) {
	workers, err := r.connect(ctx)
	if err != nil {
		return Report{}, err
	}
	meter, err := r.Meter.start()
	if err != nil {
		hangUp(workers)
		return Report{}, err
	}
	stopProgress := r.progress(ctx)
	r.send(ctx, workers)
	r.drain(ctx)
	stopProgress()
	return r.report(meter.stop()), ctx.Err()
}

// connect opens every connection before the clock starts: a wrong address or key shows here, and
// set-up is not measured.
func (r *run) connect(ctx context.Context) ([]*worker, error) {
	workers := make([]*worker, 0, r.Connections)
	for i := range r.Connections {
		w := &worker{run: r, number: i}
		workers = append(workers, w)
		if err := w.dial(ctx); err != nil {
			hangUp(workers)
			return nil, err
		}
	}
	return workers, nil
}

func hangUp(workers []*worker) {
	for _, w := range workers {
		w.hangUp()
	}
}

func (r *run) send(ctx context.Context, workers []*worker) {
	r.start = time.Now()
	pacer := NewPacer(r.start, r.Rate, r.Count, r.Duration)
	if r.Poisson {
		pacer = NewPoissonPacer(r.start, r.Rate, r.Count, r.Duration)
	}
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() { w.work(ctx, pacer) })
	}
	wg.Wait()
	for _, w := range workers {
		r.results.merge(&w.results)
	}
}

// drain waits until everything that was taken has arrived, or nothing has come for Drain.
func (r *run) drain(ctx context.Context) {
	if r.arrivals == nil {
		return
	}
	r.arrivals.wait(ctx, r.Drain, func() bool {
		return r.arrivals.count() >= r.accepted.count() && r.arrivals.missing(&r.accepted) == 0
	})
	pause(ctx, r.Settle)
}

// progress prints a line a second until the returned function is called.
func (r *run) progress(ctx context.Context) (stop func()) {
	if r.Progress == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for last := 0; pause(ctx, time.Second); {
			n := r.accepted.count()
			fmt.Fprintf(r.Progress, "accepted %d (%d/s)  failed %d", n, n-last, r.failed.Load())
			if r.arrivals != nil {
				fmt.Fprintf(r.Progress, "  arrived %d", r.arrivals.count())
			}
			fmt.Fprintln(r.Progress)
			last = n
		}
	}()
	return func() { cancel(); <-done }
}

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
