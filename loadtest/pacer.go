package loadtest

import (
	"context"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Pacer says when the next submission goes. Any number of workers may ask it at once.
//
// In an open loop the schedule is fixed in advance, start + seq/rate, and does not wait for the
// system: one that falls behind is charged for the wait, because latency counts from the due time
// and not from when a connection came free. In a closed loop a submission is due when asked for.
type Pacer struct {
	start    time.Time
	rate     float64
	count    int64
	duration time.Duration
	next     atomic.Int64

	mu   sync.Mutex
	gaps *mathrand.Rand // nil: even ones
	at   time.Duration  // of the latest submission at a random moment, after start
}

// NewPacer makes a pacer of rate submissions a second (0: closed loop) that ends after count
// submissions (0: no limit) or after duration (0: no limit).
func NewPacer(start time.Time, rate float64, count int, duration time.Duration) *Pacer {
	return &Pacer{start: start, rate: rate, count: int64(count), duration: duration}
}

// NewPoissonPacer makes an open loop whose submissions come at random moments, as those of many independent senders do:
// the gaps are exponential. The moments are the same ones for each pacer of the same rate.
func NewPoissonPacer(start time.Time, rate float64, count int, duration time.Duration) *Pacer {
	p := NewPacer(start, rate, count, duration)
	p.gaps = mathrand.New(mathrand.NewPCG(1, 2))
	return p
}

// Next waits until a submission is due and returns its number, counted from 0, and its due time.
// It is false at the end of the schedule or of ctx.
func (p *Pacer) Next(ctx context.Context) (seq int, due time.Time, ok bool) {
	n, due := p.take()
	if p.count > 0 && n >= p.count || ctx.Err() != nil {
		return 0, time.Time{}, false
	}
	if p.duration > 0 && due.Sub(p.start) >= p.duration {
		return 0, time.Time{}, false
	}
	if wait := time.Until(due); wait > 0 && !pause(ctx, wait) {
		return 0, time.Time{}, false
	}
	return int(n), due, true
}

// take takes the next place of the schedule.
func (p *Pacer) take() (n int64, due time.Time) {
	switch {
	case p.rate <= 0:
		return p.next.Add(1) - 1, time.Now()
	case p.gaps == nil:
		n = p.next.Add(1) - 1
		return n, p.start.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at += time.Duration(p.gaps.ExpFloat64() / p.rate * float64(time.Second))
	return p.next.Add(1) - 1, p.start.Add(p.at)
}
