package dispatch

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// item is a message in hand.
type item struct {
	m       sender.Message
	content *sender.Content // nil until its turn when the message was claimed by its row
	body    []byte          // the stored form, if it came with the claim
	size    int             // of the stored form, when content is nil
	shard   string
	since   time.Time // when it came in hand
}

func (it *item) ref() store.Ref { return store.Ref{Account: it.m.Account, ID: it.m.ID} }

// lane holds what waits for one recipient domain. A slow or hanging domain fills its own lane only, and an account leaves
// a quarter of a lane's places to the others.
type lane struct {
	waiting turns
	running map[int64]int // by account
	total   int           // of running
	large   int64         // bytes that its large messages under way take
	turned  int           // messages turned away since nothing waited
	ended   int           // messages that ended since then
	since   time.Time     // of that
}

// most is how many of n places one account may take.
func most(n int) int { return n - n/4 }

func (d *Dispatcher) mayRun(l *lane, account int64) bool {
	return !d.closing && l.total < d.cfg.PerDomain && l.running[account] < most(d.cfg.PerDomain)
}

// mayWait keeps a place for the first message of any account.
func (d *Dispatcher) mayWait(l *lane, account int64) bool {
	n := l.waiting.of(account)
	return d.closing || n == 0 || n < most(d.cfg.Waiting) && l.waiting.n < d.cfg.Waiting
}

// begin starts a message, or lets it wait for its domain.
func (d *Dispatcher) begin(it *item) {
	domain, account := sender.Domain(it.m.Recipient.Email), it.m.Account
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[domain]
	if l == nil {
		l = &lane{running: map[int64]int{}}
		d.lanes[domain] = l
	}
	switch {
	case d.mayRun(l, account):
		l.running[account]++
		l.total++
		d.work.Go(func() { d.runLane(domain, l, it) })
	case d.mayWait(l, account):
		if l.waiting.n == 0 {
			l.turned, l.ended, l.since = 0, 0, time.Now()
		}
		l.waiting.add(it)
	default: // a slow domain must not fill the room that the others need
		d.turnAway(l, it)
	}
}

func (d *Dispatcher) runLane(domain string, l *lane, it *item) {
	for it != nil {
		d.carry(l, it)
		it = d.next(domain, l, it.m.Account)
	}
}

// next hands the place of an account's message that has ended to whoever's turn it is. When all who wait have their share
// of places under way, one of those calls here later.
func (d *Dispatcher) next(domain string, l *lane, account int64) *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.running[account]--; l.running[account] == 0 {
		delete(l.running, account)
	}
	l.total--
	l.ended++
	if it := l.waiting.next(func(a int64) bool { return d.mayRun(l, a) }); it != nil {
		l.running[it.m.Account]++
		l.total++
		return it
	}
	if l.total == 0 && l.waiting.n == 0 {
		delete(d.lanes, domain)
	}
	return nil
}

// How long a message stays out of hand that found its domain crowded.
const (
	crowdedLeast = 500 * time.Millisecond
	crowdedMost  = 30 * time.Minute
	standstill   = 20 * time.Second // for each page of those waiting, in a domain where nothing moves
)

// crowded is about how long it takes until a message that finds no place would have its turn, at the speed at which the
// lane moves: so that a backlog of any length costs the same, and a domain that takes mail quickly is kept supplied.
func (d *Dispatcher) crowded(l *lane) time.Duration {
	ahead := l.waiting.n + l.turned
	still := time.Duration(1+l.turned/d.cfg.Waiting) * standstill
	switch {
	case time.Since(l.since) < 2*time.Second && l.ended == 0:
		still = 2 * time.Second // nobody knows yet how it moves
	case l.ended > 0:
		still = min(still, time.Since(l.since)*time.Duration(ahead)/time.Duration(l.ended))
	}
	return min(max(still, crowdedLeast), crowdedMost)
}

// away is a message to be given back to its shard, to be due after a while.
type away struct {
	ref   store.Ref
	after time.Duration
}

// turnAway has a message given back, no attempt counted. The caller holds mu.
func (d *Dispatcher) turnAway(l *lane, it *item) {
	after := d.crowded(l) * 3 / 4
	l.turned++
	d.putAway(it, after)
}

// putAway has a message given back to its row, to be due after a while, or half as much again. Mail that is worth nothing
// later is due before that. The caller holds mu.
func (d *Dispatcher) putAway(it *item, after time.Duration) {
	if it.m.Perishable {
		after = min(after, time.Until(it.m.Expires)/2)
	}
	after = min(max(after.Truncate(crowdedLeast), crowdedLeast), crowdedMost)
	d.crowd[it.shard] = append(d.crowd[it.shard], away{it.ref(), after})
}

// giveBack returns to their shards the messages that were turned away.
func (d *Dispatcher) giveBack(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d.mu.Lock()
		crowd := d.crowd
		d.crowd = map[string][]away{}
		d.mu.Unlock()
		for shard, list := range crowd {
			if !d.alone.run("back "+shard, func() { d.giveBackTo(ctx, shard, list) }) { // its server is slow: with the next
				d.mu.Lock()
				d.crowd[shard] = append(d.crowd[shard], list...)
				d.mu.Unlock()
			}
		}
	}
}

func (d *Dispatcher) giveBackTo(ctx context.Context, shard string, list []away) {
	byWait := map[time.Duration][]store.Ref{}
	for _, a := range list {
		byWait[a.after] = append(byWait[a.after], a.ref)
	}
	for after, refs := range byWait {
		d.release(ctx, shard, refs, after+rand.N(after/2+1))
	}
}

func (d *Dispatcher) release(ctx context.Context, shard string, refs []store.Ref, after time.Duration) {
	err := d.cfg.Store.Release(ctx, shard, refs, after, false)
	d.mu.Lock()
	if err != nil && ctx.Err() != nil { // our stop returns them with the rest
		for _, r := range refs {
			d.crowd[shard] = append(d.crowd[shard], away{r, after})
		}
		d.mu.Unlock()
		return
	}
	for _, r := range refs {
		d.letGo(r.ID)
	}
	if err != nil {
		d.cfg.Log.Debug("messages not given back, the sweeper frees them", zap.String("shard", shard), zap.Error(err))
		d.doubt(shard, store.Lowest(refs))
	}
	d.mu.Unlock()
	if err == nil {
		d.clock.set(shard, after)
	}
}
