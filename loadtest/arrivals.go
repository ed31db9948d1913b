package loadtest

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxRuns is how many runs a sink remembers; a newer one pushes out the oldest.
const maxRuns = 64

// tally keeps what arrived, by run.
type tally struct {
	mu    sync.Mutex
	runs  []*arrivals // oldest first
	other int         // messages without a stamp of ours
}

// open finds a run, or begins it.
func (t *tally) open(run string) *arrivals {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range slices.Backward(t.runs) {
		if a.run == run {
			return a
		}
	}
	if len(t.runs) == maxRuns {
		t.runs = slices.Delete(t.runs, 0, 1)
	}
	a := &arrivals{run: run}
	t.runs = append(t.runs, a)
	return a
}

func (t *tally) foreign(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.other += n
}

// all lists the runs, oldest first, and counts the mail of none.
func (t *tally) all() (runs []*arrivals, other int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.runs), t.other
}

func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs, t.other = nil, 0
}

// arrivals is what came of one run.
type arrivals struct {
	run     string
	serials serialSet

	mu         sync.Mutex
	duplicates int
	early      int // first arrivals before the time that their stamp says
	sessions   int
	last       time.Time
	latency    histogram // of first arrivals, from hand-over
	signatures [4]int    // first arrivals with 0, 1, 2 and more DKIM-Signature fields
}

// record notes the arrival of the messages of one mail.
func (a *arrivals) record(serials []int, s stamp, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, serial := range serials {
		if !a.serials.add(serial) {
			a.duplicates++
			continue
		}
		if now.Before(s.sent) {
			a.early++
		}
		a.latency.add(now.Sub(s.sent))
		a.signatures[min(s.signatures, len(a.signatures)-1)]++
		a.last = now
	}
}

func (a *arrivals) joined() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions++
}

func (a *arrivals) count() int { return a.serials.count() }

func (a *arrivals) missing(expected *serialSet) int { return expected.without(&a.serials) }

// wait returns when done says so, when nothing has arrived for idle, or when ctx ends. It looks
// every 20 ms; times of arrival are not affected, the sink takes them.
func (a *arrivals) wait(ctx context.Context, idle time.Duration, done func() bool) bool {
	seen, since := a.count(), time.Now()
	for !done() {
		if n := a.count(); n != seen {
			seen, since = n, time.Now()
		}
		if time.Since(since) > idle || !pause(ctx, 20*time.Millisecond) {
			return false
		}
	}
	return true
}

// Arrived says what a sink has received of one run.
type Arrived struct {
	Run        string  `json:"run"`
	Messages   int     `json:"messages"`   // different ones
	Duplicates int     `json:"duplicates"` // arrivals beyond the first
	Gaps       int     `json:"gaps"`       // numbers below the highest one seen that did not arrive
	Sessions   int     `json:"sessions"`   // SMTP sessions that carried them
	P50        float64 `json:"e2e_p50_ms"`
	P99        float64 `json:"e2e_p99_ms"`
	Last       string  `json:"last"` // RFC 3339; empty when nothing came
}

func (a *arrivals) stats() Arrived {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Arrived{
		Run: a.run, Messages: a.count(), Duplicates: a.duplicates, Gaps: a.serials.gaps(), Sessions: a.sessions,
		P50: millis(a.latency.quantile(.5)), P99: millis(a.latency.quantile(.99)),
	}
	if !a.last.IsZero() {
		s.Last = a.last.Format(time.RFC3339Nano)
	}
	return s
}
