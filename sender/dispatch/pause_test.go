package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestPause pauses an account and then a shard: what is sent meanwhile waits in its rows, others go on, and after the
// resume it leaves. Mail of the account that was in hand already waits too.
func TestPause(t *testing.T) {
	e := pg.New(t, 1)
	account := func(name string) int64 {
		a, _, err := e.Shards.CreateAccount(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	bad, good := account("bad"), account("good")
	s := build(t, e.Shards, world(t), dispatch.Config{SweepEvery: 200 * time.Millisecond, PerDomain: 1})
	state := func(account int64, id sender.ID) sender.State {
		f, _, err := s.store.Info(context.Background(), account, id)
		if err != nil {
			t.Fatal(err)
		}
		return f.State
	}
	delivered := func(account int64, id sender.ID) {
		t.Helper()
		shardtest.Within(t, 20*time.Second, "delivery", func() bool { return state(account, id) == sender.Delivered })
	}
	under := s.sendAs(t, bad, "slow-1500@slow.example")[0]
	waiting := s.sendAs(t, bad, "a@slow.example")[0] // in hand behind the slow one when the pause begins

	p := shards.Pause{Kind: dispatch.JobDeliver, Account: bad, Why: "looks stolen"}
	set(t, e, p)
	later := s.sendAs(t, bad, "b@example.net")[0]
	other := s.sendAs(t, good, "c@example.net")[0]
	delivered(good, other)
	delivered(bad, under) // what was on the wire is not cut off
	delivered(good, s.sendAs(t, good, "d@slow.example")[0])
	if st := state(bad, later); st != sender.Queued {
		t.Errorf("a paused account's message is in state %d", st)
	}
	shardtest.Within(t, 5*time.Second, "what was in hand to be given back", func() bool { return state(bad, waiting) == sender.Queued })
	resume(t, e, p)
	delivered(bad, later)
	delivered(bad, waiting)

	all := shards.Pause{Kind: dispatch.JobDeliver, Shard: "shard_0000"}
	set(t, e, all)
	held := s.sendAs(t, good, "e@example.net")[0]
	if f, _, err := s.store.Info(context.Background(), good, held); err != nil || f.State != sender.Queued {
		t.Errorf("in a paused shard: %+v, %v", f, err)
	}
	resume(t, e, all)
	delivered(good, held)
}

func set(t *testing.T, e *shardtest.Env, p shards.Pause) {
	t.Helper()
	if err := e.Shards.SetPause(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	shardtest.Within(t, 10*time.Second, "the pause to be known", func() bool {
		return e.Shards.Map().Paused(p.Kind, "shard_0000", p.Account)
	})
}

func resume(t *testing.T, e *shardtest.Env, p shards.Pause) {
	t.Helper()
	if err := e.Shards.Resume(context.Background(), p); err != nil {
		t.Fatal(err)
	}
}
