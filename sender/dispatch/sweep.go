package dispatch

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// handle answers a bell: it claims what is due in the shard until nothing is left.
func (d *Dispatcher) handle(ctx context.Context, j jobs.Job) jobs.Result {
	for d.claim(ctx, j.Shard) {
		sh := d.cfg.Shards.Map().Shard(j.Shard)
		if sh == nil || !sh.Server.Up() || !sh.Server.Beating(shards.Quiet) {
			return jobs.Done() // the sweeper rings again when the server is back
		}
		if d.room() < d.cfg.Room/10 || ctx.Err() != nil {
			return jobs.Snooze(500 * time.Millisecond) // full: it is nobody's failure
		}
	}
	d.lookAhead(ctx, j.Shard)
	return jobs.Done()
}

// bells publishes what was rung for, every 20 ms. If the queue is away the sweeper rings again from the rows.
func (d *Dispatcher) bells(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d.mu.Lock()
		var out []jobs.Job
		for shard := range d.rung {
			out = append(out, jobs.Job{Kind: JobDeliver, Shard: shard})
		}
		clear(d.rung)
		d.mu.Unlock()
		if len(out) == 0 {
			continue
		}
		if err := d.cfg.Queue.Ring(ctx, out...); err != nil && ctx.Err() == nil {
			d.cfg.Log.Debug("bell not rung, the sweeper rings again", zap.Int("shards", len(out)), zap.Error(err))
		}
	}
}

