package jobs_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// TestDeadJobsReplay gives a job up, lists it, and has it done after all.
func TestDeadJobsReplay(t *testing.T) {
	q := jobstest.Start(t)
	var good atomic.Bool
	done := make(chan jobs.Job, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- q.Run(ctx, map[string]jobs.Handler{"work": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
			if !good.Load() {
				return jobs.Dead("cannot be done")
			}
			done <- j
			return jobs.Done()
		}}})
	}()
	t.Cleanup(func() { stop(); <-ended })
	id := [16]byte{1, 2, 3}
	if err := q.Ring(ctx, jobs.Job{Kind: "work", Shard: "shard_0007", IDs: [][16]byte{id}}); err != nil {
		t.Fatal(err)
	}
	var list []jobs.DeadJob
	deadline, tick := time.After(10*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for len(list) == 0 {
		select {
		case <-deadline:
			t.Fatal("no dead job after 10 s")
		case <-tick.C:
		}
		var err error
		if list, err = q.DeadJobs(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d := list[0]
	if d.Kind != "work" || d.Shard != "shard_0007" || d.Reason != "cannot be done" || d.Tries != 1 || time.Since(d.Died) > time.Minute || d.Rung.After(d.Died) {
		t.Errorf("%+v", d)
	}
	good.Store(true)
	if _, err := q.Replay(ctx, d.Number+1); !errors.Is(err, jobs.ErrNoDead) {
		t.Errorf("replay of an unknown number: %v", err)
	}
	if _, err := q.Replay(ctx, d.Number); err != nil {
		t.Fatal(err)
	}
	select {
	case j := <-done:
		if len(j.IDs) != 1 || j.IDs[0] != id {
			t.Errorf("%+v", j)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not done 10 s after its replay")
	}
	if list, err := q.DeadJobs(ctx); err != nil || len(list) != 0 {
		t.Errorf("still dead: %+v %v", list, err)
	}
}
