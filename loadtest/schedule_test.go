package loadtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func testSchedule(t *testing.T, fault string) Schedule {
	t.Setenv("LOADTEST_PLAY", "postrider") // os.Args[0] now plays it
	t.Setenv("LOADTEST_FAULT", fault)
	return Schedule{
		Postrider: os.Args[0], Accounts: 3, Pending: 50, Recipients: 7, Due: 40, Slot: 2 * time.Second, Lead: 1500 * time.Millisecond, AtOnce: true, Cancel: 20, Connections: 2,
		Size: 200, Timeout: 10 * time.Second, Drain: 5 * time.Second, Settle: 20 * time.Millisecond,
	}
}

func find(t *testing.T, rep *FigureReport, name string) Figure {
	t.Helper()
	for _, f := range rep.Figures {
		if f.Name == name && f.Value != nil {
			return f
		}
	}
	t.Fatalf("no figure %q in %+v", name, rep.Figures)
	return Figure{}
}

func TestScheduleFromStartToEnd(t *testing.T) {
	before := len(leftovers(t))
	rep, err := testSchedule(t, "").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep.Bad() != "" {
		t.Errorf("bad: %s", rep.Bad())
	}
	for name, want := range map[string]float64{
		"pending: accepted": 56, "spread: accepted": 42, "at once: accepted": 52, "cancel: cancelled": 20, "cancel: sent": 0,
		"memory: process_resident_memory_bytes, after": 40.054,
	} {
		if got := *find(t, rep, name).Value; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	// Who wins in the last moment is open; somebody does.
	if n := *find(t, rep, "cancel in the last moment: cancelled").Value + *find(t, rep, "cancel in the last moment: sent").Value; n != 20 {
		t.Errorf("%v of 20 cancelled or sent", n)
	}
	// The last second's messages leave a second after the first's, and lateness counts from their own time.
	if speed, late := *find(t, rep, "spread: fired").Value, *find(t, rep, "spread: late, p99").Value; speed > 42 || late <= 0 || late > 900 {
		t.Errorf("fired %v/s, late %v ms", speed, late)
	}
	if len(rep.Phases) != 7 || rep.Phases[0].System == nil {
		t.Errorf("phases %+v", rep.Phases)
	}
	var out bytes.Buffer
	rep.Print(&out)
	if !strings.Contains(out.String(), "cancel: cancelled but sent ") {
		t.Error(out.String())
	}
	if n := len(leftovers(t)); n != before {
		t.Errorf("left %d folders", n-before)
	}
}

func TestScheduleTellsOnWhatIsWrong(t *testing.T) {
	rep, err := testSchedule(t, "early and deaf").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"spread: early", "at once: early", "cancel: cancelled but sent", "cancel in the last moment: cancelled but sent"} {
		if f := find(t, rep, name); *f.Value == 0 || *f.OK || !strings.Contains(rep.Bad(), name) {
			t.Errorf("%+v does not show in %q", f, rep.Bad())
		}
	}
}

func TestScheduleInterrupted(t *testing.T) {
	before := len(leftovers(t))
	s := testSchedule(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	s.Log = onLine{"spread", cancel}
	if _, err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := len(leftovers(t)); n != before {
		t.Errorf("left %d folders", n-before)
	}
}

func TestCallsAreSpreadOverTheMonth(t *testing.T) {
	now := time.Now()
	seen, late := map[time.Time]bool{}, 0
	for seq := range 1000 {
		at := ahead(now, seq)
		if d := at.Sub(now); d < soonest-time.Second || d > latest || !at.Equal(at.Truncate(time.Second)) {
			t.Fatalf("call %d is for %v", seq, d)
		} else if d > latest/2 {
			late++
		}
		seen[at] = true
	}
	if len(seen) < 990 || late < 400 || late > 600 {
		t.Errorf("%d different times, %d of 1000 in the second half", len(seen), late)
	}
}

func TestIDsOfARunAreInTheOrderOfItsMessages(t *testing.T) {
	l := &idList{all: make([]string, 4)}
	l.add(submission{first: 2}, []byte(`[{"_id":"c"},{"_id":"d"}]`))
	if l.complete(4) == nil {
		t.Error("half the ids pass for all")
	}
	l.add(submission{first: 0}, []byte(`[{"_id":"a"},{"_id":"b"}]`))
	if err := l.complete(4); err != nil || strings.Join(l.all, "") != "abcd" {
		t.Errorf("%v, %v", l.all, err)
	}
	if l.complete(3) == nil {
		t.Error("ids of more messages than were accepted")
	}
}
