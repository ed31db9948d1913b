package accept

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLargeSubmissionsRest has one place after the other taken: they rest only while others send, and never for long.
func TestLargeSubmissionsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueing()
		q.places = make(chan struct{}, 1)
		took := func(work time.Duration) time.Duration {
			begun := time.Now()
			leave := q.enter()
			waited := time.Since(begun)
			<-time.After(work)
			leave()
			synctest.Wait()
			return waited
		}
		took(10 * time.Millisecond)
		if w := took(10 * time.Millisecond); w != 0 {
			t.Errorf("waited %v though nobody else sends", w)
		}
		q.pass()
		took(10 * time.Millisecond)
		if w := took(10 * time.Millisecond); w != 40*time.Millisecond {
			t.Errorf("waited %v, want four times the work", w)
		}
		q.enter() // hangs
		if w := took(0); w != largeHold {
			t.Errorf("waited %v for one that hangs", w)
		}
		q.places <- struct{}{} // is never freed
		if w := took(0); w != largeWait {
			t.Errorf("waited %v for a place that is never free", w)
		}
	})
}
