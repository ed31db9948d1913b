package dispatch

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

// TestTurns lets accounts take turns, important mail of an account go first, and bulk have one turn in five.
func TestTurns(t *testing.T) {
	var q turns
	add := func(account int64, class sender.Class, name string) {
		q.add(&item{m: sender.Message{Account: account, Class: class}, shard: name})
	}
	for i := range 6 {
		add(1, sender.Prompt, fmt.Sprintf("a%d", i))
	}
	add(2, sender.Prompt, "b0")
	for i := range 3 {
		add(3, sender.Bulk, fmt.Sprintf("c%d", i))
	}
	add(3, sender.BulkImportant, "C")
	add(4, sender.Bulk, "d0")
	if len(q.all()) != 12 || q.n != 12 || q.of(3) != 4 || q.of(9) != 0 {
		t.Errorf("%d of 12 wait, %d of account 3", q.n, q.of(3))
	}
	var got []string
	for it := q.next(func(int64) bool { return true }); it != nil; it = q.next(func(int64) bool { return true }) {
		got = append(got, it.shard)
	}
	if want := "a0 b0 a1 a2 C a3 a4 a5 d0 c0 c1 c2"; strings.Join(got, " ") != want {
		t.Errorf("order %v, want %s", got, want)
	}
	add(1, sender.Prompt, "a")
	add(2, sender.Bulk, "b")
	if it := q.next(func(account int64) bool { return account == 2 }); it == nil || it.shard != "b" {
		t.Errorf("next of those who may: %+v", it)
	}
	if it := q.next(func(account int64) bool { return account == 2 }); it != nil || q.n != 1 {
		t.Errorf("nobody may, but %+v", it)
	}
}
