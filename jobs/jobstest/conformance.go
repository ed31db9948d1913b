package jobstest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
)

// Work is something that is due.
type Work struct {
	Job     jobs.Job   // rings for it
	Effects func() int // how often its effect has happened so far; more than one look may run at once
}

// Spec is a handler and what it works on.
type Spec struct {
	Kind    string
	Handler jobs.Handler
	// Make makes new work, and does not ring for it.
	Make func(t *testing.T) Work
	// Settled, if set, says that nothing is under way any more that a handler has begun and left to others. It is
	// asked until it says so, before the effects are counted for the last time.
	Settled func() bool
}

// Conformance runs a handler through what a queue may do to it: a job comes twice, late, out of order, at once in several
// places, is cut off in the middle, and its answer is lost. However it comes, the effect of each piece of work must
// happen, and once. Nobody else may run jobs of the kind on q meanwhile.
func Conformance(t *testing.T, q *jobs.Queue, spec Spec) {
	var all []Work
	s := suite{q, spec}
	for _, c := range []struct {
		name string
		try  func(*testing.T) []Work
	}{
		{"once", s.once}, {"twice", s.twice}, {"late", s.late}, {"out of order", s.disorder},
		{"concurrently", s.together}, {"cut off", s.cutOff}, {"answer lost", s.answerLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := c.try(t)
			for _, w := range made {
				happened(t, w)
			}
			all = append(all, made...)
		})
	}
	if spec.Settled != nil {
		until(t, "all has settled", spec.Settled)
	}
	for _, w := range all { // once more, for what came late
		happened(t, w)
	}
}

// happened waits for the effect of some work, and wants no second one.
func happened(t *testing.T, w Work) {
	t.Helper()
	until(t, "its effect happens", func() bool { return w.Effects() > 0 })
	if n := w.Effects(); n != 1 {
		t.Errorf("the effect of a job in %s happened %d times", w.Job.Shard, n)
	}
}

// until asks again and again, for 30 s.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s until %s", what)
		}
	}
}

// suite is the handler and the queue that it is tried on.
type suite struct {
	q *jobs.Queue
	Spec
}

func (s suite) once(t *testing.T) []Work {
	w := s.Make(t)
	s.run(t, s.Handler, w.Job)
	return []Work{w}
}

func (s suite) twice(t *testing.T) []Work {
	w := s.Make(t)
	s.run(t, s.Handler, w.Job)
	happened(t, w)
	s.run(t, s.Handler, w.Job)
	return []Work{w}
}

// late has the work be done without the queue before its job comes.
func (s suite) late(t *testing.T) []Work {
	w := s.Make(t)
	s.ring(t, w.Job)
	s.Handler.Do(t.Context(), w.Job)
	happened(t, w)
	s.run(t, s.Handler)
	return []Work{w}
}

func (s suite) disorder(t *testing.T) []Work {
	a, b, c := s.Make(t), s.Make(t), s.Make(t)
	for _, w := range []Work{c, a, c, b, a} {
		s.Handler.Do(t.Context(), w.Job)
	}
	s.run(t, s.Handler, b.Job, a.Job, c.Job)
	return []Work{a, b, c}
}

func (s suite) together(t *testing.T) []Work {
	var all []Work
	var jobsOfAll []jobs.Job
	for range 4 {
		w := s.Make(t)
		all, jobsOfAll = append(all, w), append(jobsOfAll, w.Job, w.Job)
	}
	var running sync.WaitGroup
	for _, w := range all {
		for range 4 {
			running.Go(func() { s.Handler.Do(t.Context(), w.Job) })
		}
	}
	s.run(t, s.Handler, jobsOfAll...)
	running.Wait()
	return all
}

// cutOff ends each try of a job a little later than the one before, and lets the last be.
func (s suite) cutOff(t *testing.T) []Work {
	var all []Work
	for range 4 {
		w := s.Make(t)
		all = append(all, w)
		var tries atomic.Int32
		h := s.Handler
		h.Do = func(ctx context.Context, j jobs.Job) jobs.Result {
			n := tries.Add(1)
			if n > 3 {
				return s.Handler.Do(ctx, j)
			}
			ctx, cancel := context.WithTimeout(ctx, time.Duration(n-1)*2*time.Millisecond)
			defer cancel()
			s.Handler.Do(ctx, j)
			return jobs.Retry(0)
		}
		s.run(t, h, w.Job)
		if n := tries.Load(); n < 4 {
			t.Errorf("%d tries, the last was to be undisturbed", n)
		}
	}
	return all
}

// answerLost has the process end, as far as the queue can tell, when the work is done and nobody knows it.
func (s suite) answerLost(t *testing.T) []Work {
	w := s.Make(t)
	var tries atomic.Int32
	h := s.Handler
	h.Do = func(ctx context.Context, j jobs.Job) jobs.Result {
		res := s.Handler.Do(ctx, j)
		if tries.Add(1) == 1 {
			return jobs.Retry(0)
		}
		return res
	}
	s.run(t, h, w.Job)
	if tries.Load() < 2 {
		t.Error("not tried again")
	}
	return []Work{w}
}

func (s suite) ring(t *testing.T, list ...jobs.Job) {
	t.Helper()
	if err := s.q.Ring(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
}

// run rings, and has a handler at work until nothing is left in the queue.
func (s suite) run(t *testing.T, h jobs.Handler, list ...jobs.Job) {
	t.Helper()
	if len(list) > 0 {
		s.ring(t, list...)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.q.Run(ctx, map[string]jobs.Handler{s.Kind: h}) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	until(t, "the jobs are done", func() bool {
		st, err := s.q.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range st.Lanes {
			if l.Kind == s.Kind && l.Pending+l.InFlight > 0 {
				return false
			}
		}
		return true
	})
}
