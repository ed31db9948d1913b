package jobs_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// away starts a server and a queue over TCP, has a handler running, and stops the server.
func away(t *testing.T) (cfg jobs.ServerConfig, q *jobs.Queue, got chan string) {
	t.Helper()
	cfg = jobs.ServerConfig{Dir: filepath.Join(t.TempDir(), "queue"), Listen: "127.0.0.1:0", Token: "secret"}
	s := start(t, cfg)
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = u.Host
	q = jobstest.Connect(t, jobs.Config{URL: s.URL()})
	got = make(chan string, 100)
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 2, Do: func(_ context.Context, j jobs.Job) jobs.Result {
		got <- j.Shard
		return jobs.Done()
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"}, jobs.Job{Kind: "later", Shard: "shard_0002"})
	receive(t, got, "a job before the server stops")
	stopServer(s)
	return cfg, q, got
}

func TestCallsFailSoonWhileTheServerIsAway(t *testing.T) {
	_, q, _ := away(t)
	for name, call := range map[string]func() error{
		"Ring":          func() error { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}) },
		"PublishEvents": func() error { return q.PublishEvents(t.Context(), "shard_0001", []byte("x"), "1") },
		"Stats":         func() error { _, err := q.Stats(t.Context()); return err },
	} {
		begun := time.Now()
		if err := call(); err == nil {
			t.Errorf("%s works without a server", name)
		}
		if d := time.Since(begun); d > 2500*time.Millisecond {
			t.Errorf("%s took %s to fail", name, d)
		}
	}
}

func TestRestartKeepsTheJobs(t *testing.T) {
	cfg, q, got := away(t)
	start(t, cfg)
	until(t, "the connection is back", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0003"}) == nil })
	receive(t, got, "a job rung after the restart")
	late := make(chan string, 1)
	run(t, q, map[string]jobs.Handler{"later": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		late <- j.Shard
		return jobs.Done()
	}}})
	if shard := receive(t, late, "the job rung before the restart"); shard != "shard_0002" {
		t.Errorf("it became one for %s", shard)
	}
}

func TestStreamsAreMadeAgainInAnEmptyFolder(t *testing.T) {
	cfg, q, got := away(t)
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	start(t, cfg)
	until(t, "the streams are back", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0003"}) == nil })
	if shard := receive(t, got, "a job in the new stream"); shard != "shard_0003" {
		t.Errorf("a job for %s outlived its folder", shard)
	}
	until(t, "events are taken", func() bool { return q.PublishEvents(t.Context(), "shard_0001", []byte("x"), "1") == nil })
}

func TestFolderRemovedUnderTheServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q := jobstest.Connect(t, jobs.Config{Server: start(t, jobs.ServerConfig{Dir: dir})})
	got := make(chan string, 1000)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		got <- j.Shard
		return jobs.Done()
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"})
	receive(t, got, "a job before")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	until(t, "the folder is back", func() bool {
		_, err := os.Stat(filepath.Join(dir, "jetstream", "$G", "streams", "JOBS"))
		return err == nil
	})
	until(t, "the streams are back", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0002"}) == nil })
	for receive(t, got, "a job in the new stream") != "shard_0002" {
	}
}

func TestStreamDeletedByAnOperator(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	q := jobstest.Connect(t, jobs.Config{Server: s})
	got := make(chan string, 1000)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		got <- j.Shard
		return jobs.Done()
	}}})
	js := raw(t, s)
	for _, name := range []string{"JOBS", "EVENTS", "DEAD"} {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "jobs can be rung for again", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}) == nil })
	receive(t, got, "a job in the new stream")
	until(t, "the others are back", func() bool { _, err := q.Stats(t.Context()); return err == nil })
}

func TestServerThatComesLate(t *testing.T) {
	cfg := jobs.ServerConfig{Dir: t.TempDir(), Listen: freeAddress(t), Token: "secret"}
	core, lines := observer.New(zapcore.DebugLevel)
	q := jobstest.Connect(t, jobs.Config{URL: "nats://secret@" + cfg.Listen, Log: zap.New(core)})
	if err := q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}); err == nil {
		t.Error("rung without a server")
	}
	start(t, cfg)
	until(t, "the server is found", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}) == nil })
	for _, l := range lines.All() {
		if text := l.Message + " " + field(l); strings.Contains(text, "secret") {
			t.Errorf("the token is in the log: %s", text)
		}
	}
}

