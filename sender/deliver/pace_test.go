package deliver

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// track is a pace with a clock of its own.
type track struct {
	t   *testing.T
	p   pace
	now time.Time
}

func newTrack(t *testing.T, start, most int) *track {
	return &track{t: t, p: newPace(start, most), now: time.Unix(1_700_000_000, 0)}
}

func (k *track) admitted() visit {
	k.t.Helper()
	v, a := k.p.admit(k.now)
	if a != enter {
		k.t.Fatalf("not admitted: %d of %+v", a, k.p)
	}
	return v
}

func (k *track) left(v visit, s signal) { k.p.left(k.now, v, s, &sender.Reply{Code: 421, Text: "no"}) }

// run lets in as many as may, n times, and all of them say the same.
func (k *track) run(n int, s signal) {
	k.t.Helper()
	for range n {
		var in []visit
		for v, a := k.p.admit(k.now); a == enter; v, a = k.p.admit(k.now) {
			in = append(in, v)
		}
		if len(in) == 0 {
			k.t.Fatalf("nobody is admitted: %+v", k.p)
		}
		for _, v := range in {
			k.left(v, s)
		}
	}
}

func (k *track) want(limit int) {
	k.t.Helper()
	if k.p.limit != limit {
		k.t.Fatalf("the limit is %d, want %d: %+v", k.p.limit, limit, k.p)
	}
}

func TestPaceRisesByOneACohortAndIsHalved(t *testing.T) {
	k := newTrack(t, 5, 8)
	first := k.admitted()
	if _, a := k.p.admit(k.now); a != hold {
		t.Error("a second one came in before the first was answered")
	}
	k.left(first, well)
	k.run(1, well)
	k.want(6)
	k.run(9, well)
	k.want(8) // and not more
	k.run(1, crowded)
	k.want(4) // once for all who were inside
	k.run(3, well)
	k.want(7)
	k.run(1, well) // more than 7 was refused: so it is tried, once after 7, and then
	k.want(8)
	k.run(1, crowded)
	k.want(4)
	k.run(3, well)
	k.want(7)
	k.run(1, well)
	k.want(7) // only after twice as many
	k.run(1, well)
	k.want(8)
	k.run(5, alive)
	k.want(8)
}

func TestPaceShutsASiteThatReachesNobody(t *testing.T) {
	k := newTrack(t, 5, 20)
	for wait := shutLeast; wait < shutMost; wait = min(2*wait, shutMost) {
		for range 3 {
			if !k.p.shut.IsZero() && k.now.Before(k.p.shut) {
				break
			}
			k.run(1, unreached)
		}
		if got := k.p.shut.Sub(k.now); got != wait {
			t.Fatalf("shut for %v, want %v", got, wait)
		}
		if _, a := k.p.admit(k.now.Add(wait - 1)); a != turnAway {
			t.Error("somebody is let in before the time")
		}
		k.now = k.p.shut
		v := k.admitted()
		if _, a := k.p.admit(k.now); a != turnAway {
			t.Error("a second one is let in to look")
		}
		k.left(v, nothing) // cut off: the look was no look
	}
	v := k.admitted()
	k.left(v, well)
	if !k.p.shut.IsZero() || k.p.limit != 2 {
		t.Errorf("not open again, at the smallest: %+v", k.p)
	}
}

func TestPacePausesAfterABlock(t *testing.T) {
	k := newTrack(t, 5, 20)
	k.left(k.admitted(), well)
	old := k.admitted()
	k.left(k.admitted(), blocked)
	first := k.p.shut
	if first.Sub(k.now) != shutLeast {
		t.Fatalf("%+v", k.p)
	}
	k.left(old, blocked) // was inside at the same time
	if k.p.shut != first {
		t.Error("one block shut the site twice")
	}
	k.now = first
	k.left(k.admitted(), well)
	k.left(k.admitted(), blocked)
	if k.p.shut.Sub(k.now) != 2*shutLeast {
		t.Error("the second pause is not longer")
	}
	k.now = k.p.shut
	k.left(k.admitted(), well)
	k.now = k.now.Add(time.Hour)
	k.left(k.admitted(), blocked)
	if k.p.shut.Sub(k.now) != shutLeast {
		t.Error("a pause after an hour of peace begins anew")
	}
	// Refusals without end are a block, whatever the words, and so is a site that is always too busy.
	for s, n := range map[signal]int{unwanted: blockAfter, crowded: deadAfter} {
		k = newTrack(t, 5, 20)
		for i := range n {
			if !k.p.shut.IsZero() {
				t.Errorf("shut after %d signals %d", i, s)
				break
			}
			k.left(k.admitted(), s)
		}
		if k.p.shut.IsZero() {
			t.Errorf("%d signals %d did not shut the site", n, s)
		}
	}
	k = newTrack(t, 5, 20)
	for range 3 * blockAfter {
		k.left(k.admitted(), unwanted)
		k.left(k.admitted(), well)
	}
	if !k.p.shut.IsZero() {
		t.Error("refusals among deliveries shut the site")
	}
}

// TestPaceConverges sends to a site that takes three at once and refuses the others, and one that takes any number.
func TestPaceConverges(t *testing.T) {
	k := newTrack(t, 5, 20)
	refused, total, late := 0, 0, 0
	for total < 5000 {
		var in []visit
		for v, a := k.p.admit(k.now); a == enter; v, a = k.p.admit(k.now) {
			in = append(in, v)
		}
		rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		for i, v := range in {
			total++
			if i < 3 {
				k.left(v, well)
				continue
			}
			k.left(v, crowded)
			refused++
			if total > 2500 {
				late++
			}
		}
	}
	if refused*100 > 2*total || late*100 > total || k.p.limit > 4 {
		t.Errorf("%d of %d refused, %d of them late; the limit is %d", refused, total, late, k.p.limit)
	}
	k.run(2000, well) // the site has grown
	k.want(20)
}

// TestPaceAnyOrder throws random signals at a pace: its numbers stay in their bounds and it never locks itself up.
func TestPaceAnyOrder(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		k := newTrack(t, 1+rnd.IntN(10), 1+rnd.IntN(20))
		var in []visit
		for range 2000 {
			k.now = k.now.Add(time.Duration(rnd.IntN(20)) * time.Second)
			if rnd.IntN(2) == 0 || len(in) == 0 {
				if v, a := k.p.admit(k.now); a == enter {
					in = append(in, v)
				} else if a == hold && len(in) == 0 {
					t.Fatalf("seed %d: nobody is inside and nobody let in: %+v", seed, k.p)
				}
			} else {
				i := rnd.IntN(len(in))
				k.left(in[i], signal(rnd.IntN(int(unreached)+1)))
				in = append(in[:i], in[i+1:]...)
			}
			if k.p.inside != len(in) || k.p.limit < 1 || k.p.limit > k.p.most || k.p.shutFor > shutMost || k.p.looking && len(in) == 0 {
				t.Fatalf("seed %d: %d inside: %+v", seed, len(in), k.p)
			}
		}
	}
}
