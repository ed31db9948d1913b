package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Schedule measures the scheduled sends of a fresh `postrider dev`: how fast they are taken, what a queue of them takes
// up, how punctually they leave with the queue full, how fast they are cancelled and listed. Whether one was lost, sent
// twice, early or though cancelled is seen at the sink.
type Schedule struct {
	Postrider   string        // the program
	Accounts    int           // that schedule, in turns
	Pending     int           // messages between an hour and 30 days ahead, which stay in the queue all the time
	Recipients  int           // messages a call of these
	Due         int           // messages of a slot; rounded up to whole calls
	Slot        time.Duration // over whose seconds they are spread
	Lead        time.Duration // a slot lies at least so far ahead, and farther the more it has
	AtOnce      bool          // measure also a slot whose messages are all due in the same second
	Cancel      int           // messages to cancel; rounded up to whole calls
	Connections int           // of the senders
	Size        int           // bytes of text in a mail
	Timeout     time.Duration // for one call
	Drain       time.Duration // give up on what has not arrived when nothing came for so long
	Settle      time.Duration // wait after the last arrival, for doubles and for what must not come
	Log         io.Writer     // what is being done, a line each
}

// The goals, on two cores that the load shares.
const (
	goalAccepted  = 5_000 // messages a second
	goalQueue     = 512   // MB that the queue may add to the memory of all processes
	goalFired     = 5_000 // messages a second
	goalLate      = 1_000 // ms behind a message's own time, p99
	goalCancelled = 5_000 // calls a second
	goalListed    = 20    // ms for the first page, p99
)

const (
	soonest         = time.Hour
	latest          = 30 * 24 * time.Hour
	cancelBatch     = 100 // messages a call of those that are cancelled
	cancelAtOnce    = 50  // connections that cancel
	listings        = 100 // calls of list-scheduled
	scheduleWarmUp  = 2_000
	assumedAccepted = 2_000 // messages a second that a slot lies so far ahead for
)

func (s Schedule) check() error {
	switch {
	case s.Pending < 1 || s.Due < 1 || s.Cancel < 1:
		return errors.New("--pending, --due and --cancel must be above 0")
	case s.Pending+s.Due+s.Cancel > maxSerials/4:
		return fmt.Errorf("--pending, --due and --cancel must be at most %d in all", maxSerials/4)
	case s.Recipients < 1 || s.Recipients > MaxRecipients:
		return fmt.Errorf("--recipients must be between 1 and %d", MaxRecipients)
	case s.Lead < time.Second || s.Lead > time.Hour:
		return errors.New("--lead must be between 1s and 1h")
	case s.Slot < time.Second || s.Slot > time.Hour:
		return errors.New("--slot must be between 1s and 1h")
	}
	return nil
}

// scheduling is a Schedule at work.
type scheduling struct {
	Schedule
	*world
	keys   []string
	report *FigureReport
}

// Run sets everything up in a temporary folder, measures, and takes everything down again, also when ctx ends.
func (s Schedule) Run(ctx context.Context) (*FigureReport, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	w, err := newWorld(ctx, s.Postrider, s.Log)
	if err != nil {
		return nil, err
	}
	defer w.close()
	x := &scheduling{Schedule: s, world: w, report: newFigureReport(
		"Scheduled sends: %d accounts, %d bytes of text, %d pending in calls of %d, slots of %v", s.Accounts, s.Size, s.Pending, s.Recipients, s.Slot)}
	if x.keys, err = w.accounts(ctx, s.Accounts); err != nil {
		return nil, err
	}
	return x.report, x.measure(ctx)
}

func (x *scheduling) measure(ctx context.Context) error {
	x.say("warming up")
	warm := x.load(scheduleWarmUp, 1)
	warm.Sink = x.sink
	if _, err := warm.Run(ctx); err != nil {
		return err
	}
	pending, err := x.fill(ctx)
	if err != nil {
		return err
	}
	if err := x.fire(ctx, "spread", false); err != nil {
		return err
	}
	if x.AtOnce {
		if err := x.fire(ctx, "at once", true); err != nil {
			return err
		}
	}
	if err := x.cancels(ctx); err != nil {
		return err
	}
	if err := x.list(ctx); err != nil {
		return err
	}
	x.report.add(figure("pending: sent before their time", "messages", float64(x.sink.tally.open(pending).count())).none())
	return nil
}

