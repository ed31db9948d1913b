package loadtest

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestQuantilesAreNearTheExactOnes(t *testing.T) {
	var h histogram
	random := rand.New(rand.NewPCG(1, 2))
	var exact []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(random.Float64()*16)) * time.Microsecond // 1 µs to 9 s
		exact = append(exact, d)
		h.add(d)
	}
	slices.Sort(exact)
	for _, q := range []float64{0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
		want := exact[int(math.Ceil(q*float64(len(exact))))-1]
		if got := h.quantile(q); got < want || float64(got) > float64(want)*1.008+1000 {
			t.Errorf("quantile %v is %v, want %v or up to 0.8 %% more", q, got, want)
		}
	}
}

func TestQuantilesOfFew(t *testing.T) {
	var h histogram
	if h.quantile(.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	h.add(5 * time.Microsecond)
	h.add(-time.Second) // a clock that went back
	h.add(3 * time.Hour)
	if h.quantile(.01) != 0 || h.quantile(.5) != 5*time.Microsecond || h.largest != 3*time.Hour {
		t.Errorf("got %v, %v, %v", h.quantile(.01), h.quantile(.5), h.largest)
	}
}

func TestEveryBucketHoldsItsEnd(t *testing.T) {
	for i := range buckets {
		var h histogram
		h.add(bucketEnd(i))
		h.add(bucketEnd(i) + time.Microsecond)
		if h.buckets[i] == 0 || h.buckets[i] == 2 && i < buckets-1 {
			t.Fatalf("bucket %d does not end at %v", i, bucketEnd(i))
		}
	}
}

func TestSerialSet(t *testing.T) {
	var s, o serialSet
	for _, i := range []int{0, 63, 64, 1000} {
		if !s.add(i) || s.add(i) {
			t.Fatalf("%d is not new the first time, or is the second", i)
		}
	}
	o.add(64)
	if s.count() != 4 || s.gaps() != 997 || s.without(&o) != 3 || o.without(&s) != 0 {
		t.Fatalf("count %d, gaps %d, without %d and %d", s.count(), s.gaps(), s.without(&o), o.without(&s))
	}
}

func TestFailuresAreBounded(t *testing.T) {
	var a, b results
	for i := range 3 * maxStatuses {
		a.fail(strconv.Itoa(i), 1, string(make([]byte, 10_000)))
	}
	a.fail("0", 5, "not the first")
	b.merge(&a)
	list, sum := b.sortedFailures(), 0
	for _, f := range list {
		sum += f.Count
		if len(f.First) > maxFirstText {
			t.Fatalf("keeps %d bytes", len(f.First))
		}
	}
	if len(list) > maxStatuses+1 || sum != 3*maxStatuses+5 {
		t.Fatalf("%d kinds, %d failures", len(list), sum)
	}
}
