package accept

import (
	"sync"
	"time"

	"github.com/postrider/postrider/sender"
)

// An account's share, in each process: what it sends beyond that is not refused and not held back while there is room,
// but takes turns with other accounts' surplus once mail has to wait.
const (
	DefaultShare = 50  // messages a second that go in the order of their time
	DefaultBurst = 500 // how many of them at once
)

const (
	maxBuckets = 20_000  // accounts that have used some of their burst; beyond it the full ones are forgotten
	maxSlots   = 100_000 // minutes of accounts that have something scheduled; beyond it the count begins anew
)

// pace decides the class of what comes in: by a token bucket an account, and for scheduled mail by how much of the
// account's falls due in the same minute, since that is when it would stand in the others' way.
type pace struct {
	share, burst float64

	mu      sync.Mutex
	buckets map[int64]bucket
	slots   map[slot]int
}

type bucket struct {
	tokens float64
	at     time.Time
}

type slot struct {
	account int64
	minute  int64
}

func newPace(share, burst int) *pace {
	return &pace{share: float64(share), burst: float64(burst), buckets: map[int64]bucket{}, slots: map[slot]int{}}
}

// class is that of n messages of one submission. All of them are of one class.
func (p *pace) class(sub *sender.Submission, n int, now time.Time) sender.Class {
	p.mu.Lock()
	defer p.mu.Unlock()
	var within bool
	if sub.SendAt.IsZero() {
		within = p.take(sub.Account, float64(n), now)
	} else {
		within = p.takeSlot(slot{sub.Account, sub.SendAt.Unix() / 60}, n, now)
	}
	switch {
	case within:
		return sender.Prompt
	case sub.Important:
		return sender.BulkImportant
	}
	return sender.Bulk
}

// take takes n tokens if there are as many.
func (p *pace) take(account int64, n float64, now time.Time) bool {
	b, known := p.buckets[account]
	if !known {
		b = bucket{p.burst, now}
	}
	b.tokens = min(p.burst, b.tokens+p.share*max(now.Sub(b.at).Seconds(), 0))
	b.at = now
	enough := n <= b.tokens
	if enough {
		b.tokens -= n
	}
	if !known && len(p.buckets) >= maxBuckets {
		p.forget(now)
	}
	p.buckets[account] = b
	return enough
}

// forget drops the buckets that are full again; all of them if that is not enough.
func (p *pace) forget(now time.Time) {
	for account, b := range p.buckets {
		if b.tokens+p.share*now.Sub(b.at).Seconds() >= p.burst {
			delete(p.buckets, account)
		}
	}
	if len(p.buckets) >= maxBuckets {
		clear(p.buckets)
	}
}

func (p *pace) takeSlot(s slot, n int, now time.Time) bool {
	if len(p.slots) >= maxSlots {
		for old := range p.slots {
			if old.minute < now.Unix()/60 {
				delete(p.slots, old)
			}
		}
		if len(p.slots) >= maxSlots {
			clear(p.slots)
		}
	}
	p.slots[s] += n
	return float64(p.slots[s]) <= p.burst+60*p.share
}