// load is what all phases have in common: count messages, so many a call.
func (x *scheduling) load(count, recipients int) Load {
	return Load{
		API: x.ready.API, Keys: x.keys, From: "bench@example.com", Size: x.Size, Recipients: recipients, Count: (count + recipients - 1) / recipients,
		Connections: x.Connections, Timeout: x.Timeout, Drain: x.Drain, Settle: x.Settle,
	}
}

// fill makes the queue that the rest is measured with, and returns its run's name.
func (x *scheduling) fill(ctx context.Context) (string, error) {
	before, err := x.measureRoom(ctx)
	if err != nil {
		return "", err
	}
	x.say("scheduling %d messages", x.Pending)
	load, now := x.load(x.Pending, min(x.Recipients, x.Pending)), time.Now()
	load.SendAt = func(seq int) time.Time { return ahead(now, seq) }
	busy := watch("accept pending", x.child.pid())
	rep, err := load.Run(ctx)
	if err != nil {
		return "", err
	}
	x.report.Phases = append(x.report.Phases, busy())
	after, err := x.measureRoom(ctx)
	if err != nil {
		return "", err
	}
	x.report.refused("pending", rep)
	x.report.add(
		figure("pending: accepted", "messages", float64(rep.Accepted)).some(),
		figure("pending: speed", "messages/s", rep.AcceptedPerS).atLeast(goalAccepted),
		figure("pending: answer p99", "ms a call", rep.AcceptP99))
	x.reportRoom(before, after, rep.Accepted)
	return rep.Run, nil
}

// ahead spreads the calls between an hour and 30 days, neighbours far apart.
func ahead(now time.Time, seq int) time.Time {
	const steps = 1_000_003 // a prime
	step := int(latest-soonest) / steps
	return now.Add(soonest + time.Duration(seq*618_034%steps*step)).Truncate(time.Second)
}

func (x *scheduling) reportRoom(before, after room, messages int) {
	megabytes := func(name string, n int64) Figure { return figure(name, "MB", float64(n)/(1<<20)) }
	x.report.add(
		megabytes("memory: all processes, before", before.own),
		megabytes("memory: all processes, after", after.own),
		megabytes("memory: what the queue added", after.own-before.own).atMost(goalQueue),
		megabytes("memory: Postgres's shared cache, before", before.cache),
		megabytes("memory: Postgres's shared cache, after", after.cache),
		megabytes("memory: RSS of all processes added up, before", before.all),
		megabytes("memory: RSS of all processes added up, after", after.all))
	x.report.note("memory: all processes = PSS of postrider and its Postgres servers without Postgres's shared cache, which has a fixed size and fills with any work; pages shared by processes count once, in the added up RSS in each.")
	for _, p := range []struct {
		name          string
		before, after *int64
	}{{"memory: process_resident_memory_bytes", before.resident, after.resident}, {"disk: the queue's folder", before.queue, after.queue}, {"disk: Postgres's folders", before.rows, after.rows}} {
		if p.before != nil && p.after != nil {
			x.report.add(megabytes(p.name+", before", *p.before), megabytes(p.name+", after", *p.after))
		}
	}
	if before.rows != nil && after.rows != nil && messages > 0 {
		x.report.add(figure("disk: Postgres's folders, WAL too", "bytes a message", float64(*after.rows-*before.rows)/float64(messages)))
	}
}

// list measures the first page of an account that has many pending.
func (x *scheduling) list(ctx context.Context) error {
	x.say("listing")
	load := x.load(listings, 1)
	load.Connections = 1
	load.target = callTarget(x.ready.API, "messages/list-scheduled", func(b []byte, _ submission) []byte {
		return append(append(append(b, `{"key":"`...), x.keys[0]...), `"}`...)
	})
	rep, err := load.Run(ctx)
	if err != nil {
		return err
	}
	x.report.refused("list", rep)
	x.report.add(
		figure(fmt.Sprintf("list: %d of %d pending, p50", min(1000, x.Pending/x.Accounts), x.Pending/x.Accounts), "ms", rep.AcceptP50),
		figure("list: p99", "ms", rep.AcceptP99).atMost(goalListed))
	return nil
}
