package jobs_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// TestDeadJobsReplay gives a job up, shows it, and has it done after all.
func TestDeadJobsReplay(t *testing.T) {
	q := jobstest.Start(t)
	var good atomic.Bool
	done := make(chan jobs.Job, 1)
	run(t, q, map[string]jobs.Handler{"work": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		if !good.Load() {
			return jobs.Dead("cannot be done")
		}
		done <- j
		return jobs.Done()
	}}})
	id := [16]byte{1, 2, 3}
	ring(t, q, jobs.Job{Kind: "work", Shard: "shard_0007", IDs: [][16]byte{id}})
	until(t, "the job is dead", func() bool { return left(t, q) == sum{dead: 1} })
	d := deadJobs(t, q, jobs.Filter{})[0]
	if d.Kind != "work" || d.Shard != "shard_0007" || d.Reason != "cannot be done" || d.Tries != 1 || time.Since(d.Died) > time.Minute ||
		d.Rung.After(d.Died) || d.Items != 1 || d.IDs[0] != hex.EncodeToString(id[:]) {
		t.Errorf("%+v", d)
	}
	if shown, err := q.Dead(t.Context(), d.Number); err != nil || fmt.Sprint(shown) != fmt.Sprint(d) {
		t.Errorf("shown as %+v, %v; listed as %+v", shown, err, d)
	}
	if _, err := q.Dead(t.Context(), d.Number+1); !errors.Is(err, jobs.ErrNoDead) {
		t.Errorf("an unknown number: %v", err)
	}
	if _, err := q.Replay(t.Context(), d.Number+1); !errors.Is(err, jobs.ErrNoDead) {
		t.Errorf("replay of an unknown number: %v", err)
	}
	good.Store(true)
	if _, err := q.Replay(t.Context(), d.Number); err != nil {
		t.Fatal(err)
	}
	if j := receive(t, done, "the replayed job"); len(j.IDs) != 1 || j.IDs[0] != id {
		t.Errorf("%+v", j)
	}
	if list := deadJobs(t, q, jobs.Filter{}); len(list) != 0 {
		t.Errorf("still dead: %+v", list)
	}
}

func deadJobs(t *testing.T, q *jobs.Queue, f jobs.Filter) []jobs.DeadJob {
	t.Helper()
	list, err := q.DeadJobs(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func bury(t *testing.T, q *jobs.Queue, j jobs.Job, reason string, tries int) {
	t.Helper()
	if err := q.Bury(t.Context(), j, reason, tries); err != nil {
		t.Fatal(err)
	}
}

// TestBuriedJobsAreChosen buries without the queue, more than are read at once, and lists by each part of a filter.
func TestBuriedJobsAreChosen(t *testing.T) {
	q := jobstest.Start(t)
	for i := range 300 {
		j := jobs.Job{Kind: "deliver", Shard: fmt.Sprintf("shard_%04d", i%3), IDs: [][16]byte{{byte(i), byte(i >> 8)}, {0xff}}}
		bury(t, q, j, fmt.Sprintf("cause %d of many", i%10), i)
	}
	bury(t, q, jobs.Job{Kind: "hook", Shard: "shard_0001"}, "cause 7\nof many", 2)
	for name, c := range map[string]struct {
		f           jobs.Filter
		all, newest int // newest by its number, which counts from 1
	}{
		"all":        {jobs.Filter{}, 301, 301},
		"kind":       {jobs.Filter{Kind: "deliver"}, 300, 300},
		"shard":      {jobs.Filter{Shard: "shard_0001"}, 101, 301},
		"both":       {jobs.Filter{Kind: "deliver", Shard: "shard_0001"}, 100, 299},
		"reason":     {jobs.Filter{Reason: "cause 7 "}, 31, 301},
		"everything": {jobs.Filter{Kind: "deliver", Shard: "shard_0002", Reason: "7"}, 10, 288},
		"limit":      {jobs.Filter{Kind: "deliver", Limit: 7}, 7, 300},
		"none":       {jobs.Filter{Kind: "nobody"}, 0, 0},
	} {
		list := deadJobs(t, q, c.f)
		if len(list) != c.all || len(list) > 0 && list[0].Number != uint64(c.newest) {
			t.Errorf("%s: %d jobs, the first of them %+v", name, len(list), slices.Concat(list, make([]jobs.DeadJob, 1))[0])
		}
		if !slices.IsSortedFunc(list, func(a, b jobs.DeadJob) int { return int(b.Number) - int(a.Number) }) {
			t.Errorf("%s: not the newest first", name)
		}
	}
	if d := deadJobs(t, q, jobs.Filter{Kind: "deliver", Limit: 1})[0]; d.Tries != 299 || d.Items != 2 || d.IDs[1] != "ff"+strings.Repeat("0", 30) {
		t.Errorf("%+v", d)
	}
	for name, f := range map[string]jobs.Filter{"kind": {Kind: "*"}, "shard": {Shard: "a.b"}, "limit": {Limit: jobs.MaxList + 1}, "negative": {Limit: -1}} {
		if _, err := q.DeadJobs(t.Context(), f); err == nil {
			t.Errorf("a bad %s was taken", name)
		}
	}
	if err := q.Bury(t.Context(), jobs.Job{Kind: "deliver"}, "no shard", 1); err == nil {
		t.Error("a bad job was buried")
	}
}

// TestReplayAll has all of a kind be done, while some die again.
func TestReplayAll(t *testing.T) {
	q := jobstest.Start(t)
	for i := range 40 {
		bury(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: [][16]byte{{byte(i)}}}, "first", 1)
		bury(t, q, jobs.Job{Kind: "hook", Shard: "shard_0001", IDs: [][16]byte{{byte(i)}}}, "first", 1)
	}
	done := make(chan byte, 100)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		if j.IDs[0][0]%4 == 0 {
			return jobs.Dead("again")
		}
		done <- j.IDs[0][0]
		return jobs.Done()
	}}})
	if n, err := q.ReplayAll(t.Context(), jobs.Filter{Kind: "deliver", Reason: "first"}); n != 40 || err != nil {
		t.Errorf("%d replayed: %v", n, err)
	}
	until(t, "each is done or dead", func() bool { return left(t, q) == sum{dead: 50} })
	if len(done) != 30 || len(deadJobs(t, q, jobs.Filter{Kind: "deliver", Reason: "again"})) != 10 {
		t.Errorf("%d of 30 done", len(done))
	}
}
