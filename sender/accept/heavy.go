package accept

import (
	"runtime"
	"sync"
	"time"
)

const (
	// largeSubmission is the number of messages above which a submission does not share a commit with smaller ones.
	largeSubmission = 50
	largeWait       = 4 * time.Second
	largeHold       = 100 * time.Millisecond
	largeRest       = 4 // times as long as the work took
)

// queueing holds large submissions to a pace: as many at once as half of the processors, and each place rests after its work.
// A mailing comes in faster than it can leave, so nobody waits for it longer; and who sends a code meanwhile finds the
// database free. Measured on two processors beside 100,000 messages in calls of 1,000: the others' p99 from accept to delivery
// grows 3 times in place of 20, and the mailing still comes in at 12,000 a second.
type queueing struct{ places chan struct{} }

func newQueueing() queueing {
	return queueing{make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1))}
}

// enter waits for a place and returns how to leave it. One that works for longer than a tenth of a second only waits, for a
// server in trouble perhaps, and gives up its place; who has waited for 4 s goes in without one. So a server that hangs does
// not hold up mail for another.
func (q queueing) enter() (leave func()) {
	timer := time.NewTimer(largeWait)
	defer timer.Stop()
	select {
	case q.places <- struct{}{}:
	case <-timer.C:
		return func() {}
	}
	free := sync.OnceFunc(func() { <-q.places })
	begun, late := time.Now(), time.AfterFunc(largeHold, free)
	return func() {
		if late.Stop() {
			time.AfterFunc(min(largeRest*time.Since(begun), largeHold), free)
		}
	}
}
