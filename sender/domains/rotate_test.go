package domains

import (
	"testing"
	"time"
)

// TestRotation makes keys, publishes them, uses them after an hour, and forgets the old ones after a week.
func TestRotation(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "example.com")
	w.publish(t, d)
	w.check(t, 1, "example.com")
	old := w.selectors(t)

	d, err := w.Rotate(t.Context(), 1, "example.com")
	if err != nil || !d.Rotating || len(d.Records) != 9 {
		t.Fatalf("%+v, %v", d, err)
	}
	if again, err := w.Rotate(t.Context(), 1, "example.com"); err != nil || len(again.Records) != 9 || stateOf(t, again, DKIMNext).Value != stateOf(t, d, DKIMNext).Value {
		t.Errorf("rotated twice: %+v, %v", again, err)
	}
	w.pass(2 * time.Hour)
	w.check(t, 1, "example.com")
	if got := w.selectors(t); got != old {
		t.Errorf("keys that nobody published sign: %v", got)
	}
	w.zone.add(t, stateOf(t, d, DKIMNext).Record) // one of the two
	w.check(t, 1, "example.com")
	w.pass(2 * time.Hour)
	w.check(t, 1, "example.com")
	if got := w.selectors(t); got != old {
		t.Errorf("one of two is published, and they sign: %v", got)
	}
	w.zone.drop(stateOf(t, d, DKIMNext).Name)
	w.publish(t, d, DKIMNext)
	if d = w.check(t, 1, "example.com"); !d.Rotating || w.selectors(t) != old {
		t.Error("keys sign in the hour in which they were first seen")
	}
	w.pass(time.Hour)
	if d = w.check(t, 1, "example.com"); d.Rotating || d.Verified.IsZero() {
		t.Errorf("seen for an hour: rotating %v, verified %v", d.Rotating, d.Verified)
	}
	next := w.selectors(t)
	if next == old || next[0] == "" || next[1] == "" {
		t.Fatalf("%v after %v", next, old)
	}
	if r := stateOf(t, d, DKIMOld); r.Name != dkimName(old[0], "example.com") {
		t.Errorf("the old record must stay: %+v", r)
	}
	row, err := w.cfg.Store.Domain(t.Context(), 1, "example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range row.Keys {
		if (len(k.Sealed) == 0) != (k.Selector == old[0] || k.Selector == old[1]) {
			t.Errorf("%s: %d bytes of a private key", k.Selector, len(k.Sealed))
		}
	}
	w.pass(oldFor - time.Minute)
	if d = w.check(t, 1, "example.com"); len(d.Records) != 9 {
		t.Errorf("%d records a week later less a minute", len(d.Records))
	}
	w.pass(time.Minute)
	if d = w.check(t, 1, "example.com"); len(d.Records) != 7 || w.selectors(t) != next {
		t.Errorf("%d records a week later", len(d.Records))
	}
}

func (w *world) selectors(t *testing.T) [2]string {
	t.Helper()
	keys, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	return [2]string{keys[0].Selector, keys[1].Selector}
}

// TestRunChecksOnce has two processes look for what is due; each domain is taken by one of them.
func TestRunChecksOnce(t *testing.T) {
	w := open(t)
	const many = 30 // more than are taken at once
	names := make([]string, many)
	for i := range names {
		names[i] = string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".example.com"
		d := w.add(t, int64(1+i%3), names[i])
		w.publish(t, d)
	}
	for i, name := range names { // due now
		if _, err := w.Sign(t.Context(), int64(1+i%3), name, false); err != nil {
			t.Fatal(err)
		}
	}
	w.due(t)
	other := w.another()
	for _, d := range []*Domains{w.Domains, other} {
		run(t, d.Run)
	}
	verified := func() (n int) {
		for account := range int64(3) {
			list, err := w.List(t.Context(), 1+account)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range list {
				if !d.Verified.IsZero() {
					n++
				}
			}
		}
		return n
	}
	within(t, 30*time.Second, "all domains to be verified", func() bool { return verified() == many })
	if n := count(t, w.Domains) + count(t, other); n != many {
		t.Errorf("%d checks of %d domains", n, many)
	}
}
