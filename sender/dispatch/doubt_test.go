package dispatch

import (
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// TestDoubtsReachBack has what was let go without a record be looked for however old it is, here and by who inherits.
func TestDoubtsReachBack(t *testing.T) {
	d := New(Config{})
	old, older := sender.IDAt(time.Now().Add(-10*time.Minute)), sender.IDAt(time.Now().Add(-20*time.Minute))
	d.mu.Lock()
	d.doubt("shard_0001", sender.ID{})
	d.doubt("shard_0001", older)
	d.doubt("shard_0001", old)
	low := d.doubtful["shard_0001"].low
	d.mu.Unlock()
	if low != older {
		t.Errorf("looks from %v on, want %v", low.Time(), older.Time())
	}
	if floor := sender.ID(d.Floor()); floor != older {
		t.Errorf("tells others to look from %v on, want %v", floor.Time(), older.Time())
	}
}
