package loadtest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoadThroughRealPostfix(t *testing.T) {
	path, err := findPostfix()
	if err != nil {
		t.Skip(err)
	}
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sink := startSink(t)
	p, err := startPostfix(t.Context(), path, dir, sink.Addr(), postfixTuned)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	l := testLoad(sink)
	l.Keys, l.SMTP, l.Recipients, l.Meter = nil, p.addr, 2, Meter{PIDs: []int{p.child.pid()}, Count: true}
	rep, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep.Over != "smtp" || rep.Accepted != 400 || *rep.Delivered != 400 || *rep.Lost != 0 || *rep.Duplicates != 0 || *rep.CPU < 100 {
		t.Fatalf("%+v", rep)
	}
	p.stop()
	// The services have the listening socket too and end a moment after their master.
	deadline, tick := time.After(10*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return
		}
		c.Close()
		select {
		case <-deadline:
			t.Fatal("still there 10 s after its end")
		case <-tick.C:
		}
	}
}

func testBench(t *testing.T) Bench {
	t.Setenv("LOADTEST_PLAY", "postrider") // os.Args[0] now plays it
	return Bench{
		Postrider: os.Args[0], Accounts: 9, Size: 500, Cases: []BenchCase{{1, 30}, {5, 100}}, WarmUp: 20, Rounds: 2, Postfix: "plain",
		Timeout: 10 * time.Second, Drain: 10 * time.Second, Settle: 20 * time.Millisecond,
	}
}

func leftovers(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/var/tmp/loadtest-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestBenchFromStartToEnd(t *testing.T) {
	before := len(leftovers(t))
	b := testBench(t)
	b.Signed = true
	rep, err := b.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, peerMissing := findPostfix()
	rows, ratios := 10, 8
	if peerMissing != nil {
		rows, ratios = 6, 4
	} else if rep.Rows[4].Absent != "" {
		ratios = 6
	}
	if len(rep.Rows) != rows || len(rep.Ratios) != ratios || rep.Bad() != "" {
		t.Fatalf("%+v", rep)
	}
	for i, r := range rep.Rows {
		if r.System == signedPostfix && r.Absent != "" {
			continue
		}
		if want := []int{0, 2, 1, 0, 1}[i%(rows/2)]; r.Signatures != want || r.WrongSigned != 0 {
			t.Errorf("%d signatures expected of %s, want %d; %d others", r.Signatures, r.System, want, r.WrongSigned)
		}
		if r.DeliveredPerS == nil || *r.DeliveredPerS <= 0 || r.CPU == nil || r.Failed != 0 {
			t.Errorf("%+v", r)
		}
	}
	var out bytes.Buffer
	rep.Print(&out)
	if !strings.Contains(out.String(), "postrider http") {
		t.Error(out.String())
	}
	if n := len(leftovers(t)); n != before {
		t.Errorf("left %d folders", n-before)
	}
}

func TestBenchFailsWhenMailIsNotSigned(t *testing.T) {
	b := testBench(t)
	b.Cases, b.Rounds, b.Postfix, b.Signed = b.Cases[:1], 1, "none", true
	t.Setenv("LOADTEST_FAULT", "unsigned")
	rep, err := b.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := "postrider rsa+ed25519 delivered 30 messages at 1 connections that do not carry 2 DKIM-Signature fields"; rep.Bad() != want {
		t.Errorf("%q, want %q", rep.Bad(), want)
	}
}

// TestBenchWithoutOpendkim says so in its place, and compares the rest.
func TestBenchWithoutOpendkim(t *testing.T) {
	runs := map[BenchCase]map[string][]benchRun{{50, 1}: {}}
	for name, speed := range map[string]float64{plainPostrider: 100, signedPostrider: 60, ed25519Postrider: 89, plainPostfix: 10} {
		runs[BenchCase{50, 1}][name] = []benchRun{{Report: Report{Over: "x", DeliveredPerS: &speed}}}
	}
	systems := []benched{{name: plainPostrider}, {name: signedPostrider}, {name: ed25519Postrider}, {name: plainPostfix}, {name: signedPostfix, absent: "not installed"}}
	rep := newBenchReport(Bench{Cases: []BenchCase{{50, 1}}}, systems, runs, nil)
	var out bytes.Buffer
	rep.Print(&out)
	for _, want := range []string{"postfix+opendkim     50  not installed", "postrider: 10.00 times", "ed25519: 0.60 times the messages a second of postrider, - times the CPU a message\n",
		"postrider ed25519: 0.89 times the messages a second of postrider, - times the CPU a message (goal for messages ≥ 0.9: MISSED)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if rep.Bad() != "" || len(rep.Ratios) != 3 {
		t.Errorf("%q, %d ratios", rep.Bad(), len(rep.Ratios))
	}
}

func TestBenchInterrupted(t *testing.T) {
	before := len(leftovers(t))
	b := testBench(t)
	b.Cases, b.Postfix = []BenchCase{{5, 1_000_000}}, "none"
	ctx, cancel := context.WithCancel(t.Context())
	b.Log = onLine{"round 1", cancel}
	if _, err := b.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := len(leftovers(t)); n != before {
		t.Errorf("left %d folders", n-before)
	}
}

// onLine calls a function when a line begins with a text.
type onLine struct {
	text string
	call func()
}

func (o onLine) Write(b []byte) (int, error) {
	if bytes.HasPrefix(b, []byte(o.text)) {
		o.call()
	}
	return len(b), nil
}

func TestBenchSaysWhyASystemDoesNotStart(t *testing.T) {
	b := testBench(t)
	b.Postrider = "/bin/false"
	if _, err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "postrider ended at its start") {
		t.Fatal(err)
	}
}

func TestMedian(t *testing.T) {
	field := func(r Report) *float64 { return r.CPU }
	if median([]Report{{}, {}}, field) != nil {
		t.Error("a median of nothing")
	}
	odd := []Report{{CPU: ref(9.)}, {}, {CPU: ref(1.)}, {CPU: ref(2.)}}
	if got := *median(odd, field); got != 2 {
		t.Errorf("median %v", got)
	}
	if got := *median(odd[:3], field); got != 5 {
		t.Errorf("median %v", got)
	}
}
