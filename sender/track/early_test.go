package track_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/store"
)

// TestWhateverBecameOfIt has an opt-out count though its message is not known to have arrived: the connection may have
// broken behind the final dot, and the mail lies in the mailbox all the same.
func TestWhateverBecameOfIt(t *testing.T) {
	w := open(t, pg.New(t, 1))
	for name, fact := range map[string]*store.Fact{
		"sending":      nil,
		"deferred":     {State: sender.Deferred, Kind: sender.EventDeferred, Next: time.Now().Add(time.Hour)},
		"soft-bounced": {State: sender.SoftBounced, Kind: sender.EventSoftBounced},
		"bounced":      {State: sender.Bounced, Kind: sender.EventBounced},
	} {
		to := name + "@example.net"
		id, err := sender.ParseID(w.send(t, 1, to).ID)
		if err != nil {
			t.Fatal(err)
		}
		if fact != nil {
			fact.Account, fact.Message, fact.Attempt, fact.At = 1, id, 1, time.Now()
			done := make(chan error, 1)
			w.ledger.Record(fact, func(err error) { done <- err })
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		before, _ := w.seen(t, 1, id)
		for range 2 {
			if r := post(t, w.link(1, id), oneClick); r.status != http.StatusOK {
				t.Errorf("%s: %v", name, r)
			}
		}
		if r := w.send(t, 1, to); r.Status != accept.Rejected || r.Reason != sender.ReasonUnsub {
			t.Errorf("%s: the next send: %v", name, r)
		}
		if after, _ := w.seen(t, 1, id); after != before {
			t.Errorf("%s: state %d became %d", name, before, after)
		}
	}
}
