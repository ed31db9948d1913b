package dispatch

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
)

// item is a message in hand.
type item struct {
	m       sender.Message
	content *sender.Content // nil until its turn when the message was claimed by its row
	body    []byte          // the stored form, if it came with the claim
	size    int             // of the stored form, when content is nil
	shard   string
}

// lane holds what waits for one recipient domain. A slow or hanging domain fills its own lane only.
type lane struct {
	waiting []*item
	running int
}

// begin starts a message, or lets it wait for its domain.
func (d *Dispatcher) begin(it *item) {
	domain := sender.Domain(it.m.Recipient.Email)
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[domain]
	if l == nil {
		l = &lane{}
		d.lanes[domain] = l
	}
	switch {
	case l.running < d.cfg.PerDomain && !d.closing:
	case len(l.waiting) < d.cfg.Waiting || d.closing:
		l.waiting = append(l.waiting, it)
		return
	default: // a slow domain must not fill the room that the others need
		d.crowd[it.shard] = append(d.crowd[it.shard], it.m.ID)
		return
	}
	l.running++
	d.work.Go(func() { d.runLane(domain, l, it) })
}

func (d *Dispatcher) runLane(domain string, l *lane, it *item) {
	for it != nil {
		d.attempt(it)
		it = d.next(domain, l)
	}
}

func (d *Dispatcher) next(domain string, l *lane) *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(l.waiting) > 0 && !d.closing {
		it := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		return it
	}
	l.running--
	if l.running == 0 && len(l.waiting) == 0 {
		delete(d.lanes, domain)
	}
	return nil
}

// crowded is about how long a message stays out of hand that found its domain crowded. Half of it is chance, so that
// what was given back together does not come back together.
const crowded = 20 * time.Second

// giveBackCrowd returns to their shards the messages that their domain has no place for, no attempt counted.
func (d *Dispatcher) giveBackCrowd(ctx context.Context) {
	d.mu.Lock()
	crowd := d.crowd
	d.crowd = map[string][]sender.ID{}
	d.mu.Unlock()
	for shard, ids := range crowd {
		after := crowded/2 + rand.N(crowded)
		err := d.cfg.Store.Release(ctx, shard, ids, after, false)
		d.mu.Lock()
		for _, id := range ids {
			d.letGo(id)
		}
		if err != nil {
			d.cfg.Log.Debug("crowded messages not given back, the sweeper frees them", zap.String("shard", shard), zap.Error(err))
			d.doubt(shard)
		}
		d.mu.Unlock()
		if err == nil {
			d.clock.set(shard, time.Now().Add(after))
		}
	}
}
