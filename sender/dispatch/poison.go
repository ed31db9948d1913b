package dispatch

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
)

// maxCrashes is how often a message may fail inside us, by a panic, by what cannot be composed or by the end of the process
// that had it in hand. Then it is given up rather than tried for its whole life: it goes to the dead letters, from where
// it can be tried again once the fault is mended.
const maxCrashes = 5

// fault records an attempt that failed by our own fault. It counts, and the next one comes by the usual schedule.
func (d *Dispatcher) fault(it *item, stage, what string) {
	if it.m.Crashes+1 >= maxCrashes {
		d.giveUp(it, fmt.Sprintf("failed inside Postrider %d times, at last in %s: %s", maxCrashes, stage, what))
		return
	}
	f := d.fact(it, sender.Reply{Enhanced: "4.3.0", Stage: stage, Text: "internal error: " + what})
	f.Crashed = true
	d.putOff(it, f, time.Time{})
	d.metrics.attempt(f.State, sender.Outcome{})
	d.save(it, f)
}

// giveUp ends a message as dead: its row says so and why, and so do the dead letters.
func (d *Dispatcher) giveUp(it *item, why string) {
	f := d.fact(it, sender.Reply{Enhanced: "5.3.0", Stage: "queue", Text: why})
	f.State, f.Kind, f.Crashed = sender.Dead, sender.EventDead, true
	d.metrics.attempt(f.State, sender.Outcome{})
	d.cfg.Log.Error("message given up, see postrider jobs dead list", zap.Stringer("message", it.m.ID), zap.String("shard", it.shard), zap.String("reason", why))
	d.save(it, f)
}

// bury puts a dead message on the dead letters. If the queue is away, its row alone tells of it.
func (d *Dispatcher) bury(it *item, why string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	job := jobs.Job{Kind: JobDeliver, Shard: it.shard, IDs: [][16]byte{it.m.ID}}
	if err := d.cfg.Queue.Bury(ctx, job, why, it.m.Crashes+1); err != nil {
		d.cfg.Log.Warn("dead message not on the dead letters, only its row says so", zap.Stringer("message", it.m.ID), zap.Error(err))
	}
}

// paused is about how long a message of a paused account stays away from the dispatcher; a claim passes it by until it goes on.
const paused = 8 * time.Second

// setAside gives back a message whose account was paused while it was in hand, no attempt counted.
func (d *Dispatcher) setAside(it *item) { d.postpone(it, paused) }

// postpone gives back a message at which no attempt was made, to be due after a while at the earliest.
func (d *Dispatcher) postpone(it *item, after time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putAway(it, after)
}
