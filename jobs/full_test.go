package jobs_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// fat is the largest job.
func fat() jobs.Job {
	return jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: make([][16]byte, jobs.MaxIDs)}
}

// soon rings, and must be answered soon.
func soon(t *testing.T, q *jobs.Queue, j jobs.Job) error {
	t.Helper()
	begun := time.Now()
	err := q.Ring(t.Context(), j)
	if d := time.Since(begun); d > 5*time.Second { // 2 s on a machine that has the time
		t.Errorf("Ring took %s: %v", d, err)
	}
	return err
}

// fill rings until the queue is full, and checks that it had taken some.
func fill(t *testing.T, q *jobs.Queue, atLeast int) {
	t.Helper()
	n := 0
	var err error
	for ; err == nil && n < 10_000; n++ {
		err = soon(t, q, fat())
	}
	if !errors.Is(err, jobs.ErrFull) || n < atLeast {
		t.Fatalf("after %d jobs of 16 kB: %v", n, err)
	}
}

func TestFullQueueSaysSo(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), MaxDisk: 4 << 20})
	q := jobstest.Connect(t, jobs.Config{Server: s})
	ring(t, q, bell("shard_0001"))
	fill(t, q, 50)
	if err := soon(t, q, bell("shard_0001")); err != nil && !errors.Is(err, jobs.ErrFull) {
		t.Errorf("a bell that waits already: %v", err)
	}
	if err := q.Ready(); err != nil {
		t.Errorf("a full queue is not ready: %v", err)
	}
	if err := q.Bury(t.Context(), fat(), "the dead have room of their own", 1); err != nil {
		t.Error(err)
	}
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(context.Context, jobs.Job) jobs.Result { return jobs.Done() }}})
	until(t, "there is room", func() bool { return q.Ring(t.Context(), fat()) == nil })
}

// TestFullQueueEndsItems has a job be taken apart that has no room for its parts: all of it is tried again, and what asks
// for retries for ever is dead in the end.
func TestFullQueueEndsItems(t *testing.T) {
	s := start(t, jobs.ServerConfig{Dir: t.TempDir(), MaxDisk: 4 << 20})
	q := jobstest.Connect(t, jobs.Config{Server: s, MaxDeliver: 2})
	ring(t, q, jobs.Job{Kind: "mixed", Shard: "shard_0001", IDs: ids(200)})
	fill(t, q, 50)
	for err := error(nil); err == nil; { // the last bytes too
		err = q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: ids(10)})
	}
	tries := make(chan int, 10)
	run(t, q, map[string]jobs.Handler{"mixed": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		tries <- len(j.IDs)
		return jobs.PerItem(map[[16]byte]jobs.Result{j.IDs[0]: jobs.Done()})
	}}})
	until(t, "the retried are dead", func() bool { return left(t, q).dead == 1 })
	if len(tries) != 2 || <-tries != 200 || <-tries != 200 {
		t.Error("not tried twice as a whole")
	}
	if d := deadJobs(t, q, jobs.Filter{})[0]; d.Kind != "mixed" || d.Items != 199 || d.Tries != 2 {
		t.Errorf("%+v", d)
	}
}

// noDisk ends a test that cannot have a small disk: quietly on somebody's machine, loudly where tests must not be passed over.
func noDisk(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("no small disk can be mounted, so a full one cannot be tried: run the tests as root, or allow user namespaces: %v", err)
	}
	t.Skipf("no small disk can be mounted (needs root or user namespaces): %v", err)
}
