package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Fairness measures what one account that sends much does to many that send little, in a fresh `postrider dev`: the same
// small traffic alone (phase A) and beside a bulk mailing (phase B), in turns.
type Fairness struct {
	Postrider   string        // the program
	Small       int           // accounts that send now and then
	Rate        float64       // messages a second of them all, at random moments
	Bulk        int           // messages of the mailing; rounded up to whole calls
	Recipients  int           // messages a call of it
	Connections int           // that submit it
	Phase       time.Duration // how long small traffic is measured for
	Rounds      int           // times A and B are run; the table shows medians
	SameDomain  bool          // the mailing goes to the domains that the small ones send to
	Size        int           // bytes of text in a mail
	Timeout     time.Duration // for one call
	Drain       time.Duration // give up on what has not arrived when nothing came for so long
	Settle      time.Duration // wait after the last arrival
	Log         io.Writer     // what is being done, a line each
}

const (
	goalRatio        = 1.5 // p99 of the small ones beside the mailing, times that without it
	fairnessWarmUp   = 2_000
	smallConnections = 50 // at most; the small ones' latency counts from their due time
)

func (f Fairness) check() error {
	switch {
	case f.Rate <= 0:
		return errors.New("--rate must be above 0")
	case f.Bulk < 1:
		return errors.New("--bulk must be above 0")
	case f.Recipients < 1 || f.Recipients > MaxRecipients:
		return fmt.Errorf("--recipients must be between 1 and %d", MaxRecipients)
	case f.Phase < time.Second || f.Phase > time.Hour:
		return errors.New("--seconds must be between 1 and 3600")
	case f.Rounds < 1 || f.Rounds > 100:
		return errors.New("--rounds must be between 1 and 100")
	}
	return nil
}

// fairly is a Fairness at work.
type fairly struct {
	Fairness
	*world
	small, bulk []string // keys
	report      *FigureReport
}

// phases are the reports of all rounds.
type phases struct{ alone, beside, bulk []Report }

// Run sets everything up in a temporary folder, measures, and takes everything down again, also when ctx ends.
func (f Fairness) Run(ctx context.Context) (*FigureReport, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	w, err := newWorld(ctx, f.Postrider, f.Log)
	if err != nil {
		return nil, err
	}
	defer w.close()
	domains := "other"
	if f.SameDomain {
		domains = "the same"
	}
	x := &fairly{Fairness: f, world: w, report: newFigureReport(
		"Fairness: %d accounts with %.0f messages/s in all, alone (A) and beside one with %d (B), to %s domains; median of %d", f.Small, f.Rate, f.Bulk, domains, f.Rounds)}
	keys, err := w.accounts(ctx, f.Small+1)
	if err != nil {
		return nil, err
	}
	x.small, x.bulk = keys[:f.Small], keys[f.Small:]
	var all phases
	if err := x.measure(ctx, &all); err != nil {
		return nil, err
	}
	x.add(all)
	return x.report, nil
}

func (x *fairly) measure(ctx context.Context, all *phases) error {
	x.say("warming up")
	warm := x.smallLoad()
	warm.Rate, warm.Poisson, warm.Duration, warm.Count, warm.Connections = 0, false, 0, fairnessWarmUp, 10
	if _, err := warm.Run(ctx); err != nil {
		return err
	}
	for round := 1; round <= x.Rounds; round++ {
		x.say("round %d of %d: A, %v", round, x.Rounds, x.Phase)
		busy := watch(fmt.Sprintf("A %d", round), x.child.pid())
		rep, err := x.smallLoad().Run(ctx)
		if err != nil {
			return err
		}
		x.report.Phases = append(x.report.Phases, busy())
		all.alone = append(all.alone, rep)
		x.say("round %d of %d: B, %d messages", round, x.Rounds, x.Bulk)
		if err := x.both(ctx, round, all); err != nil {
			return err
		}
	}
	return nil
}

func (x *fairly) smallLoad() Load {
	l := x.load(x.small, popularDomains())
	l.Rate, l.Poisson, l.Duration, l.Connections, l.Recipients = x.Rate, true, x.Phase, smallConnections, 1
	return l
}

