package dispatch_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestPoison has a message whose every attempt panics: after five it is dead, its row and the dead letters say why, the
// others go on, and once the fault is mended it can be tried again.
func TestPoison(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{Retry: []time.Duration{50 * time.Millisecond},
		ReturnPath: func(account int64, id sender.ID, domain, own string) string {
			if account == 1 && broken.Load() {
				panic("a bad day")
			}
			return returnPath(account, id, domain, own)
		}})
	bad := s.send(t, "a@example.net")[0]
	good := s.sendAs(t, 2, "b@example.net")[0]
	s.waitFor(t, bad, sender.Dead)
	shardtest.Within(t, 10*time.Second, "the other account's mail", func() bool {
		f, _, err := s.store.Info(context.Background(), 2, good)
		return err == nil && f.State == sender.Delivered
	})
	_, events, err := s.store.Info(context.Background(), 1, bad)
	if err != nil || len(events) != 5 || events[4].Kind != sender.EventDead || !strings.Contains(events[4].Reply.Text, "panic with a string") {
		t.Errorf("events %+v, %v", events, err)
	}
	broken.Store(false)
	s.replay(t, bad)
	s.waitFor(t, bad, sender.Delivered)
}

// replay finds a message on the dead letters and has it tried again.
func (s *stack) replay(t *testing.T, id sender.ID) {
	t.Helper()
	var found jobs.DeadJob
	shardtest.Within(t, 10*time.Second, "the dead letter", func() bool {
		list, err := s.queue.DeadJobs(context.Background(), jobs.Filter{Kind: dispatch.JobDeliver, Shard: "shard_0000"})
		if err != nil || len(list) != 1 {
			return false
		}
		found = list[0]
		return true
	})
	if len(found.IDs) != 1 || found.IDs[0] != id.String() || found.Tries != 5 {
		t.Errorf("dead letter %+v", found)
	}
	if _, err := s.queue.Replay(context.Background(), found.Number); err != nil {
		t.Fatal(err)
	}
}

// TestPoisonOfProcesses claims a message that five processes had in hand when they ended: it is not tried a sixth time.
func TestPoisonOfProcesses(t *testing.T) {
	e := pg.New(t, 1)
	s := build(t, e.Shards, world(t), dispatch.Config{})
	id := s.submit(t, &sender.Submission{Account: 1, SendAt: time.Now().Add(time.Hour)}, "a@example.net")[0]
	err := e.Shards.Write(context.Background(), 1, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `update messages set crashes = 5, class = 3, next_attempt_at = now()`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.queue.Ring(context.Background(), jobs.Job{Kind: dispatch.JobDeliver, Shard: "shard_0000"}); err != nil {
		t.Fatal(err)
	}
	s.waitFor(t, id, sender.Dead)
	if n := s.arrived(t); n != 0 {
		t.Errorf("%d mails arrived", n)
	}
}

// TestSuspectsGoOneAtATime has two messages that processes ended with: the second waits for the first.
func TestSuspectsGoOneAtATime(t *testing.T) {
	e := pg.New(t, 2)
	s := build(t, e.Shards, world(t), dispatch.Config{SweepEvery: 200 * time.Millisecond})
	soon := &sender.Submission{Account: 1, SendAt: time.Now().Add(time.Hour)}
	ids := s.submit(t, soon, "slow-1500@example.net", "slow-1500@example.org")
	err := e.Shards.Write(context.Background(), 1, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `update messages set crashes = 2, class = 3, next_attempt_at = now()`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		s.waitFor(t, id, sender.Delivered)
	}
	at := make([]time.Time, len(ids))
	for i, id := range ids {
		_, events, err := s.store.Info(context.Background(), 1, id)
		if err != nil || len(events) != 1 {
			t.Fatal(events, err)
		}
		at[i] = events[0].At
	}
	if apart := at[1].Sub(at[0]).Abs(); apart < time.Second {
		t.Errorf("delivered %v apart: they were in hand together", apart)
	}
}
