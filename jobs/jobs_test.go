package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

func TestRungJobIsDone(t *testing.T) {
	q := jobstest.Start(t)
	got := make(chan jobs.Job, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		got <- j
		return jobs.Done()
	}}})
	ids := make([][16]byte, jobs.MaxIDs)
	for i := range ids {
		ids[i] = [16]byte{byte(i), byte(i >> 8), 15: 0xff}
	}
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0042", IDs: ids})
	j := receive(t, got, "the job")
	if j.Kind != "deliver" || j.Shard != "shard_0042" || fmt.Sprint(j.IDs) != fmt.Sprint(ids) {
		t.Errorf("rung and done differ: %s %s, %d ids", j.Kind, j.Shard, len(j.IDs))
	}
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0042", IDs: ids}, jobs.Job{Kind: "deliver", Shard: "shard_0042", IDs: ids})
	receive(t, got, "the job again")
	receive(t, got, "its double: nothing with ids is swallowed")
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"})
	receive(t, got, "a bell")
	until(t, "nothing is left", func() bool { return left(t, q) == sum{} })
}

func TestBadJobsAreRefused(t *testing.T) {
	q := jobstest.Start(t)
	for name, j := range map[string]jobs.Job{
		"no kind":        {Shard: "shard_0001"},
		"kind with dots": {Kind: "a.b", Shard: "shard_0001"},
		"wildcard":       {Kind: "deliver", Shard: "*"},
		"no shard":       {Kind: "deliver"},
		"long shard":     {Kind: "deliver", Shard: strings.Repeat("s", 65)},
		"1,001 ids":      {Kind: "deliver", Shard: "shard_0001", IDs: make([][16]byte, jobs.MaxIDs+1)},
	} {
		if err := q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}, j); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := q.Ring(t.Context(), make([]jobs.Job, jobs.MaxRing+1)...); err == nil {
		t.Error("too many jobs at once: taken")
	}
	if st := stats(t, q); st.Pending != 0 {
		t.Errorf("%d jobs of refused calls are in the queue", st.Pending)
	}
	for name, h := range map[string]map[string]jobs.Handler{
		"no Do":       {"deliver": {}},
		"concurrency": {"deliver": {Do: func(context.Context, jobs.Job) jobs.Result { return jobs.Done() }, Concurrency: 257}},
		"kind":        {"Deliver!": {Do: func(context.Context, jobs.Job) jobs.Result { return jobs.Done() }}},
	} {
		if err := q.Run(t.Context(), h); err == nil {
			t.Errorf("%s: Run with a bad handler", name)
		}
	}
}

func TestRetryWaits(t *testing.T) {
	q := jobstest.Start(t)
	const after = 300 * time.Millisecond
	tries := make(chan time.Time, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(context.Context, jobs.Job) jobs.Result {
		tries <- time.Now()
		if len(tries) < 3 {
			return jobs.Retry(after)
		}
		return jobs.Done()
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"})
	until(t, "the third try", func() bool { return len(tries) == 3 })
	first, second, third := <-tries, <-tries, <-tries
	if second.Sub(first) < after || third.Sub(second) < after {
		t.Errorf("retries after %s and %s, not %s", second.Sub(first), third.Sub(second), after)
	}
	until(t, "nothing is left", func() bool { return left(t, q) == sum{} })
}

func TestSnoozeIsNotCounted(t *testing.T) {
	q := jobstest.Start(t)
	finished := make(chan int, 1)
	times := 0
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		if times++; times <= 8 { // more than the five tries of a job
			return jobs.Snooze(time.Millisecond)
		}
		finished <- len(j.IDs)
		return jobs.Done()
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: make([][16]byte, 7)})
	if n := receive(t, finished, "the end of the snoozing"); n != 7 {
		t.Errorf("a snoozed job came back with %d of 7 ids", n)
	}
	until(t, "nothing is left", func() bool { return left(t, q) == sum{} })
}

func TestPanicsEndInTheDeadStream(t *testing.T) {
	core, lines := observer.New(zapcore.InfoLevel)
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	q := jobstest.Connect(t, jobs.Config{Server: s, MaxDeliver: 3, Log: zap.New(core)})
	tries := make(chan bool, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		tries <- true
		if len(j.IDs) == 1 {
			panic("to someone@example.com")
		}
		return jobs.Dead("no such\r\nthing")
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: make([][16]byte, 1)})
	until(t, "the job is dead", func() bool { return stats(t, q).Dead == 1 })
	if len(tries) != 3 {
		t.Errorf("%d tries, not 3", len(tries))
	}
	if m := grave(t, s, 1); m.Header.Get("Postrider-Reason") != "panic with a string at try 3 of 3" ||
		m.Header.Get("Postrider-Tries") != "3" || m.Subject != "dead.deliver.shard_0001" || len(m.Data) != 18 {
		t.Errorf("dead job: %s %v, %d bytes", m.Subject, m.Header, len(m.Data))
	}
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0002"})
	until(t, "the other is dead", func() bool { return stats(t, q).Dead == 2 })
	if m := grave(t, s, 2); m.Header.Get("Postrider-Reason") != "no such  thing" {
		t.Errorf("reason of the other: %q", m.Header.Get("Postrider-Reason"))
	}
	until(t, "nothing else is left", func() bool { return left(t, q) == sum{dead: 2} })
	if n := lines.FilterMessageSnippet("job given up").Len(); n != 2 {
		t.Errorf("%d lines about dead jobs, not 2", n)
	}
	for _, l := range lines.All() {
		if text := fmt.Sprint(l.Message, l.ContextMap()); strings.Contains(text, "someone@") || strings.Contains(text, "secret") {
			t.Errorf("said too much: %s", text)
		}
	}
}

