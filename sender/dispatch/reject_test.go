package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/dispatch"
)

// TestRejectedBeforeSend puts recipients on the do-not-send list after their mail was accepted: what waits for its time or
// for its next attempt is rejected, and nothing of it is sent; what is on the allowlist goes.
func TestRejectedBeforeSend(t *testing.T) {
	s, ctx := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{Retry: []time.Duration{3 * time.Second}}), context.Background()
	scheduled := s.submit(t, &sender.Submission{Account: 1, SendAt: time.Now().Add(2 * time.Second)}, "gone@example.net", "boss@example.net")
	retried := s.send(t, "defer-1+a@example.net")[0]
	s.waitFor(t, retried, sender.Deferred)
	if err := s.store.Allow(ctx, 1, "boss@example.net", ""); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"Gone@EXAMPLE.net", "boss@example.net", "defer-1+a@example.net"} {
		if _, err := s.store.AddReject(ctx, 1, email, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []sender.ID{scheduled[0], retried} {
		if f := s.waitFor(t, id, sender.Rejected); f.Reason != sender.ReasonCustom {
			t.Errorf("%s: reason %q", f.Recipient.Email, f.Reason)
		}
	}
	s.waitFor(t, scheduled[1], sender.Delivered)
	if n := s.arrived(t); n != 1 {
		t.Errorf("%d mails arrived, want the one to the allowlist's address", n)
	}
}
