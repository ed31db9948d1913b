package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// TestWhy says in words what a message waits for, for every state.
func TestWhy(t *testing.T) {
	at := time.Date(2031, 12, 1, 14, 5, 0, 0, time.UTC)
	f := store.Found{Message: sender.Message{State: sender.Deferred, Attempt: 2}, Next: at,
		Reply: sender.Reply{Code: 421, Enhanced: "4.7.0", Text: "Try later", Host: "mx.gmail.com"}}
	if got, want := f.Why(), "mx.gmail.com answered 421 4.7.0 Try later; next try 2031-12-01 14:05:00 UTC, attempt 3"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	f.Reply = sender.Reply{Enhanced: "4.4.3", Text: "cannot find the domain's mail hosts"}
	if got := f.Why(); !strings.HasPrefix(got, "4.4.3 cannot find") {
		t.Errorf("%q", got)
	}
	said := map[string]sender.State{}
	for f.State = sender.Queued; f.State <= sender.Dead; f.State++ {
		why := f.Why()
		if other, twice := said[why]; twice || why == "" {
			t.Errorf("states %d and %d both say %q", other, f.State, why)
		}
		said[why] = f.State
	}
}
