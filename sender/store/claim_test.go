package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

func submissionOf(account int64, class sender.Class, n int) *store.Accepted {
	to := make([]string, n)
	for i := range to {
		to[i] = fmt.Sprintf("r%d@x.y", i)
	}
	a := submission(account, to...)
	for i := range a.Messages {
		a.Messages[i].Class = class
	}
	return a
}

// TestBulkTakesTurns claims beside the backlog of one account: another's bulk gets its part, important mail goes first, and
// mail within its account's share does not wait for any of it.
func TestBulkTakesTurns(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	accept(t, e, st, submissionOf(1, sender.Bulk, 100))
	accept(t, e, st, submissionOf(1, sender.BulkImportant, 3))
	accept(t, e, st, submissionOf(2, sender.Bulk, 4))
	accept(t, e, st, submissionOf(3, sender.Prompt, 2))
	claim := func(take store.Take) (by map[string]int) {
		t.Helper()
		got, err := st.Claim(ctx, "shard_0000", take)
		if err != nil {
			t.Fatal(err)
		}
		by = map[string]int{}
		for _, c := range got {
			by[fmt.Sprint(c.Account, "/", c.Class)]++
		}
		return by
	}
	want := func(got map[string]int, all ...any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(all...) {
			t.Errorf("claimed %v, want %v", got, fmt.Sprint(all...))
		}
	}
	want(claim(store.Take{Prompt: 10, Bulk: 8}), "map[1/1:3 1/2:1 2/2:4 3/0:2]")
	want(claim(store.Take{Prompt: 10, Bulk: 8, After: 2}), "map[]") // nobody comes after account 2
	want(claim(store.Take{Prompt: 10, Bulk: 8, Without: []int64{1}}), "map[]")
	want(claim(store.Take{Prompt: 10, Bulk: 8}), "map[1/2:8]")
	if after, err := st.Due(ctx, "shard_0000", store.Wanted{Bulk: true, Suspect: true}); err != nil || after > 0 {
		t.Errorf("due in %v, %v", after, err)
	}
	if after, err := st.Due(ctx, "shard_0000", store.Wanted{Bulk: true, Suspect: true, Without: []int64{1}}); err != nil || after != store.Never {
		t.Errorf("without the account that waits: due in %v, %v", after, err)
	}
}

// TestSuspects frees the same message of dead instances again and again: from the second time on it is taken alone.
func TestSuspects(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	accept(t, e, st, submission(1, "a@x.y", "b@x.y"))
	for i := range 3 {
		dead := e.Open(t, shards.Config{})
		take := store.Take{Prompt: 10}
		if i == 2 {
			if got, err := st.Claim(ctx, "shard_0000", take); err != nil || len(got) != 0 {
				t.Fatalf("a suspect is taken with the others: %v, %v", got, err)
			}
			take.Suspect = 1
		}
		got, err := store.New(dead).Claim(ctx, "shard_0000", take)
		if want := 2 - i/2; err != nil || len(got) != want || got[0].Crashes != i {
			t.Fatalf("round %d: %+v, %v", i, got, err)
		}
		if _, err := st.Free(ctx, "shard_0000", shards.Instance{ID: dead.Instance(), Floor: dead.Instance()}); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := st.Due(ctx, "shard_0000", store.Wanted{Bulk: true}); err != nil || after != store.Never {
		t.Errorf("suspects left out: due in %v, %v", after, err)
	}
}

// TestReviveTheDead records a message as dead and has it tried again.
func TestReviveTheDead(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	a := submission(1, "a@x.y")
	a.Claimed = true
	accept(t, e, st, a)
	id := a.Messages[0].ID
	record(t, e, st, &store.Fact{Account: 1, Message: id, Attempt: 1, State: sender.Dead, Kind: sender.EventDead, At: time.Now(), Crashed: true, Reply: sender.Reply{Text: "why"}})
	if f, events, err := st.Info(ctx, 1, id); err != nil || f.State != sender.Dead || len(events) != 1 || events[0].Reply.Text != "why" {
		t.Fatalf("dead: %+v %v %v", f, events, err)
	}
	if got, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 9, Bulk: 9, Suspect: 9}); err != nil || len(got) != 0 {
		t.Fatalf("a dead message is claimed: %v, %v", got, err)
	}
	for _, want := range []int{1, 0} {
		if n, err := st.Revive(ctx, "shard_0000", [][16]byte{id}); err != nil || n != want {
			t.Fatalf("revived %d, want %d: %v", n, want, err)
		}
	}
	got, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 9})
	if err != nil || len(got) != 1 || got[0].Crashes != 0 || time.Until(got[0].Expires) < time.Hour {
		t.Errorf("claimed: %+v, %v", got, err)
	}
}

// TestPerishable keeps the customer's own end of a message's life, also when it is moved.
func TestPerishable(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	a := submission(1, "a@x.y")
	ends := time.Now().Add(2 * time.Hour).Truncate(time.Microsecond)
	a.Messages[0].Expires, a.Messages[0].Perishable, a.Submission.SendAt = ends, true, time.Now().Add(time.Hour)
	accept(t, e, st, a)
	id := a.Messages[0].ID
	if _, err := st.Reschedule(ctx, 1, id, ends); err == nil {
		t.Error("moved to the time at which it expires")
	}
	if _, err := st.Reschedule(ctx, 1, id, time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 1})
	if err != nil || len(got) != 1 || !got[0].Perishable || !got[0].Expires.Equal(ends) {
		t.Errorf("claimed: %+v, %v", got, err)
	}
}

// TestNeeded finds what is still to be sent by the time of its making, in each class.
func TestNeeded(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	hourAgo, inAnHour := sender.IDAt(time.Now().Add(-time.Hour)), sender.IDAt(time.Now().Add(time.Hour))
	for _, class := range []sender.Class{sender.Prompt, sender.Bulk} {
		if n, err := st.Needed(ctx, "shard_0000", hourAgo, inAnHour); err != nil || n != int(class)/2 {
			t.Errorf("needed before class %d: %d, %v", class, n, err)
		}
		a := submissionOf(1, class, 2)
		a.Submission.SendAt = time.Now().Add(300 * 24 * time.Hour)
		accept(t, e, st, a)
	}
	if n, err := st.Needed(ctx, "shard_0000", hourAgo, inAnHour); err != nil || n != 2 {
		t.Errorf("needed: %d, %v", n, err)
	}
	if n, err := st.Needed(ctx, "shard_0000", sender.ID{}, hourAgo); err != nil || n != 0 {
		t.Errorf("needed of those before: %d, %v", n, err)
	}
}
