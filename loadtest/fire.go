package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// fire schedules the messages of one slot and watches them arrive.
func (x *scheduling) fire(ctx context.Context, name string, atOnce bool) error {
	seconds := int(x.Slot / time.Second)
	if atOnce {
		seconds = 1
	}
	load := x.load(x.Due, min(MaxRecipients, max(1, x.Due/(seconds*x.Accounts))))
	slot := x.slotFor(load.Count * load.Recipients)
	// Accounts take turns by call, seconds by round of all accounts.
	load.SendAt = func(seq int) time.Time { return slot.Add(time.Duration(seq/x.Accounts%seconds) * time.Second) }
	x.say("%s: scheduling %d messages from %s on", name, load.Count*load.Recipients, slot.Format(time.TimeOnly))
	busy := watch(name+": accept", x.child.pid())
	run, rep, err := load.do(ctx)
	if err != nil {
		return err
	}
	x.report.Phases = append(x.report.Phases, busy())
	if late := time.Since(slot); late > 0 {
		x.report.note("%s: accepting took %.1f s longer than to the slot: the lateness is that of a slow accept.", name, late.Seconds())
	}
	if !pause(ctx, time.Until(slot)) {
		return ctx.Err()
	}
	x.say("%s: waiting for them", name)
	busy = watch(name+": fire", x.child.pid())
	arrived := x.sink.tally.open(run.name)
	arrived.wait(ctx, x.Drain, func() bool { return arrived.missing(&run.accepted) == 0 })
	x.report.Phases = append(x.report.Phases, busy())
	if !pause(ctx, x.Settle) {
		return ctx.Err()
	}
	x.report.refused(name, rep)
	x.reportFired(name, run, rep, arrived, slot, atOnce)
	return nil
}

// slotFor is a whole second far enough ahead for so many messages to be accepted before.
func (x *scheduling) slotFor(messages int) time.Time {
	lead := x.Lead + time.Duration(messages)*time.Second/assumedAccepted
	return time.Now().Add(lead).Truncate(time.Second)
}

func (x *scheduling) reportFired(name string, run *run, rep Report, a *arrivals, slot time.Time, atOnce bool) {
	missing := a.missing(&run.accepted)
	a.mu.Lock()
	defer a.mu.Unlock()
	speed, late := Figure{Name: name + ": fired", Unit: "messages/s"}, figure(name+": late, p99", "ms", millis(a.latency.quantile(.99)))
	if took := a.last.Sub(slot); a.count() > 0 && took > 0 {
		speed = figure(speed.Name, speed.Unit, float64(a.count())/took.Seconds())
	}
	if atOnce { // lateness is then the length of the queue, and speed the figure that counts
		speed = speed.atLeast(goalFired)
	} else {
		late = late.atMost(goalLate)
	}
	x.report.add(
		figure(name+": accepted", "messages", float64(rep.Accepted)).some(),
		figure(name+": accept speed", "messages/s", rep.AcceptedPerS),
		speed,
		figure(name+": late, p50", "ms", millis(a.latency.quantile(.5))),
		late,
		figure(name+": late, at most", "ms", millis(a.latency.largest)),
		figure(name+": missing", "messages", float64(missing)).none(),
		figure(name+": doubles", "messages", float64(a.duplicates)).none(),
		figure(name+": early", "messages", float64(a.early)).none())
}

// cancels measures how fast messages are cancelled well before their time, and then against the clock.
func (x *scheduling) cancels(ctx context.Context) error {
	ample := 2*x.Lead + time.Duration(x.Cancel)*time.Second/500
	if err := x.cancel(ctx, "cancel", ample, 0); err != nil {
		return err
	}
	return x.cancel(ctx, "cancel in the last moment", x.Lead+time.Duration(x.Cancel)*time.Second/assumedAccepted, 200*time.Millisecond)
}

