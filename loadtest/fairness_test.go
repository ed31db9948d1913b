package loadtest

import (
	"os"
	"testing"
	"time"
)

func testFairness(t *testing.T) Fairness {
	t.Setenv("LOADTEST_PLAY", "postrider") // os.Args[0] now plays it
	return Fairness{
		Postrider: os.Args[0], Small: 5, Rate: 50, Bulk: 100, Recipients: 9, Connections: 2, Phase: time.Second, Rounds: 1, SameDomain: true,
		Size: 200, Timeout: 10 * time.Second, Drain: 5 * time.Second, Settle: 20 * time.Millisecond,
	}
}

func TestFairnessFromStartToEnd(t *testing.T) {
	before := len(leftovers(t))
	rep, err := testFairness(t).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep.Bad() != "" {
		t.Errorf("bad: %s", rep.Bad())
	}
	// The moments are random, but the same in both phases.
	a, b := *find(t, rep, "small, A: accepted in all").Value, *find(t, rep, "small, B: accepted in all").Value
	if a < 20 || a > 80 || a != b || *find(t, rep, "bulk: accepted in all").Value != 108 {
		t.Errorf("A %v, B %v: %+v", a, b, rep.Figures)
	}
	alone, beside := find(t, rep, "small: accept p99, A"), find(t, rep, "small: accept p99, B")
	if f := find(t, rep, "small: accept p99, B / A"); *f.Value != round(*beside.Value / *alone.Value) || *f.OK != (*f.Value <= goalRatio) {
		t.Errorf("%+v of %+v and %+v", f, beside, alone)
	}
	if len(rep.Phases) != 2 || len(rep.Notes) != 1 { // the small system is through with the mailing in no time, and says so
		t.Errorf("%+v, %q", rep.Phases, rep.Notes)
	}
	if n := len(leftovers(t)); n != before {
		t.Errorf("left %d folders", n-before)
	}
}

func TestFairnessFindsLostMail(t *testing.T) {
	x := &fairly{report: newFigureReport("test")}
	ok := Report{Accepted: 5, Lost: ref(0), Duplicates: ref(0)}
	x.add(phases{alone: []Report{ok, ok}, beside: []Report{ok, ok}, bulk: []Report{ok, {Accepted: 5, Lost: ref(2), Duplicates: ref(1)}}})
	if got := x.report.Bad(); got != "bulk: lost: 2" {
		t.Errorf("bad: %q", got)
	}
}

func TestPopularDomains(t *testing.T) {
	all := popularDomains()
	if len(all) != 47 {
		t.Errorf("%d: not the prime that it should be", len(all))
	}
	m := newMail("r", Load{Domains: all})
	if got := string(m.appendRecipient(nil, 47)); got != "user47@gmail.com" {
		t.Error(got)
	}
	if got := string(m.appendRecipient(nil, 46)); got != "user46@tail5.test" {
		t.Error(got)
	}
}
