package loadtest

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxStatuses  = 100 // kinds of failure told apart
	maxFirstText = 300 // bytes kept of a kind's first answer
	maxSerials   = 1 << 28
)

// results gathers what one worker was answered; a run merges those of its workers.
type results struct {
	accepted int // submissions of which at least one message was taken
	latency  histogram
	last     time.Time
	failures map[string]*Failure
}

// Failure is one kind of refusal or fault.
type Failure struct {
	Status string `json:"status"` // HTTP status, SMTP code, or "connect", "connection", "timeout", "interrupted"
	Count  int    `json:"count"`  // messages
	First  string `json:"first"`  // the first answer or error, cut short
}

func (r *results) accept(d time.Duration) {
	r.accepted++
	r.latency.add(d)
	r.last = time.Now()
}

func (r *results) fail(status string, messages int, text string) {
	if r.failures == nil {
		r.failures = map[string]*Failure{}
	}
	if r.failures[status] == nil && len(r.failures) >= maxStatuses {
		status = "other"
	}
	f := r.failures[status]
	if f == nil {
		f = &Failure{Status: status, First: strings.Clone(strings.TrimSpace(text[:min(len(text), maxFirstText)]))}
		r.failures[status] = f
	}
	f.Count += messages
}

func (r *results) merge(o *results) {
	r.accepted += o.accepted
	r.latency.merge(&o.latency)
	if o.last.After(r.last) {
		r.last = o.last
	}
	for status, f := range o.failures {
		r.fail(status, f.Count, f.First)
	}
}

func (r *results) sortedFailures() []Failure {
	list := make([]Failure, 0, len(r.failures))
	for _, f := range slices.SortedFunc(maps.Values(r.failures), func(a, b *Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Status, b.Status))
	}) {
		list = append(list, *f)
	}
	return list
}

const (
	stepBits = 7 // 128 buckets for each power of two: at most 0.8 % off
	buckets  = (32 - stepBits + 1) << stepBits
)

// histogram counts durations of up to 71 minutes in microseconds, in fixed memory (26 KiB).
type histogram struct {
	count   uint64
	largest time.Duration
	buckets [buckets]uint64
}

func (h *histogram) add(d time.Duration) {
	us := uint64(max(0, min(d.Microseconds(), 1<<32-1)))
	shift := max(0, bits.Len64(us)-stepBits-1)
	h.buckets[shift<<stepBits+int(us>>shift)]++
	h.count++
	h.largest = max(h.largest, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.largest = max(h.largest, o.largest)
}

// quantile is the smallest duration that at least the share q of all stay within (nearest rank),
// rounded up to its bucket's end. It is 0 when there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(1, uint64(q*float64(h.count)+0.999999))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return min(bucketEnd(i), h.largest)
		}
	}
	return h.largest
}

func bucketEnd(i int) time.Duration {
	shift := max(0, i>>stepBits-1)
	return time.Duration((i-shift<<stepBits+1)<<shift-1) * time.Microsecond
}

// serialSet is a set of serial numbers below maxSerials, as a bitmap that grows (32 MiB at most).
type serialSet struct {
	mu    sync.Mutex
	words []uint64
	size  int
}

// add says whether the number is new.
func (s *serialSet) add(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	word, bit := i/64, uint64(1)<<(i%64)
	if word >= len(s.words) {
		s.words = slices.Grow(s.words, word+1-len(s.words))[:word+1]
	}
	if s.words[word]&bit != 0 {
		return false
	}
	s.words[word] |= bit
	s.size++
	return true
}

func (s *serialSet) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// without counts the members of s that are not in o.
func (s *serialSet) without(o *serialSet) int {
	s.mu.Lock()
	mine := slices.Clone(s.words)
	s.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for i, w := range mine {
		if i < len(o.words) {
			w &^= o.words[i]
		}
		n += bits.OnesCount64(w)
	}
	return n
}

// gaps counts the numbers that are not members though a higher one is.
func (s *serialSet) gaps() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range slices.Backward(s.words) {
		if w != 0 {
			return i*64 + bits.Len64(w) - s.size
		}
	}
	return 0
}
