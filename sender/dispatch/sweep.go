package dispatch

import (
	"context"
	"errors"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// handle answers a bell: it claims what is due in the shard until nothing is left. A job that names messages is one of
// dead letters that is tried again.
func (d *Dispatcher) handle(ctx context.Context, j jobs.Job) jobs.Result {
	if len(j.IDs) > 0 {
		n, err := d.cfg.Store.Revive(ctx, j.Shard, j.IDs)
		if err != nil {
			d.cfg.Log.Debug("dead messages not revived yet", zap.String("shard", j.Shard), zap.Error(err))
			return jobs.Retry(5 * time.Second)
		}
		d.cfg.Log.Info("dead messages are tried again", zap.String("shard", j.Shard), zap.Int("messages", n))
	}
	for range claimsInARow {
		switch d.claim(ctx, j.Shard) {
		case drained:
			d.lookAhead(ctx, j.Shard)
			return jobs.Done()
		case failed:
			return jobs.Done() // the sweeper rings again
		case full:
			return jobs.Snooze(100 * time.Millisecond) // it is nobody's failure
		}
	}
	d.Ring(j.Shard) // behind the other shards that were rung for
	return jobs.Done()
}

const claimsInARow = 5

// forgetRejects deletes what has long expired on the do-not-send lists. Those are small tables without partitions.
func (d *Dispatcher) forgetRejects(ctx context.Context) {
	before := time.Now().AddDate(-1, 0, 0)
	for _, sh := range d.cfg.Shards.Map().Shards() {
		for n := int64(store.ForgetAtOnce); n == store.ForgetAtOnce && ctx.Err() == nil; {
			var err error
			if n, err = d.cfg.Store.ForgetRejects(ctx, sh.Name, before); err != nil {
				d.cfg.Log.Debug("expired do-not-send entries not deleted", zap.String("shard", sh.Name), zap.Error(err))
				break
			}
		}
	}
}

// bells publishes what was rung for, every 20 ms. While the queue is away this process hears its own bells by its clock.
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
			d.cfg.Log.Debug("bell not rung, this process claims what is due", zap.Int("shards", len(out)), zap.Error(err))
			for _, j := range out {
				d.clock.set(j.Shard, 0)
			}
		}
	}
}

// sweep finds by their rows the messages that nobody rang for: those whose claim was never confirmed, and those that are
// due and silent.
func (d *Dispatcher) sweep(ctx context.Context) error {
	tick, daily := time.NewTicker(d.cfg.SweepEvery), time.NewTicker(24*time.Hour)
	defer tick.Stop()
	defer daily.Stop()
	for {
		d.freeLostClaims(ctx)
		d.ringDue(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-daily.C:
			d.forgetRejects(ctx)
		}
	}
}

const (
	settled = 15 * time.Second // the age at which a claim is in memory, or lost
	// A commit on a connection that broke half-way can reach the server minutes later.
	trust = 3 * time.Minute
)

// doubts are when we first and last had reason to think that a shard holds a claim of ours that is in nobody's memory.
type doubts struct {
	first, last time.Time
	low         sender.ID // of what may be lost
}

// doubt notes such a reason: what may be lost was made at most seconds ago, or has an id from low on. The caller holds mu.
func (d *Dispatcher) doubt(shard string, low sender.ID) {
	at := d.doubtful[shard]
	at.last = time.Now()
	if at.first.IsZero() {
		at.first, at.low = at.last, sender.IDAt(at.last.Add(-time.Minute))
	}
	if !low.IsZero() && low.Before(at.low) {
		at.low = low
	}
	d.doubtful[shard] = at
}

// freeLostClaims gives back what is ours by the rows and in nobody's memory. A shard stays suspect until everything made
// up to our last doubt has been looked at.
func (d *Dispatcher) freeLostClaims(ctx context.Context) {
	d.mu.Lock()
	doubtful := maps.Clone(d.doubtful)
	d.mu.Unlock()
	for shard, at := range doubtful {
		// What was claimed by its row Held finds at any age.
		if err := d.freeLost(ctx, shard, at.low, time.Now().Add(-settled)); err != nil || time.Since(at.last) < trust {
			continue
		}
		d.mu.Lock()
		if d.doubtful[shard] == at {
			delete(d.doubtful, shard)
		}
		d.mu.Unlock()
	}
}

func (d *Dispatcher) freeLost(ctx context.Context, shard string, floor sender.ID, before time.Time) error {
	claims := d.claiming(shard)
	claims.Lock() // a claim that is just being made must not look like a lost one
	defer claims.Unlock()
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
	longest := time.Duration(0)
	for _, sh := range d.cfg.Shards.Map().Shards() {
		if ctx.Err() == nil && sh.Server.Up() {
			longest = max(longest, -d.lookAhead(ctx, sh.Name))
		}
	}
	d.metrics.oldest.Set(longest.Seconds())
	d.mu.Lock()
	d.metrics.held.Set(float64(len(d.held)))
	d.mu.Unlock()
}

// lookAhead asks a shard how long it is until something is due: rings when that is now, and winds the clock otherwise. One
// timer a shard is enough for any number of schedules, since each bell is followed by a look at the next.
func (d *Dispatcher) lookAhead(ctx context.Context, shard string) time.Duration {
	m := d.cfg.Shards.Map()
	if sh := m.Shard(shard); sh == nil || !sh.Server.Beating(shards.Quiet) || m.Paused(JobDeliver, shard, 0) {
		return store.Never // the sweeper looks again when it goes on
	}
	d.mu.Lock()
	wanted := store.Wanted{Suspect: d.suspect.IsZero() && !d.asking, Bulk: d.bulk < d.mostBulk(), Without: d.without(m, shard)}
	d.mu.Unlock()
	after, err := d.cfg.Store.Due(ctx, shard, wanted)
	switch {
	case err != nil:
		return store.Never
	case after > 0:
		d.clock.set(shard, after)
	default:
		d.Ring(shard)
	}
	return after
}
