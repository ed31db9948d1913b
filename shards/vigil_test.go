package shards

import (
	"testing"
	"time"
)

// TestVigil walks the edges of the judgement, with the server's clock right, ahead and behind.
func TestVigil(t *testing.T) {
	id, beat := [16]byte{1}, time.Now()
	for name, c := range map[string]struct {
		silent, ancient, sole bool
		from, at              time.Duration // our own heartbeats' run; the look, the first having been answered at 100 s
		dead, gone            bool
	}{
		"silent, first seen":                 {silent: true, ancient: true, at: 100 * time.Second},
		"silent, hardly watched":             {silent: true, at: 114 * time.Second},
		"silent and watched":                 {silent: true, at: 115 * time.Second, dead: true},
		"the server's clock is behind":       {at: 139 * time.Second},
		"still, whatever the server says":    {at: 140 * time.Second, dead: true},
		"silent, we were away too":           {silent: true, at: 140 * time.Second, from: 126 * time.Second},
		"still, we were away too":            {at: 165 * time.Second, from: 126 * time.Second},
		"silent, watched since we were back": {silent: true, at: 141 * time.Second, from: 126 * time.Second, dead: true},
		"not yet gone":                       {silent: true, at: 279 * time.Second, dead: true},
		"gone":                               {silent: true, at: 280 * time.Second, dead: true, gone: true},
		"gone, the server's clock is behind": {at: 280 * time.Second, dead: true, gone: true},
		"of long ago":                        {silent: true, ancient: true, at: 115 * time.Second, dead: true, gone: true},
		"we are alone":                       {sole: true, at: 100 * time.Second, dead: true},
	} {
		var w vigil
		row := []heartbeat{{ID: id, Seen: beat, Silent: c.silent, Ancient: c.ancient}}
		w.dead(row, 99*time.Second, 100*time.Second, c.from, c.sole)
		out := w.dead(row, c.at, c.at+time.Second, c.from, c.sole)
		if dead := len(out) == 1; dead != c.dead || dead && out[0].Gone != c.gone {
			t.Errorf("%s: %+v, want dead %v, gone %v", name, out, c.dead, c.gone)
		}
	}
}

// TestVigilSeesEveryChange of a heartbeat, be it into the past, and forgets rows that are gone.
func TestVigilSeesEveryChange(t *testing.T) {
	var w vigil
	row, beat := heartbeat{ID: [16]byte{1}, Silent: true}, time.Now()
	for i, seen := range []time.Time{beat, beat.Add(5 * time.Second), beat.Add(-time.Hour), beat.Add(-time.Hour + time.Microsecond)} {
		at := time.Duration(i) * 14 * time.Second
		row.Seen = seen
		if out := w.dead([]heartbeat{row}, at, at, 0, false); len(out) != 0 {
			t.Errorf("heartbeat %d: %+v", i, out)
		}
	}
	if w.dead(nil, time.Hour, time.Hour, 0, false); len(w.sights) != 0 {
		t.Errorf("%d kept of no rows", len(w.sights))
	}
}
