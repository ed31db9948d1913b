package jobs_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

func bell(shard string) jobs.Job { return jobs.Job{Kind: "deliver", Shard: shard} }

// TestBellsDoNotPileUp rings 100,000 times while nobody listens.
func TestBellsDoNotPileUp(t *testing.T) {
	q := jobstest.Start(t)
	list := make([]jobs.Job, 1000)
	for i := range list {
		list[i] = jobs.Job{Kind: []string{"deliver", "hook"}[i%2], Shard: fmt.Sprintf("shard_%04d", i%16/2)}
	}
	for range 100 {
		ring(t, q, list...)
	}
	if n := left(t, q).pending; n != 16 {
		t.Errorf("%d bells wait, of two kinds and 8 shards", n)
	}
	heard := make(chan string, 100)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		heard <- j.Shard
		return jobs.Done()
	}}})
	until(t, "the bells of one kind are heard", func() bool { return left(t, q) == sum{pending: 8} })
	if len(heard) != 8 {
		t.Errorf("%d bells of 8 shards were heard", len(heard))
	}
}

// TestBellRungWhileItIsHeard must be heard again: what it rings for may have come after the handler looked.
func TestBellRungWhileItIsHeard(t *testing.T) {
	for name, late := range map[string]jobs.Result{"done": jobs.Done(), "retry": jobs.Retry(0), "later": jobs.Retry(time.Minute), "snooze": jobs.Snooze(0), "dead": jobs.Dead("no")} {
		t.Run(name, func(t *testing.T) {
			q := jobstest.Start(t)
			begun, goOn := make(chan int, 10), make(chan jobs.Result)
			var n atomic.Int32
			run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 2, Do: func(context.Context, jobs.Job) jobs.Result {
				begun <- int(n.Add(1))
				if n.Load() == 1 {
					return <-goOn
				}
				return jobs.Done()
			}}})
			ring(t, q, bell("shard_0001"))
			receive(t, begun, "the bell")
			ring(t, q, bell("shard_0001"))
			receive(t, begun, "the bell that was rung while the first was heard")
			until(t, "it is done", func() bool { return left(t, q).pending == 0 })
			goOn <- late // for a job that is no more
			ring(t, q, bell("shard_0001"))
			receive(t, begun, "a bell after the late answer")
			want := sum{}
			if name == "dead" {
				want.dead = 1
			}
			until(t, "nothing is left", func() bool { return left(t, q) == want })
		})
	}
}

// TestOldStreamIsBroughtOver starts on a stream of the first version, with every kind of job on the subjects of bells.
func TestOldStreamIsBroughtOver(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	js := raw(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.*.*"}, Retention: jetstream.WorkQueuePolicy,
		Discard: jetstream.DiscardNew, MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "JOBS", jetstream.ConsumerConfig{Durable: "deliver", FilterSubject: "jobs.deliver.*",
		AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000, MaxWaiting: 4096, MaxDeliver: -1}); err != nil {
		t.Fatal(err)
	}
	one := append([]byte{1, 1}, make([]byte, 16)...)
	for range 5 {
		for _, data := range [][]byte{{1, 0}, one, []byte("?")} {
			if _, err := js.Publish(t.Context(), "jobs.deliver.shard_0001", data); err != nil {
				t.Fatal(err)
			}
		}
	}
	q := jobstest.Connect(t, jobs.Config{Server: s})
	if err := q.Ready(); err != nil {
		t.Fatal(err)
	}
	if n := left(t, q).pending; n != 11 {
		t.Errorf("%d jobs: not one bell, five with ids and five that cannot be read", n)
	}
	got := make(chan int, 100)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		got <- len(j.IDs)
		return jobs.Done()
	}}})
	until(t, "all is done", func() bool { return left(t, q) == sum{dead: 5} })
	bells := 0
	for range len(got) {
		bells += 1 - <-got
	}
	if bells != 1 {
		t.Errorf("%d bells heard", bells)
	}
}

