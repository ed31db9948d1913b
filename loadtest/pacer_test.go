package loadtest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOpenLoopKeepsItsSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := NewPacer(start, 10, 21, 0)
		for i := range 21 {
			seq, due, ok := p.Next(t.Context())
			if want := start.Add(time.Duration(i) * 100 * time.Millisecond); !ok || seq != i || !due.Equal(want) || !time.Now().Equal(want) {
				t.Fatalf("submission %d: got %d due %v at %v, want %v", i, seq, due, time.Now(), want)
			}
		}
		if _, _, ok := p.Next(t.Context()); ok {
			t.Fatal("goes on after its count")
		}
	})
}

func TestOpenLoopChargesForLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := NewPacer(start, 100, 0, time.Second)
		p.Next(t.Context())
		pause(t.Context(), 700*time.Millisecond) // the system was slow
		_, due, ok := p.Next(t.Context())
		if !ok || due.Sub(start) != 10*time.Millisecond {
			t.Fatalf("the second submission is due after %v, want 10ms", due.Sub(start))
		}
		n := 2
		for ; ok; n++ {
			_, _, ok = p.Next(t.Context())
		}
		if n-1 != 100 {
			t.Fatalf("%d submissions in a second at 100/s", n-1)
		}
	})
}

func TestPacerSharesNumbersAmongWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPacer(time.Now(), 1000, 500, 0)
		var seen serialSet
		var wg sync.WaitGroup
		for range 7 {
			wg.Go(func() {
				for {
					seq, _, ok := p.Next(t.Context())
					if !ok {
						return
					}
					if !seen.add(seq) {
						t.Errorf("number %d came twice", seq)
					}
				}
			})
		}
		wg.Wait()
		if seen.count() != 500 || seen.gaps() != 0 {
			t.Fatalf("%d numbers, %d gaps", seen.count(), seen.gaps())
		}
	})
}

func TestClosedLoopIsDueAtOnceAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPacer(time.Now(), 0, 0, time.Second)
		for range 1000 {
			if _, due, ok := p.Next(t.Context()); !ok || !due.Equal(time.Now()) {
				t.Fatal("a closed loop waits")
			}
		}
		pause(t.Context(), time.Second)
		if _, _, ok := p.Next(t.Context()); ok {
			t.Fatal("goes on after its duration")
		}
	})
}

func TestPacerStopsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := NewPacer(time.Now(), 0.1, 5, 0)
		p.Next(ctx)
		start := time.Now()
		if _, _, ok := p.Next(ctx); ok || time.Since(start) != time.Second {
			t.Fatal("does not listen to its context")
		}
	})
}

func TestPoissonPacerKeepsItsRateWithUnevenGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := NewPoissonPacer(start, 100, 0, 100*time.Second)
		n, short := 0, 0
		last := start
		for {
			seq, due, ok := p.Next(t.Context())
			if !ok {
				break
			}
			if seq != n || due.Before(last) || time.Now().Before(due) {
				t.Fatalf("number %d, want %d, due %v after %v", seq, n, due, last)
			}
			if due.Sub(last) < 5*time.Millisecond {
				short++
			}
			n, last = n+1, due
		}
		// 10,000 ± 3 standard deviations, and 1 - exp(-1/2) of the gaps are shorter than half the mean.
		if n < 9_700 || n > 10_300 || short < n*36/100 || short > n*43/100 {
			t.Errorf("%d in 100 s, %d short gaps", n, short)
		}
	})
}
