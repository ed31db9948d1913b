package domains

import (
	"time"

	"github.com/postrider/postrider/sender/store"
)

// The times of a domain's life.
const (
	recheckEvery = 18 * time.Hour     // of one that is well; a removed record is seen and confirmed within a day
	retryEvery   = time.Hour          // of one that is not, and before a loss is believed or a new key is used
	retryFor     = 3 * 24 * time.Hour // how long; after that only when asked
	unknownFor   = 3 * 24 * time.Hour // how long a DNS that does not answer takes nothing away
	oldFor       = 7 * 24 * time.Hour // how long the record of a key must stay that signs no more
)

// verdict is what a check found of a domain as a whole.
type verdict string

const (
	proved  verdict = "proved"  // all that verification needs
	lacking verdict = "lacking" // something that it needs is not there
	unclear verdict = "unclear" // the DNS could not tell
)

// judge changes a domain by what a check found at a time.
func judge(s *store.Domain, results []Result, now time.Time) verdict {
	s.Checked = now
	rotate(s, results, now)
	found := weigh(s, results)
	switch found {
	case proved:
		s.Proved, s.Failing = now, time.Time{}
		if s.Verified.IsZero() {
			s.Verified = now
		}
	case lacking:
		if s.Failing.IsZero() {
			s.Failing = now
		}
		if now.Sub(s.Failing) >= retryEvery-time.Minute { // seen twice: no name server that lagged behind
			s.Verified = time.Time{}
		}
	case unclear:
		if now.Sub(s.Proved) >= unknownFor {
			s.Verified = time.Time{}
		}
	}
	s.Next = next(s, found, now)
	return found
}

// weigh says whether the domain is owned and one of its keys is published.
func weigh(s *store.Domain, results []Result) verdict {
	ownership, key := Missing, Missing
	if !s.Mailbox.IsZero() {
		ownership = Valid
	}
	for _, r := range results {
		switch r.Purpose {
		case Ownership:
			ownership = better(ownership, r.State)
		case DKIM:
			key = better(key, r.State)
		}
	}
	switch {
	case ownership == Valid && key == Valid:
		return proved
	case ownership == Missing || key == Missing:
		return lacking
	}
	return unclear
}

// better is Valid before Unknown before all else, which counts as Missing.
func better(a, b State) State {
	for _, s := range []State{Valid, Unknown} {
		if a == s || b == s {
			return s
		}
	}
	return Missing
}

// rotate notes which keys are published, lets the next ones follow when they have been for an hour, and forgets the old
// ones in time.
func rotate(s *store.Domain, results []Result, now time.Time) {
	state := map[string]State{}
	for _, r := range results {
		state[r.Name] = r.State
	}
	valid := false
	for _, k := range s.Keys {
		valid = valid || k.Stage == store.StageCurrent && state[dkimName(k.Selector, s.Name)] == Valid
	}
	kept := s.Keys[:0:0]
	for _, k := range s.Keys {
		switch seen := state[dkimName(k.Selector, s.Name)]; {
		case seen == Valid && k.Published.IsZero():
			k.Published = now
		case seen == Missing || seen == Wrong:
			if valid || k.Stage != store.StageCurrent { // the last one goes on: a broken signature is no worse than none
				k.Published = time.Time{}
			}
		}
		if k.Stage != store.StageOld || now.Before(k.Retires) {
			kept = append(kept, k)
		}
	}
	s.Keys = kept
	if ripe(s, now) {
		retire(s, now)
		for i := range s.Keys {
			if s.Keys[i].Stage == store.StageNext {
				s.Keys[i].Stage = store.StageCurrent
			}
		}
	}
}

// ripe says that a domain has next keys and that all of them which will sign have been seen for an hour.
func ripe(s *store.Domain, now time.Time) bool {
	some := false
	for _, k := range s.Keys {
		if k.Stage != store.StageNext || !signs(s, k) {
			continue
		}
		some = true
		if k.Published.IsZero() || now.Sub(k.Published) < retryEvery-time.Minute {
			return false
		}
	}
	return some
}

// retire makes the current keys old: their private parts are forgotten, their records must stay for a while.
func retire(s *store.Domain, now time.Time) {
	for i := range s.Keys {
		if k := &s.Keys[i]; k.Stage == store.StageCurrent {
			k.Stage, k.Sealed, k.Retires = store.StageOld, nil, now.Add(oldFor)
		}
	}
}

// next is when to look again; the zero time for only when asked.
func next(s *store.Domain, found verdict, now time.Time) time.Time {
	begun := s.Created
	if s.Failing.After(begun) && !s.Proved.IsZero() {
		begun = s.Failing
	}
	switch {
	case rotating(s) && now.Sub(youngest(s)) < retryFor:
		return now.Add(retryEvery)
	case !s.Verified.IsZero() && found == proved:
		spread := time.Duration(now.UnixNano() % int64(2*time.Hour))
		return now.Add(recheckEvery + spread)
	case !s.Verified.IsZero() || now.Sub(begun) < retryFor:
		return now.Add(retryEvery)
	}
	return time.Time{}
}

func rotating(s *store.Domain) bool {
	for _, k := range s.Keys {
		if k.Stage == store.StageNext {
			return true
		}
	}
	return false
}

// youngest is when the newest key was made.
func youngest(s *store.Domain) time.Time {
	var t time.Time
	for _, k := range s.Keys {
		if k.Created.After(t) {
			t = k.Created
		}
	}
	return t
}

func published(keys []store.DomainKey, algorithm string) bool {
	for _, k := range keys {
		if k.Algorithm == algorithm && k.Stage == store.StageCurrent && !k.Published.IsZero() {
			return true
		}
	}
	return false
}
