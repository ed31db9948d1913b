package sender

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNewID holds ids to what the partitions need: they rise in every goroutine, never repeat, and tell their time.
func TestNewID(t *testing.T) {
	const goroutines, each = 8, 2000
	lists := make([][]ID, goroutines)
	begin := time.Now().Truncate(time.Millisecond)
	var wg sync.WaitGroup
	for g := range lists {
		wg.Go(func() {
			for range each {
				lists[g] = append(lists[g], NewID())
			}
		})
	}
	wg.Wait()
	end := time.Now().Add(100 * time.Millisecond) // made faster than its clock ticks, ids run ahead of it a little
	seen := map[ID]bool{}
	for _, list := range lists {
		for i, id := range list {
			if i > 0 && bytes.Compare(list[i-1][:], id[:]) >= 0 {
				t.Fatalf("%s came before %s", list[i-1], id)
			}
			if at := id.Time(); at.Before(begin) || at.After(end) {
				t.Fatalf("%s says %v, made between %v and %v", id, at, begin, end)
			}
			if id[6]>>4 != 7 || id[8]>>6 != 2 {
				t.Fatalf("%s is no UUIDv7", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != goroutines*each {
		t.Errorf("%d different ids of %d", len(seen), goroutines*each)
	}
}

func TestIDAt(t *testing.T) {
	before := time.Now()
	id := NewID()
	if low := IDAt(id.Time()); bytes.Compare(low[:], id[:]) > 0 || low.Time() != id.Time() {
		t.Errorf("the bound %s is above %s", low, id)
	}
	if high := IDAt(before.Add(time.Minute)); bytes.Compare(high[:], id[:]) <= 0 {
		t.Errorf("the bound a minute on, %s, is not above %s", high, id)
	}
	for at, want := range map[string]string{
		"1970-01-01T00:00:00Z": strings.Repeat("0", 32), "1969-12-31T23:59:59Z": strings.Repeat("0", 32), "0001-01-01T00:00:00Z": strings.Repeat("0", 32),
		"1970-01-01T00:00:00.258Z": "000000000102" + strings.Repeat("0", 20), // 0x0102 ms
		"9999-12-31T23:59:59.999Z": "e677d21fdbff" + strings.Repeat("0", 20), // the last that a client can write
	} {
		parsed, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := IDAt(parsed).String(); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

func TestParseID(t *testing.T) {
	id := NewID()
	for _, text := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := ParseID(text); err != nil || got != id {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	if id.IsZero() || !(ID{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	s := id.String()
	for _, text := range []string{"", s[:31], s + "0", s[:31] + "g", s[:8] + "-" + s[8:31], " " + s[1:], s[:31] + "\x00", strings.Repeat("ä", 16), strings.Repeat("0", 1<<20)} {
		if got, err := ParseID(text); err == nil || !got.IsZero() {
			t.Errorf("%.40q is taken for %s", text, got)
		}
	}
}

func TestFinal(t *testing.T) {
	for s := Queued; s <= Expired; s++ {
		if want := s != Queued && s != Sending && s != Deferred && s != Scheduled; s.Final() != want {
			t.Errorf("state %d: Final is %v", s, s.Final())
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("no room")
	err := Unavailable(cause)
	if !errors.Is(err, cause) || err.Kind != KindUnavailable || err.RetryAfter < 1 || err.Error() != "Service Temporarily Unavailable: no room" {
		t.Errorf("%+v says %q", err, err)
	}
	if strings.Contains(err.Message, "no room") {
		t.Error("what the client reads tells the cause")
	}
	invalid := Invalid("to[0].email", "has %d bytes", 300)
	if invalid.Kind != KindValidation || invalid.Field != "to[0].email" || invalid.Error() != "has 300 bytes" || invalid.Unwrap() != nil {
		t.Errorf("%+v says %q", invalid, invalid)
	}
}
