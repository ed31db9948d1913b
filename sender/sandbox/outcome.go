package sandbox

import (
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind is what a recipient of the sandbox does with mail.
type Kind int8

// The kinds, with the local part that asks for each.
const (
	Accept     Kind = iota // any other
	Bounce                 // bounce: 550 5.1.1 on RCPT
	Reject                 // reject: 554 5.7.1 after DATA
	Defer                  // defer-N: 451 4.7.1 on RCPT for the first N attempts of a message
	Slow                   // slow-MS: the answer to DATA comes after MS milliseconds
	Hang                   // hang: RCPT is never answered
	Drop                   // drop: the connection is closed after DATA, without an answer
	LateBounce             // late-bounce: accepted, then a DSN (RFC 3464) goes to the return path
	Complain               // complain: accepted, then an ARF report (RFC 5965) goes to the return path
	Open                   // open: accepted, then the tracking image is fetched
	Click                  // click: accepted, then the first link is fetched
)

// The most that a recipient may ask for; more counts as this much.
const (
	maxDefer = 99
	maxSlow  = 600_000 * time.Millisecond
)

// Outcome is what a recipient asks for.
type Outcome struct {
	Kind  Kind
	Times int           // Defer: how many attempts are deferred, 1 to 99
	Wait  time.Duration // Slow: how long the answer takes, up to 10 minutes
}

// OutcomeOf reads a local part: case does not matter, and anything from a + on is free for the sender's own
// use. A local part that asks for nothing is accepted.
func OutcomeOf(local string) Outcome {
	local, _, _ = strings.Cut(strings.ToLower(local), "+")
	switch local {
	case "bounce":
		return Outcome{Kind: Bounce}
	case "reject":
		return Outcome{Kind: Reject}
	case "hang":
		return Outcome{Kind: Hang}
	case "drop":
		return Outcome{Kind: Drop}
	case "late-bounce":
		return Outcome{Kind: LateBounce}
	case "complain":
		return Outcome{Kind: Complain}
	case "open":
		return Outcome{Kind: Open}
	case "click":
		return Outcome{Kind: Click}
	}
	if n, ok := strings.CutPrefix(local, "defer-"); ok {
		if times := number(n, maxDefer); times > 0 {
			return Outcome{Kind: Defer, Times: times}
		}
	}
	if n, ok := strings.CutPrefix(local, "slow-"); ok {
		if ms := number(n, int(maxSlow/time.Millisecond)); ms > 0 {
			return Outcome{Kind: Slow, Wait: time.Duration(ms) * time.Millisecond}
		}
	}
	return Outcome{}
}

// number reads decimal digits, at most limit; 0 for anything else.
func number(s string, limit int) int {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && strings.Trim(s, "0123456789") != "" {
		return 0
	}
	return int(min(n, uint64(limit))) // a number too large for uint64 is read as its largest
}

// attempts counts how often a message was tried at a recipient. The return path is its own for each message,
// so sender and recipient together name it before DATA has begun. The table is bounded: when the young
// half is full it becomes the old half, and what the old half held is forgotten.
type attempts struct {
	mu         sync.Mutex
	seed       maphash.Seed
	half       int
	young, old map[uint64]int
}

func newAttempts(half int) *attempts {
	return &attempts{seed: maphash.MakeSeed(), half: half, young: map[uint64]int{}}
}

// next counts one more attempt and returns its number, from 1.
func (a *attempts) next(from, to string) int {
	key := maphash.String(a.seed, strings.ToLower(from)+"\x00"+strings.ToLower(to))
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.young[key]
	if !ok {
		n = a.old[key]
		if len(a.young) >= a.half {
			a.old, a.young = a.young, make(map[uint64]int)
		}
	}
	a.young[key] = n + 1
	return n + 1
}
