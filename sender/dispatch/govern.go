package dispatch

import (
	"context"
	"time"
)

const (
	governEvery = 10 * time.Millisecond
	governOver  = 10 // looks that are judged together
	tooLate     = 300 * time.Microsecond
	leastBulk   = 4           // messages in hand
	promptFor   = time.Second // how long after it other mail counts as coming in
)

// govern finds out whether this process gets the processor when it wants it, and limits bulk accordingly while other mail
// comes in: a mailing may use what time is left over, but a code that has to wait behind it is late. A timer that rings
// late is the sign: more than a millisecond, twice in a tenth of a second. It sees our own work and that of others.
func (d *Dispatcher) govern(ctx context.Context) error {
	tick := time.NewTicker(governEvery)
	defer tick.Stop()
	last, looks, late := time.Now(), 0, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(last) > governEvery+tooLate {
			late++
		}
		last = now
		d.feed()
		if looks++; looks == governOver {
			d.mu.Lock()
			d.limit = governed(d.limit, late > 1, d.cfg.Room/2)
			d.mu.Unlock()
			looks, late = 0, 0
		}
	}
}

// governed is the next limit: a quarter less when the processor is short, an eighth more when it is not.
func governed(limit int, short bool, most int) int {
	if short {
		return min(max(limit/2, leastBulk), most)
	}
	return min(limit+limit/16+1, most)
}

// mostBulk is how much bulk may be in hand. The caller holds mu.
func (d *Dispatcher) mostBulk() int {
	if time.Since(d.prompt) > promptFor {
		return d.cfg.Room / 2
	}
	return d.limit
}

// feed rings for bulk that found no room, when there is some again.
func (d *Dispatcher) feed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.hungry) == 0 || d.bulk > d.mostBulk()*3/4 {
		return
	}
	for shard := range d.hungry {
		d.rung[shard] = true
	}
	clear(d.hungry)
}
