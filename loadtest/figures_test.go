package loadtest

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestFiguresAndTheirGoals(t *testing.T) {
	for _, c := range []struct {
		f       Figure
		verdict string
		bad     string
	}{
		{figure("a", "s", 1), "", ""},
		{figure("a", "s", 5).atLeast(5), "ok", ""},
		{figure("a", "s", 4.9).atLeast(5), "MISSED", ""},
		{figure("a", "s", 5).atMost(5), "ok", ""},
		{figure("a", "s", 5.1).atMost(5), "MISSED", ""},
		{maybe("a", "s", nil).atMost(5), "not known", ""},
		{figure("a", "s", 0).none(), "ok", ""},
		{figure("a", "s", 2).none(), "MISSED", "a: 2"},
		{figure("a", "s", -1).none(), "MISSED", "a: -1"},
		{maybe("a", "s", nil).none(), "not known", "a: -"},
		{figure("a", "s", 0).some(), "MISSED", "a: 0"},
	} {
		r := newFigureReport("test")
		r.add(c.f)
		if c.f.verdict() != c.verdict || r.Bad() != c.bad {
			t.Errorf("%+v: %q, bad %q", c.f, c.f.verdict(), r.Bad())
		}
	}
	r := newFigureReport("On %d", 7)
	r.add(figure("speed", "calls/s", 4321.9).atLeast(5000))
	r.Phases = append(r.Phases, Busy{Phase: "all", Seconds: 2, Load: .25})
	r.note("a note")
	var out bytes.Buffer
	r.Print(&out)
	for _, want := range []string{"On 7\n", "4322 calls/s  ≥ 5000  MISSED\n", "all    2.0      -          0.25      -\n", "a note\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestMachineCPU(t *testing.T) {
	got, err := parseMachine("cpu  100 20 30 5000 600 7 8 9 0 0\ncpu0 1 2 3\n")
	if want := (100 + 20 + 30 + 7 + 8 + 9) * 10 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu a b c d e f g h"} {
		if _, err := parseMachine(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestWatchSeesAChildAtWork(t *testing.T) {
	pid, step := startBurner(t)
	stop := watch("burn", pid)
	step()
	b := stop()
	if b.System == nil || *b.System*b.Seconds < .14 || b.Others == nil || b.Phase != "burn" {
		t.Errorf("%+v", b)
	}
}
