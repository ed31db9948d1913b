package dispatch

import (
	"context"
	"time"

	"github.com/postrider/postrider/sender"
)

const (
	smallContent = 64 << 10 // bytes; all small mails that can be under way together take some hundred megabytes at most
	largeWait    = 5 * time.Second
)

// weight is about the memory that an attempt at a large message takes beyond its content, which is counted in Room: the
// composed form, twice. 0 for a small one.
func (d *Dispatcher) weight(it *item) int64 {
	size := it.size
	if c := it.content; c != nil {
		size = len(c.Text) + len(c.HTML)
		for _, list := range [][]sender.Attachment{c.Attachments, c.Images} {
			for _, f := range list {
				size += len(f.Content)
			}
		}
	}
	if size <= smallContent {
		return 0
	}
	return min(int64(3*size), d.share())
}

// share is what large messages of one domain may take together, so that a domain which hangs cannot keep the others' from
// being sent. One message always may.
func (d *Dispatcher) share() int64 { return int64(d.cfg.RoomBytes) / 4 }

// carry makes an attempt within the memory for large messages, or gives the message back when there is none for it: one
// submission with a large file for a thousand domains must not become a thousand copies of it at once.
func (d *Dispatcher) carry(l *lane, it *item) {
	weight := d.weight(it)
	if weight == 0 {
		d.attempt(it)
		return
	}
	d.mu.Lock()
	if l.large > 0 && l.large+weight > d.share() {
		d.turnAway(l, it)
		d.mu.Unlock()
		return
	}
	l.large += weight
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(d.ctx, largeWait)
	err := d.large.Acquire(ctx, weight)
	cancel()
	if err == nil {
		d.attempt(it)
		d.large.Release(weight)
	}
	d.mu.Lock()
	l.large -= weight
	if err != nil {
		d.turnAway(l, it)
	}
	d.mu.Unlock()
}