func TestUnreadableJobIsDead(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	q := jobstest.Connect(t, jobs.Config{Server: s})
	js := raw(t, s)
	for i, data := range []string{"", "\x00", "\x02\x00", "\x01", "\x01\x01short", "\x01\x00more", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if _, err := js.Publish(t.Context(), fmt.Sprintf("jobs.deliver.shard_0001.%d", i), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		t.Errorf("a handler got %v", j)
		return jobs.Done()
	}}})
	until(t, "all are dead", func() bool { return left(t, q) == sum{dead: 7} })
}

func TestSilentHandlerLosesItsJobAndThenTheJobIsDead(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	q := jobstest.Connect(t, jobs.Config{Server: s, MaxDeliver: 2, AckWait: time.Second})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"})
	// Two processes that take the job and are never heard of again.
	cons, err := raw(t, s).CreateOrUpdateConsumer(t.Context(), "JOBS", jetstream.ConsumerConfig{Durable: "deliver",
		FilterSubject: "jobs.deliver.>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second,
		MaxAckPending: 10_000, MaxWaiting: 4096, MaxDeliver: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := cons.Next(jetstream.FetchMaxWait(patience)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(context.Context, jobs.Job) jobs.Result {
		t.Error("a job that ends processes was run again")
		return jobs.Done()
	}}})
	until(t, "the job is dead", func() bool { return left(t, q) == sum{dead: 1} })
}

func TestTwoQueuesShareTheWork(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "a token/with @ signs"})
	here := jobstest.Connect(t, jobs.Config{Server: s, Instance: "here"})
	there := jobstest.Connect(t, jobs.Config{URL: s.URL(), Instance: "there"})
	both := map[string]chan string{"here": make(chan string, 300), "there": make(chan string, 300)}
	for name, q := range map[string]*jobs.Queue{"here": here, "there": there} {
		run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
			both[name] <- j.Shard
			if len(both[name]) == 1 { // each waits once for the other, so that neither can do it all
				until(t, "both are at work", func() bool { return len(both["here"]) > 0 && len(both["there"]) > 0 })
			}
			return jobs.Done()
		}}})
	}
	var list []jobs.Job
	for i := range 100 {
		list = append(list, jobs.Job{Kind: "deliver", Shard: fmt.Sprintf("shard_%04d", i)})
	}
	ring(t, here, list[:50]...)
	ring(t, there, list[50:]...)
	until(t, "all is done", func() bool { return left(t, there) == sum{} })
	if n := len(both["here"]) + len(both["there"]); n != 100 {
		t.Errorf("%d runs of 100 jobs", n)
	}
}

func TestStopHandsBack(t *testing.T) {
	q := jobstest.Start(t)
	begun := make(chan bool, 1)
	stop := run(t, q, map[string]jobs.Handler{"deliver": {Do: func(ctx context.Context, _ jobs.Job) jobs.Result {
		begun <- true
		<-ctx.Done() // ends with Run, long before its minute is over
		return jobs.Retry(time.Hour)
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"}, jobs.Job{Kind: "deliver", Shard: "shard_0002"})
	receive(t, begun, "the first job")
	if st := stats(t, q); st.InFlight != 1 || st.Pending != 1 || st.Oldest <= 0 {
		t.Errorf("under way: %+v", st)
	}
	stop()
	got := make(chan bool, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(context.Context, jobs.Job) jobs.Result {
		got <- true
		return jobs.Done()
	}}})
	receive(t, got, "one job, without waiting for AckWait or an hour")
	receive(t, got, "the other")
}

func TestManyJobsInLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 jobs take a while")
	}
	const all = 100_000
	q := jobstest.Start(t)
	before := heap()
	list := make([]jobs.Job, jobs.MaxRing)
	for n := range all {
		list[n%jobs.MaxRing] = jobs.Job{Kind: "deliver", Shard: fmt.Sprintf("shard_%04d", n%64), IDs: [][16]byte{{byte(n), byte(n >> 8), byte(n >> 16)}}}
		if n%1000 == 999 { // a call is held to 2 s, and a race test on a busy machine is slow
			ring(t, q, list[n%jobs.MaxRing-999:n%jobs.MaxRing+1]...)
		}
	}
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("%d waiting jobs hold %d MiB", all, grown>>20)
	}
	var mu sync.Mutex
	seen := map[[16]byte]int{}
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 16, Do: func(_ context.Context, j jobs.Job) jobs.Result {
		mu.Lock()
		defer mu.Unlock()
		seen[j.IDs[0]]++
		return jobs.Done()
	}}})
	for last := -1; ; { // as long as it goes on
		mu.Lock()
		n := len(seen)
		mu.Unlock()
		if n == all {
			break
		}
		if n == last {
			t.Fatalf("stands still at %d of %d jobs", n, all)
		}
		last = n
		until(t, "more jobs are done", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen) == all || len(seen) > last+1000
		})
	}
	until(t, "nothing is left", func() bool { return left(t, q) == sum{} })
	if grown := heap() - before; grown > 48<<20 {
		t.Errorf("%d MiB remain after %d jobs", grown>>20, all)
	}
}
