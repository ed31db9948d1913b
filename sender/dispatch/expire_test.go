package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/dispatch"
)

// TestExpires has mail that is worth nothing after a while: it is tried again soon, and never delivered late.
func TestExpires(t *testing.T) {
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{Retry: []time.Duration{time.Hour}})
	sub := func(life time.Duration) *sender.Submission {
		return &sender.Submission{Account: 1, ExpiresAt: time.Now().Add(life)}
	}
	soon := s.submit(t, sub(30*time.Second), "defer-1@example.net")[0]
	never := s.submit(t, sub(8*time.Second), "defer-9@example.net")[0]
	late := s.submit(t, sub(1500*time.Millisecond), "slow-3000@late.example", "slow-3000@late.example", "slow-3000@late.example")
	begin := time.Now()
	if f := s.waitFor(t, soon, sender.Delivered); f.Attempt != 2 || time.Since(begin) > 15*time.Second {
		t.Errorf("delivered at attempt %d after %v; its retry should come after 5 s, not after an hour", f.Attempt, time.Since(begin))
	}
	s.waitFor(t, never, sender.Expired)
	_, events, err := s.store.Info(context.Background(), 1, never)
	if n := len(events); err != nil || n < 1 || events[n-1].Kind != sender.EventExpired {
		t.Errorf("events %+v, %v", events, err)
	}
	for _, id := range late { // the content of each had left before its time was over
		s.waitFor(t, id, sender.Delivered)
	}
}

// TestExpiresWhileItWaits has a lane's only place taken by a slow mail: what waits behind it expires unsent.
func TestExpiresWhileItWaits(t *testing.T) {
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{PerDomain: 1})
	first := s.send(t, "slow-2500@slow.example")[0]
	second := s.submit(t, &sender.Submission{Account: 1, ExpiresAt: time.Now().Add(1500 * time.Millisecond)}, "a@slow.example")[0]
	s.waitFor(t, first, sender.Delivered)
	s.waitFor(t, second, sender.Expired)
	if n := s.arrived(t); n != 1 {
		t.Errorf("%d mails arrived, want the first alone", n)
	}
}