func (x *fairly) bulkLoad() Load {
	l := x.load(x.bulk, popularDomains())
	if !x.SameDomain {
		l.Domains = nil
	}
	l.Recipients = min(x.Recipients, x.Bulk)
	l.Connections, l.Count = x.Connections, (x.Bulk+l.Recipients-1)/l.Recipients
	return l
}

func (x *fairly) load(keys, domains []string) Load {
	return Load{
		API: x.ready.API, Keys: keys, From: "bench@example.com", Domains: domains, Size: x.Size,
		Timeout: x.Timeout, Drain: x.Drain, Settle: x.Settle, Sink: x.sink,
	}
}

// both is phase B: the mailing begins, small traffic is measured beside it, and then the rest of the mailing is waited for.
func (x *fairly) both(ctx context.Context, round int, all *phases) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop() // neither goes on without the other
	type outcome struct {
		rep Report
		err error
	}
	done := make(chan outcome, 1)
	bulk, err := newRun(x.bulkLoad())
	if err != nil {
		return err
	}
	busy := watch(fmt.Sprintf("B %d", round), x.child.pid())
	go func() {
		rep, err := bulk.do(ctx)
		done <- outcome{rep, err}
	}()
	rep, err := x.smallLoad().Run(ctx)
	x.report.Phases = append(x.report.Phases, busy())
	if left := bulk.Count*bulk.Recipients - bulk.arrivals.count(); left <= 0 {
		x.report.note("B %d: the mailing had been delivered before the phase ended: a larger --bulk tells more.", round)
	} else {
		x.say("%d messages of the mailing are still to come", left)
	}
	if err != nil {
		stop()
		<-done
		return err
	}
	end := <-done
	all.beside, all.bulk = append(all.beside, rep), append(all.bulk, end.rep)
	return end.err
}

// add turns the reports into figures.
func (x *fairly) add(all phases) {
	for _, m := range []struct {
		name  string
		field func(Report) *float64
		judge bool
	}{
		{"small: accept p50", func(r Report) *float64 { return &r.AcceptP50 }, false},
		{"small: accept p99", func(r Report) *float64 { return &r.AcceptP99 }, true},
		{"small: hand-over to delivery p50", func(r Report) *float64 { return r.E2EP50 }, false},
		{"small: hand-over to delivery p99", func(r Report) *float64 { return r.E2EP99 }, true},
	} {
		alone, beside := median(all.alone, m.field), median(all.beside, m.field)
		factor := maybe(m.name+", B / A", "", ratio(beside, alone))
		if m.judge {
			factor = factor.atMost(goalRatio)
		}
		x.report.add(maybe(m.name+", A", "ms", alone), maybe(m.name+", B", "ms", beside), factor)
	}
	x.report.add(
		maybe("bulk: accepted", "messages/s", median(all.bulk, func(r Report) *float64 { return &r.AcceptedPerS })),
		maybe("bulk: delivered", "messages/s", median(all.bulk, func(r Report) *float64 { return r.DeliveredPerS })),
		maybe("bulk: accept p99", "ms a call", median(all.bulk, func(r Report) *float64 { return &r.AcceptP99 })))
	for _, who := range []struct {
		name    string
		reports []Report
	}{{"small, A", all.alone}, {"small, B", all.beside}, {"bulk", all.bulk}} {
		var accepted, lost, doubles int
		for _, r := range who.reports {
			accepted += r.Accepted
			if r.Lost != nil {
				lost, doubles = lost+*r.Lost, doubles+*r.Duplicates
			}
			x.report.refused(who.name, r)
		}
		x.report.add(
			figure(who.name+": accepted in all", "messages", float64(accepted)).some(),
			figure(who.name+": lost", "messages", float64(lost)).none(),
			figure(who.name+": doubles", "messages", float64(doubles)))
	}
}

// popularDomains is what a mailing list to people looks like: a few providers have most of it, and there is a tail. Their
// number is a prime, so that accounts that send in turns do not meet the same domain each time.
func popularDomains() []string {
	var all []string
	for _, d := range []struct {
		name  string
		share int
	}{{"gmail.com", 19}, {"outlook.com", 8}, {"yahoo.com", 6}, {"hotmail.com", 3}, {"icloud.com", 3}, {"aol.com", 2}} {
		for range d.share {
			all = append(all, d.name)
		}
	}
	for i := range 6 {
		all = append(all, "tail"+strconv.Itoa(i)+".test")
	}
	return all
}