func field(e observer.LoggedEntry) string {
	enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
	b, err := enc.EncodeEntry(e.Entry, e.Context)
	if err != nil {
		return err.Error()
	}
	return b.String()
}

func TestWrongTokenGetsNothing(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("guess")
	q := jobstest.Connect(t, jobs.Config{URL: u.String()})
	if err := q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}); err == nil {
		t.Error("rung with a wrong token")
	}
}

func TestBadConfigurations(t *testing.T) {
	dir := t.TempDir()
	s := start(t, jobs.ServerConfig{Dir: dir})
	for name, cfg := range map[string]jobs.ServerConfig{
		"a folder in use": {Dir: dir},
		"no folder":       {},
		"no token":        {Dir: t.TempDir(), Listen: "127.0.0.1:0"},
		"no port":         {Dir: t.TempDir(), Listen: "127.0.0.1", Token: "x"},
		"a bad port":      {Dir: t.TempDir(), Listen: "127.0.0.1:70000", Token: "x"},
		"no such address": {Dir: t.TempDir(), Listen: "192.0.2.1:4222", Token: "x"},
		"no room":         {Dir: t.TempDir(), MaxDisk: 1000},
	} {
		if other, err := jobs.StartServer(cfg); err == nil {
			stopServer(other)
			t.Errorf("%s: started", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	for name, cfg := range map[string]jobs.Config{
		"neither":    {},
		"both":       {Server: s, URL: "nats://x@127.0.0.1:4222"},
		"no URL":     {URL: "nats://secret@bad host:4222"},
		"HTTP":       {URL: "nats://x@127.0.0.1:4222,http://secret@127.0.0.1"},
		"MaxDeliver": {Server: s, MaxDeliver: -1},
		"AckWait":    {Server: s, AckWait: time.Millisecond},
	} {
		if q, err := jobs.Connect(t.Context(), cfg); err == nil {
			q.Close()
			t.Errorf("%s: connected", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the token is in the error: %v", name, err)
		}
	}
}

func TestEvents(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	q := jobstest.Connect(t, jobs.Config{Server: s})
	for _, e := range []struct{ payload, id string }{{"one", "\r\n\x00\xff"}, {"two", "2"}, {"one", "\r\n\x00\xff"}, {"three", "3"}} {
		if err := q.PublishEvents(t.Context(), "shard_0001", []byte(e.payload), e.id); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.PublishEvents(t.Context(), "shard_0002", make([]byte, jobs.MaxPayload), "2"); err != nil {
		t.Errorf("the largest entry, with an id that another shard used: %v", err)
	}
	if err := q.PublishEvents(t.Context(), "shard_0001", make([]byte, jobs.MaxPayload+1), "4"); err == nil {
		t.Error("an entry over the limit was taken")
	}
	cons, err := raw(t, s).OrderedConsumer(t.Context(), "EVENTS", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"events.shard_0001"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two", "three"} {
		m, err := cons.Next()
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data()) != want {
			t.Errorf("read %s for %s", m.Data(), want)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir()})
	reg := prometheus.NewRegistry()
	q := jobstest.Connect(t, jobs.Config{Server: s, Metrics: reg})
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(context.Context, jobs.Job) jobs.Result { return jobs.Done() }}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"}, jobs.Job{Kind: "deliver", Shard: "shard_0002"})
	until(t, "all is done", func() bool { return left(t, q) == sum{} })
	want := `
# HELP postrider_jobs_ready 1 while the queue can be used.
# TYPE postrider_jobs_ready gauge
postrider_jobs_ready 1
# HELP postrider_jobs_total Jobs that handlers ended, by what they answered.
# TYPE postrider_jobs_total counter
postrider_jobs_total{kind="deliver",result="done"} 2
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "postrider_jobs_ready", "postrider_jobs_total"); err != nil {
		t.Error(err)
	}
	if _, err := jobs.Connect(t.Context(), jobs.Config{Server: s, Metrics: reg}); err == nil {
		t.Error("two queues with one registry: numbers would be lost unseen")
	}
}
