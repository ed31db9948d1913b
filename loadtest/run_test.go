package loadtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRunDeliversEverything(t *testing.T) {
	sink := startSink(t)
	_, url := startSystem(t, sink)
	l := testLoad(sink)
	l.API, l.Recipients = url, 3
	rep, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep.Bad() != "" || rep.Submissions != 200 || rep.Accepted != 600 || rep.Failed != 0 || *rep.Delivered != 600 || *rep.Lost != 0 || *rep.Duplicates != 0 {
		t.Fatalf("%+v", rep)
	}
	if rep.AcceptP50 <= 0 || rep.AcceptP99 < rep.AcceptP50 || rep.AcceptMax < rep.AcceptP99 || *rep.E2EP50 <= 0 || *rep.DeliveredPerS <= 0 || rep.LoadCPU <= 0 {
		t.Fatalf("%+v", rep)
	}
	if rep.CPU != nil || rep.FSyncs != nil {
		t.Error("knows the cost of what it does not measure")
	}
}

func TestRunFindsLostDuplicatesAndRejected(t *testing.T) {
	sink := startSink(t)
	system, url := startSystem(t, sink)
	system.lose = map[string]bool{"user7@d7.sink.test": true, "user21@d1.sink.test": true, "user199@d19.sink.test": true}
	system.twice = map[string]bool{"user9@d9.sink.test": true}
	system.reject = map[string]bool{"user11@d11.sink.test": true, "user12@d12.sink.test": true}
	l := testLoad(sink)
	l.API, l.Drain = url, 300*time.Millisecond
	rep, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if *rep.Lost != 3 || *rep.Duplicates != 1 || rep.Accepted != 198 || rep.Failed != 2 || *rep.Delivered != 195 {
		t.Fatalf("%+v", rep)
	}
	if rep.Failures[0].Status != "200" || !strings.Contains(rep.Failures[0].First, "rejected") || !strings.Contains(rep.Bad(), "3 messages") {
		t.Fatalf("%+v, %s", rep.Failures, rep.Bad())
	}
	var out bytes.Buffer
	rep.Print(&out)
	for _, want := range []string{"lost            3\n", "a message cost  - µs CPU, - fsyncs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestOpenLoopRunTakesItsTime(t *testing.T) {
	sink := startSink(t)
	_, url := startSystem(t, sink)
	l := testLoad(sink)
	var progress bytes.Buffer
	l.API, l.Rate, l.Count, l.Duration, l.Progress = url, 100, 0, 1100*time.Millisecond, &progress
	rep, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep.Accepted != 110 || rep.Seconds < 1 {
		t.Fatalf("%+v", rep)
	}
	if !strings.HasPrefix(progress.String(), "accepted ") {
		t.Errorf("progress %q", progress.String())
	}
}

func TestInterruptedRunReportsWhatItHas(t *testing.T) {
	sink := startSink(t)
	_, url := startSystem(t, sink)
	l := testLoad(sink)
	ctx, cancel := context.WithCancel(t.Context())
	l.API, l.Count, l.Duration = url, 0, time.Hour
	time.AfterFunc(200*time.Millisecond, cancel)
	rep, err := l.Run(ctx)
	if !errors.Is(err, context.Canceled) || rep.Accepted == 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
}

func TestSystemThatGoesDown(t *testing.T) {
	l := testLoad(nil)
	l.API, l.Connections, l.Count = rawHTTP(t, "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n[{\"status\":\"queued\"}]"), 1, 3
	rep, err := l.Run(t.Context())
	if err != nil || rep.Accepted != 1 || rep.Failed != 2 {
		t.Fatalf("%v, %+v", err, rep)
	}
	if rep.Lost != nil || rep.Delivered != nil || rep.Bad() != "" {
		t.Error("knows arrivals without a sink")
	}
}

func TestRunRefusesWhatItCannotDo(t *testing.T) {
	good := testLoad(nil)
	good.API = "http://127.0.0.1:1"
	for name, spoil := range map[string]func(*Load){
		"no target":      func(l *Load) { l.API = "" },
		"no key":         func(l *Load) { l.Keys = nil },
		"odd key":        func(l *Load) { l.Keys = []string{"a\"b"} },
		"no end":         func(l *Load) { l.Count = 0 },
		"many":           func(l *Load) { l.Count, l.Recipients = maxSerials, 2 },
		"--connections":  func(l *Load) { l.Connections = 0 },
		"random moments": func(l *Load) { l.Poisson = true },
		"by HTTP only":   func(l *Load) { l.SMTP, l.SendAt = "x", func(int) time.Time { return time.Time{} } },
		"froms by SMTP":  func(l *Load) { l.SMTP, l.Froms = "x", []string{"a@b.c", "d@e.f"} },
		"froms of some":  func(l *Load) { l.Froms = []string{"a@b.c"} },
		"odd froms":      func(l *Load) { l.Froms = []string{"a@b.c", "d e"} },
		"plain name":     func(l *Load) { l.Domains = []string{"a b"} },
		"--recipients":   func(l *Load) { l.Recipients = MaxRecipients + 1 },
		"--size":         func(l *Load) { l.Size = MaxBody + 1 },
		"--rate":         func(l *Load) { l.Rate = -1 },
		"--from":         func(l *Load) { l.From = "a\r\nb" },
		"--timeout":      func(l *Load) { l.Timeout = 0 },
		"bad address":    func(l *Load) { l.API = "https://x" },
		"nobody there":   func(*Load) {},
		"no process":     func(l *Load) { l.API = rawHTTP(t); l.Connections = 1; l.Meter.PIDs = []int{1 << 30} },
	} {
		l := good
		spoil(&l)
		if _, err := l.Run(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadKeysAndReadyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# keys\nabc\n\n  def \n")
	if keys, err := ReadKeys(file); err != nil || strings.Join(keys, ",") != "abc,def" {
		t.Errorf("%v, %v", keys, err)
	}
	write("\n")
	if _, err := ReadKeys(file); err == nil {
		t.Error("an empty file passes for keys")
	}
	write(`{"version":"1","pid":7,"config":"c","api":"http://h:1","smtp":"h:2","key":"k","metrics":"m","elasticsearch":null}`)
	if r, err := ReadReady(file); err != nil || r != (Ready{PID: 7, Config: "c", API: "http://h:1", SMTP: "h:2", Key: "k", Metrics: "m"}) {
		t.Errorf("%+v, %v", r, err)
	}
	write("{")
	if _, err := ReadReady(file); err == nil {
		t.Error("half a ready file passes")
	}
	if _, err := MakeAccounts(t.Context(), "/no/such/program", "c", 3); err == nil {
		t.Error("accounts out of nothing")
	}
}

func TestScheduledMessagesCountFromTheirTime(t *testing.T) {
	sink := startSink(t)
	system, url := startSystem(t, sink)
	at := time.Now().Add(3 * time.Second).Truncate(time.Second)
	l := testLoad(sink)
	l.API, l.Count, l.SendAt = url, 20, func(int) time.Time { return at }
	run, rep, err := l.do(t.Context())
	if err != nil || rep.Bad() != "" || rep.Accepted != 20 || *rep.E2EP99 > 1900 || run.arrivals.early != 0 || run.arrivals.last.Before(at) {
		t.Fatalf("%+v, %v, %d early", rep, err, run.arrivals.early)
	}
	system.early = 500 * time.Millisecond
	at = time.Now().Add(2 * time.Second).Truncate(time.Second)
	if run, rep, err = l.do(t.Context()); err != nil || rep.Accepted != 20 || run.arrivals.early != 20 {
		t.Fatalf("%+v, %v, %d early", rep, err, run.arrivals.early)
	}
}