// TestPeekAndWipe looks without taking, and removes what waits and nothing else.
func TestPeekAndWipe(t *testing.T) {
	q := jobstest.Start(t)
	if list, err := q.Peek(t.Context(), jobs.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("an empty queue: %+v, %v", list, err)
	}
	ring(t, q, bell("shard_0001"))
	for i := range 10 {
		ring(t, q, jobs.Job{Kind: "hook", Shard: fmt.Sprintf("shard_%04d", i%2), IDs: ids(i + 1)})
	}
	ring(t, q, bell("shard_0000"))
	bury(t, q, bell("shard_0001"), "hopeless", 1)
	if err := q.PublishEvents(t.Context(), "shard_0001", []byte("x"), "1"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		f       jobs.Filter
		numbers []uint64
	}{
		"all":   {jobs.Filter{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		"kind":  {jobs.Filter{Kind: "deliver"}, []uint64{1, 12}},
		"shard": {jobs.Filter{Shard: "shard_0001"}, []uint64{1, 3, 5, 7, 9, 11}},
		"both":  {jobs.Filter{Kind: "hook", Shard: "shard_0000"}, []uint64{2, 4, 6, 8, 10}},
		"limit": {jobs.Filter{Limit: 3}, []uint64{1, 2, 3}},
	} {
		list, err := q.Peek(t.Context(), c.f)
		var numbers []uint64
		for _, w := range list {
			numbers = append(numbers, w.Number)
		}
		if err != nil || fmt.Sprint(numbers) != fmt.Sprint(c.numbers) {
			t.Errorf("%s: %v, %v, not %v", name, numbers, err, c.numbers)
		}
	}
	list, err := q.Peek(t.Context(), jobs.Filter{Kind: "hook", Limit: 2})
	if err != nil || list[1].Shard != "shard_0001" || list[1].Items != 2 || list[1].IDs[1] != "01000000000000000000000000000000" || time.Since(list[1].Rung) > time.Minute {
		t.Errorf("%+v, %v", list, err)
	}
	if st := stats(t, q); len(st.Lanes) != 2 || st.Lanes[0].Kind != "deliver" || st.Lanes[0].Pending != 2 || st.Lanes[0].Dead != 1 || st.Lanes[1].Pending != 10 || st.Lanes[1].Oldest <= 0 {
		t.Errorf("lanes of kinds that nobody handles: %+v", st.Lanes)
	}
	if err := q.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := left(t, q); got != (sum{dead: 1}) {
		t.Errorf("after the wipe: %+v", got)
	}
	ring(t, q, bell("shard_0001"))
	if got := left(t, q); got != (sum{pending: 1, dead: 1}) {
		t.Errorf("rung after the wipe: %+v", got)
	}
}

// TestSlowHandlerKeepsItsJob for as long as its time lasts, though it is three times as long as AckWait.
func TestSlowHandlerKeepsItsJob(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir()})
	q := jobstest.Connect(t, jobs.Config{Server: s, AckWait: time.Second})
	begun := make(chan bool, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 2, Timeout: 3 * time.Second, Do: func(ctx context.Context, _ jobs.Job) jobs.Result {
		begun <- true
		<-ctx.Done()
		return jobs.Done()
	}}})
	ring(t, q, bell("shard_0001"))
	until(t, "it is done", func() bool { return len(begun) > 0 && left(t, q) == sum{} })
	if len(begun) != 1 {
		t.Errorf("run %d times", len(begun))
	}
}

// TestHangingHandlerLosesItsJob to another, and its late answer is not heard.
func TestHangingHandlerLosesItsJob(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir()})
	q := jobstest.Connect(t, jobs.Config{Server: s, AckWait: time.Second})
	begun, hang := make(chan time.Time, 10), make(chan bool)
	finish := make(chan bool, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 2, Timeout: time.Second, Do: func(context.Context, jobs.Job) jobs.Result {
		begun <- time.Now()
		if len(begun) == 1 {
			<-hang // whatever its context says
			finish <- true
			return jobs.Dead("too late")
		}
		hang <- true
		<-finish // the other has answered, or is about to
		return jobs.Done()
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: ids(1)})
	until(t, "another has done it", func() bool { return len(begun) >= 2 && left(t, q) == sum{} })
	if first, second := <-begun, <-begun; second.Sub(first) < time.Second {
		t.Errorf("taken away after %s, before its time was over", second.Sub(first))
	}
	if len(begun) != 0 {
		t.Error("run a third time")
	}
}
