package jobs_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

func ids(n int) [][16]byte {
	out := make([][16]byte, n)
	for i := range out {
		out[i] = [16]byte{byte(i)}
	}
	return out
}

// tried counts how often each id was shown to a handler, and when last.
type tried struct {
	mu    sync.Mutex
	times map[byte]int
	last  map[byte]time.Time
}

func (s *tried) see(j jobs.Job) map[byte]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[byte]int{}
	for _, id := range j.IDs {
		s.times[id[0]]++
		s.last[id[0]] = time.Now()
		now[id[0]] = s.times[id[0]]
	}
	return now
}

// TestEachItemHasItsOwnEnd has ids of one job be done, retried, snoozed and given up.
func TestEachItemHasItsOwnEnd(t *testing.T) {
	q := jobstest.Start(t)
	const wait = 300 * time.Millisecond
	seen := tried{times: map[byte]int{}, last: map[byte]time.Time{}}
	var first time.Time
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 2, Do: func(_ context.Context, j jobs.Job) jobs.Result {
		res := map[[16]byte]jobs.Result{{0xee}: jobs.Dead("not of this job")}
		for id, times := range seen.see(j) {
			switch {
			case id == 0 && times == 1:
				seen.mu.Lock()
				first = time.Now()
				seen.mu.Unlock()
				res[[16]byte{id}] = jobs.Done()
			case id == 1 && times < 3:
				res[[16]byte{id}] = jobs.Retry(wait)
			case id == 2 && times < 9: // more often than a job is tried
				res[[16]byte{id}] = jobs.Snooze(time.Millisecond)
			case id == 3, id == 4:
				res[[16]byte{id}] = jobs.Dead("cause of two")
			case id == 5:
				res[[16]byte{id}] = jobs.Dead("cause of one")
			case id == 6:
				res[[16]byte{id}] = jobs.Retry(0) // for ever
			case id == 7 && times == 1: // forgotten
			default:
				res[[16]byte{id}] = jobs.Done()
			}
		}
		return jobs.PerItem(res)
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: ids(9)})
	until(t, "each has its end", func() bool { return left(t, q) == sum{dead: 3} })
	for id, want := range map[byte]int{0: 1, 1: 3, 2: 9, 3: 1, 4: 1, 5: 1, 6: 5, 7: 2, 8: 1} {
		if seen.times[id] != want {
			t.Errorf("id %d was tried %d times, not %d", id, seen.times[id], want)
		}
	}
	if d := seen.last[1].Sub(first); d < 2*wait {
		t.Errorf("its third try came %s after the first", d)
	}
	for reason, want := range map[string]struct{ items, tries int }{"cause of two": {2, 1}, "cause of one": {1, 1}, "asked for a retry at try 5 of 5": {1, 5}} {
		list := deadJobs(t, q, jobs.Filter{Reason: reason})
		if len(list) != 1 || list[0].Items != want.items || list[0].Tries != want.tries {
			t.Errorf("%s: %+v", reason, list)
		}
	}
}

// TestItemsWithOneEnd has a job whose ids all end alike be treated as one; a bell has no ids, so nothing was answered.
func TestItemsWithOneEnd(t *testing.T) {
	q := jobstest.Start(t)
	sizes := make(chan int, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		sizes <- len(j.IDs)
		res := map[[16]byte]jobs.Result{}
		for _, id := range j.IDs {
			if len(sizes) < 3 {
				res[id] = jobs.Retry(0)
			} else {
				res[id] = jobs.Done()
			}
		}
		return jobs.PerItem(res)
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: ids(20)})
	until(t, "nothing is left", func() bool { return left(t, q) == sum{} })
	for len(sizes) > 0 {
		if n := <-sizes; n != 20 {
			t.Errorf("a try of %d ids", n)
		}
	}
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001"})
	until(t, "the bell is dead", func() bool { return left(t, q) == sum{dead: 1} })
	if len(sizes) != 5 {
		t.Errorf("%d tries of the bell", len(sizes))
	}
}

// TestStopWhileItemsAreDone has each go where it belongs, at once and with nothing counted.
func TestStopWhileItemsAreDone(t *testing.T) {
	q := jobstest.Start(t)
	begun := make(chan bool, 1)
	stop := run(t, q, map[string]jobs.Handler{"deliver": {Do: func(ctx context.Context, j jobs.Job) jobs.Result {
		begun <- true
		<-ctx.Done()
		return jobs.PerItem(map[[16]byte]jobs.Result{j.IDs[0]: jobs.Done(), j.IDs[1]: jobs.Retry(time.Hour), j.IDs[2]: jobs.Snooze(time.Hour), j.IDs[3]: jobs.Dead("hopeless")})
	}}})
	ring(t, q, jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: ids(4)})
	receive(t, begun, "the job")
	stop()
	got := make(chan byte, 10)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		for _, id := range j.IDs {
			got <- id[0]
		}
		return jobs.Done()
	}}})
	if sum := receive(t, got, "one of the rest, at once") + receive(t, got, "the other"); sum != 3 {
		t.Errorf("the rest were others than 1 and 2")
	}
	until(t, "nothing but the dead is left", func() bool { return left(t, q) == sum{dead: 1} })
}
