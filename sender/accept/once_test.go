package accept_test

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/shards"
)

func keyed(account int64, key string, digest byte, to ...string) *sender.Submission {
	s := mail(account, to...)
	s.IdempotencyKey, s.Digest = key, [32]byte{digest}
	return s
}

// TestOnce sends the same under one key 50 times at once, through two processes' doors: one is stored, all are
// answered as it was.
func TestOnce(t *testing.T) {
	e := pg.New(t, 4)
	one := open(t, e)
	other := *e
	other.Shards = e.Open(t, shards.Config{})
	doors := []*world{one, open(t, &other)}
	answers := make([][]accept.Result, 50)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			var err error
			if answers[i], err = doors[i%2].door.Accept(context.Background(), keyed(1, "k", 1, "a@example.net", "no address")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, a := range answers {
		if len(a) != 2 || !reflect.DeepEqual(a, answers[0]) {
			t.Fatalf("answers %+v and %+v", a, answers[0])
		}
	}
	found := one.stored(t, 1)
	if len(found) != 1 || found[0].ID.String() != answers[0][0].ID {
		t.Errorf("stored %+v", found)
	}
	if n := len(doors[0].handed) + len(doors[1].handed); n != 1 {
		t.Errorf("handed over %d times", n)
	}
	for _, d := range doors {
		for id, taken := range d.offered {
			if _, dropped := d.dropped[id]; taken && dropped == (d.handed[id] == 1) {
				t.Errorf("%s: handed over %d times, dropped: %v", id, d.handed[id], dropped)
			}
		}
	}
}

func TestOnceOtherBody(t *testing.T) {
	w := open(t, pg.New(t, 4))
	first := w.send(t, keyed(1, "k", 1, "a@example.net"))
	if _, err := w.door.Accept(context.Background(), keyed(1, "k", 2, "b@example.net")); kind(err) != sender.KindConflict {
		t.Errorf("another request under the key: %v", err)
	}
	if again := w.send(t, keyed(1, "k", 1, "a@example.net")); !reflect.DeepEqual(again, first) {
		t.Errorf("the same again: %+v, at first %+v", again, first)
	}
	for account, key := range map[int64]string{2: "k", 1: "other"} {
		if r := w.send(t, keyed(account, key, 2, "b@example.net")); r[0].ID == first[0].ID {
			t.Errorf("account %d with key %q was answered as another", account, key)
		}
	}
	if a, b := len(w.stored(t, 1)), len(w.stored(t, 2)); a != 2 || b != 1 {
		t.Errorf("%d and %d messages", a, b)
	}
}

// TestOnceRejected remembers the answer as it was given, though the do-not-send list has changed since.
func TestOnceRejected(t *testing.T) {
	w := open(t, pg.New(t, 1))
	schema := w.Shards.Of(1).Name
	exec(t, w.server(t, 1), "insert into "+schema+".rejects (account_id, email, reason) values (1, 'a@example.net', 'spam')")
	first := w.send(t, keyed(1, "k", 1, "a@example.net"))
	exec(t, w.server(t, 1), "delete from "+schema+".rejects")
	again := w.send(t, keyed(1, "k", 1, "a@example.net"))
	if first[0].Status != accept.Rejected || first[0].Reason != sender.ReasonSpam || !reflect.DeepEqual(first, again) {
		t.Errorf("first %+v, then %+v", first, again)
	}
	if w.send(t, keyed(1, "new", 1, "a@example.net"))[0].Status != accept.Sent {
		t.Error("a new key is answered by the old list")
	}
}

// TestOnceRefused has a refused request leave its key free.
func TestOnceRefused(t *testing.T) {
	w := open(t, pg.New(t, 1))
	bad := keyed(1, "k", 1, "a@example.net")
	bad.Content.Subject = "\n"
	if _, err := w.door.Accept(context.Background(), bad); kind(err) != sender.KindValidation {
		t.Fatal(err)
	}
	w.send(t, keyed(1, "k", 2, "a@example.net"))
}

// TestOnceAllInvalid has a request that stores no message still be answered once.
func TestOnceAllInvalid(t *testing.T) {
	w := open(t, pg.New(t, 1))
	first := w.send(t, keyed(1, "k", 1, "no address"))
	if again := w.send(t, keyed(1, "k", 1, "no address")); !reflect.DeepEqual(first, again) || first[0].Status != accept.Invalid {
		t.Errorf("first %+v, then %+v", first, again)
	}
	if len(w.rung)+len(w.handed) != 0 {
		t.Errorf("rung %v, handed over %v", w.rung, w.handed)
	}
}

// TestKeys has many keys at once be independent of each other.
func TestKeys(t *testing.T) {
	w := open(t, pg.New(t, 2))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if _, err := w.door.Accept(context.Background(), keyed(int64(i%4+1), fmt.Sprint("k", i), 1, "a@example.net")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	total := 0
	for a := range int64(4) {
		total += len(w.stored(t, a+1))
	}
	if total != 100 {
		t.Errorf("%d messages of 100", total)
	}
}
