package accept

import (
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

func TestWhatIsBeyondTheShareIsBulk(t *testing.T) {
	p, now := newPace(50, 500), time.Now()
	send := func(n int, important bool, at time.Time) sender.Class {
		return p.class(&sender.Submission{Account: 1, Important: important}, n, at)
	}
	if c := send(500, false, now); c != sender.Prompt {
		t.Errorf("the burst is class %d", c)
	}
	if c := send(1, false, now); c != sender.Bulk {
		t.Errorf("what is beyond the burst is class %d", c)
	}
	if c := send(1, true, now); c != sender.BulkImportant {
		t.Errorf("an important one beyond the burst is class %d", c)
	}
	if c := p.class(&sender.Submission{Account: 2}, 1, now); c != sender.Prompt {
		t.Errorf("another account's is class %d", c)
	}
	if c := send(51, false, now.Add(time.Second)); c != sender.Bulk {
		t.Errorf("51 after a second are class %d", c)
	}
	if c := send(50, false, now.Add(time.Second)); c != sender.Prompt {
		t.Errorf("50 after a second are class %d", c)
	}
	if c := send(1, false, now.Add(-time.Hour)); c != sender.Bulk {
		t.Errorf("a clock that steps back gives tokens: class %d", c)
	}
}

func TestScheduledMailIsCountedByItsMinute(t *testing.T) {
	p, now := newPace(50, 500), time.Now()
	at := now.Add(time.Hour).Truncate(time.Minute)
	one := func(at time.Time) sender.Class { return p.class(&sender.Submission{Account: 1, SendAt: at}, 1000, now) }
	for i := range 3 {
		if c := one(at); c != sender.Prompt {
			t.Errorf("thousand %d of a minute is class %d", i, c)
		}
	}
	if c := one(at.Add(59 * time.Second)); c != sender.Bulk {
		t.Errorf("the fourth thousand of a minute is class %d", c)
	}
	if c := one(at.Add(time.Minute)); c != sender.Prompt {
		t.Errorf("the first thousand of the next minute is class %d", c)
	}
}

func TestPaceStaysSmall(t *testing.T) {
	p, now := newPace(50, 500), time.Now()
	for i := range int64(2 * maxBuckets) {
		p.class(&sender.Submission{Account: i}, 1, now)
	}
	for i := range int64(2 * maxSlots) {
		p.class(&sender.Submission{Account: i, SendAt: now.Add(time.Hour)}, 1, now)
	}
	if len(p.buckets) > maxBuckets || len(p.slots) > maxSlots {
		t.Errorf("%d buckets and %d slots are kept", len(p.buckets), len(p.slots))
	}
}