// cancel schedules messages for one second and cancels each of them: at once, or from so long before their time. One
// whose cancelling was refused must arrive.
func (x *scheduling) cancel(ctx context.Context, name string, lead, before time.Duration) error {
	load := x.load(x.Cancel, min(cancelBatch, x.Cancel))
	slot := time.Now().Add(lead).Truncate(time.Second)
	x.say("%s: %d messages that are due at %s", name, load.Count*load.Recipients, slot.Format(time.TimeOnly))
	load.SendAt = func(int) time.Time { return slot }
	ids := &idList{all: make([]string, load.Count*load.Recipients)}
	load.seen = ids.add
	taken, rep, err := load.do(ctx)
	if err != nil {
		return err
	}
	x.report.refused(name+": schedule", rep)
	if err := ids.complete(rep.Accepted); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if before > 0 && !pause(ctx, time.Until(slot.Add(-before))) {
		return ctx.Err()
	}
	cancelled, rep, err := x.cancelAll(ctx, name, ids, load.Recipients)
	if err != nil {
		return err
	}
	if before == 0 {
		x.report.refused(name, rep)
		x.report.add(
			figure(name+": speed", "calls/s", rep.AcceptedPerS).atLeast(goalCancelled),
			figure(name+": answer p50", "ms", rep.AcceptP50),
			figure(name+": answer p99", "ms", rep.AcceptP99))
	}
	if !pause(ctx, time.Until(slot)) {
		return ctx.Err()
	}
	x.reportCancelled(ctx, name, taken, cancelled)
	return ctx.Err()
}

// cancelAll calls cancel-scheduled for each id; the submissions of its run have the messages' numbers.
func (x *scheduling) cancelAll(ctx context.Context, name string, ids *idList, batch int) (*run, Report, error) {
	load := x.load(len(ids.all), 1)
	load.Connections = cancelAtOnce
	load.target = callTarget(x.ready.API, "messages/cancel-scheduled", func(b []byte, s submission) []byte {
		b = append(append(b, `{"key":"`...), x.keys[s.seq/batch%len(x.keys)]...)
		return append(append(append(b, `","id":"`...), ids.all[s.seq]...), `"}`...)
	})
	busy := watch(name, x.child.pid())
	run, rep, err := load.do(ctx)
	if err == nil {
		x.report.Phases = append(x.report.Phases, busy())
	}
	return run, rep, err
}

func (x *scheduling) reportCancelled(ctx context.Context, name string, taken, cancelled *run) {
	arrived := x.sink.tally.open(taken.name)
	// What is neither cancelled nor there: all that is not there, less what is cancelled and not there.
	neither := func() int { return arrived.missing(&taken.accepted) - arrived.missing(&cancelled.accepted) }
	arrived.wait(ctx, x.Drain, func() bool { return neither() <= 0 })
	pause(ctx, x.Settle) // for what must not come
	both := cancelled.accepted.count() - arrived.missing(&cancelled.accepted)
	x.report.add(
		figure(name+": cancelled", "messages", float64(cancelled.accepted.count())),
		figure(name+": sent", "messages", float64(arrived.count())),
		figure(name+": cancelled but sent", "messages", float64(both)).none(),
		figure(name+": neither cancelled nor sent", "messages", float64(neither())).none(),
		figure(name+": doubles", "messages", float64(arrived.stats().Duplicates)).none())
}

// idList gathers the ids of the messages of a run, by their numbers.
type idList struct {
	mu  sync.Mutex
	all []string
	n   int
}

func (l *idList) add(s submission, text []byte) {
	var answer []struct {
		ID string `json:"_id"`
	}
	if json.Unmarshal(text, &answer) != nil { // complete tells
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, a := range answer {
		if at := s.first + i; at < len(l.all) && plain(a.ID) {
			l.all[at], l.n = a.ID, l.n+1
		}
	}
}

func (l *idList) complete(accepted int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n != len(l.all) || accepted != len(l.all) {
		return fmt.Errorf("%d of %d messages were accepted, and the ids of %d are known: nothing to measure with", accepted, len(l.all), l.n)
	}
	return nil
}