// sweep finds by their rows the messages that nobody rang for: those of dead instances, those whose claim was
// never confirmed, and those that are due and silent.
func (d *Dispatcher) sweep(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.SweepEvery)
	defer tick.Stop()
	for {
		d.freeDead(ctx)
		d.freeSuspect(ctx)
		d.ringDue(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// freeDead gives back the claims of instances that are gone, server by server.
func (d *Dispatcher) freeDead(ctx context.Context) {
	m := d.cfg.Shards.Map()
	for _, v := range m.Servers() {
		if !v.Up() {
			continue
		}
		dead, err := d.cfg.Shards.Dead(ctx, v)
		if err != nil {
			continue
		}
		for _, instance := range dead {
			all, freed := true, int64(0)
			for _, sh := range m.Shards() {
				if sh.Server != v {
					continue
				}
				n, err := d.cfg.Store.Free(ctx, sh.Name, instance)
				if err != nil {
					all = false
					continue
				}
				if n > 0 {
					d.Ring(sh.Name)
				}
				freed += n
			}
			if all && instance.Gone && d.cfg.Shards.Forget(ctx, v, instance.ID) == nil {
				d.cfg.Log.Info("claims of an ended instance freed", zap.String("server", v.Name), zap.Int64("messages", freed))
			}
		}
	}
}

const (
	settled = 15 * time.Second // the age at which a claim is in memory, or lost
	// A commit on a connection that broke half-way can reach the server minutes later.
	trust = 3 * time.Minute
)

// doubts are when we first and last had reason to think that a shard holds a claim of ours that is in nobody's memory.
type doubts struct{ first, last time.Time }

// doubt notes such a reason. The caller holds mu.
func (d *Dispatcher) doubt(shard string) {
	at := d.suspect[shard]
	at.last = time.Now()
	if at.first.IsZero() {
		at.first = at.last
	}
	d.suspect[shard] = at
}

// freeSuspect gives back what is ours by the rows and in nobody's memory. A shard stays suspect until everything made
// up to our last doubt has been looked at.
func (d *Dispatcher) freeSuspect(ctx context.Context) {
	d.mu.Lock()
	suspect := maps.Clone(d.suspect)
	d.mu.Unlock()
	for shard, at := range suspect {
		// What was lost was made at most seconds before we doubted, or was claimed by its row, which Held finds at any age.
		floor := sender.IDAt(at.first.Add(-time.Minute))
		if err := d.freeLost(ctx, shard, floor, time.Now().Add(-settled)); err != nil || time.Since(at.last) < trust {
			continue
		}
		d.mu.Lock()
		if d.suspect[shard] == at {
			delete(d.suspect, shard)
		}
		d.mu.Unlock()
	}
}

func (d *Dispatcher) freeLost(ctx context.Context, shard string, floor sender.ID, before time.Time) error {
	d.claims.Lock() // a claim that is just being made must not look like a lost one
	defer d.claims.Unlock()
	refs, err := d.cfg.Store.Held(ctx, shard, floor, before)
	if err != nil {
		return err
	}
	d.mu.Lock()
	more := len(refs) == store.MaxHeld
	lost := refs[:0]
	for _, r := range refs {
		if _, ok := d.held[r.ID]; !ok {
			lost = append(lost, r)
		}
	}
	d.mu.Unlock()
	if len(lost) == 0 {
		return nil // even of a full page: nothing of it was lost, and only what is lost piles up
	}
	if err := d.cfg.Store.Release(ctx, shard, lost, 0, true); err != nil {
		return err
	}
	d.cfg.Log.Info("claims without an owner freed", zap.String("shard", shard), zap.Int("messages", len(lost)))
	d.Ring(shard)
	if more {
		return errMore
	}
	return nil
}

// errMore keeps a shard suspect: not all that we hold in it fitted on one page.
var errMore = errors.New("more claims are to be looked at")

// ringDue rings for what is due and silent, and winds the clock for what comes next.
func (d *Dispatcher) ringDue(ctx context.Context) {
	var oldest time.Time
	for _, sh := range d.cfg.Shards.Map().Shards() {
		if ctx.Err() != nil || !sh.Server.Up() {
			continue
		}
		if at := d.lookAhead(ctx, sh.Name); !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	age := 0.0
	if !oldest.IsZero() {
		age = max(time.Since(oldest).Seconds(), 0)
	}
	d.metrics.oldest.Set(age)
	d.mu.Lock()
	d.metrics.held.Set(float64(len(d.held)))
	d.mu.Unlock()
}

// lookAhead asks a shard what is due next: rings when that is now, and winds the clock otherwise. One timer a shard is
// enough for any number of schedules, since each bell is followed by a look at the next.
func (d *Dispatcher) lookAhead(ctx context.Context, shard string) time.Time {
	at, err := d.cfg.Store.Due(ctx, shard)
	switch {
	case err != nil || at.IsZero():
	case at.After(time.Now()):
		d.clock.set(shard, at)
	default:
		d.Ring(shard)
	}
	return at
}

// clock rings a shard when a retry or a schedule falls due. Bells within a quarter of a second are
// one, and those beyond ten minutes are left to the sweeper, so it stays small.
type clock struct {
	mu  sync.Mutex
	due map[string]map[int64]bool // by shard: quarters of a second
}

const (
	quarter = 250 * time.Millisecond
	horizon = 10 * time.Minute
)

func newClock() *clock { return &clock{due: map[string]map[int64]bool{}} }

func (c *clock) set(shard string, at time.Time) {
	if time.Until(at) > horizon {
		return
	}
	slot := at.UnixNano()/int64(quarter) + 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due[shard] == nil {
		c.due[shard] = map[int64]bool{}
	}
	c.due[shard][slot] = true
}

func (c *clock) run(ctx context.Context, ring func(shard string)) error {
	tick := time.NewTicker(quarter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, shard := range c.take(now) {
				ring(shard)
			}
		}
	}
}

func (c *clock) take(now time.Time) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	limit := now.UnixNano() / int64(quarter)
	for shard, slots := range c.due {
		hit := false
		for s := range slots {
			if s <= limit {
				delete(slots, s)
				hit = true
			}
		}
		if hit {
			out = append(out, shard)
		}
		if len(slots) == 0 {
			delete(c.due, shard)
		}
	}
	return out
}
