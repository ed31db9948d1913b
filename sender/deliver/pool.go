package deliver

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/postrider/postrider/sender"
)

// pool holds the open connections. An attempt first enters its site and the pool, first come first served, and only
// then takes or opens a connection. So there are never more connections in use than attempts inside, and whenever
// all are open and an attempt still needs a new one, at least one is idle and can go.
type pool struct {
	most    int
	idleFor time.Duration
	rules   *rules
	inside  *semaphore.Weighted

	mu      sync.Mutex
	sites   map[siteKey]*site
	idle    *list.List // all idle sessions, longest idle first
	resting *list.List // sites that nobody uses but whose pace is not the usual, longest unused first
	open    int
	outside *list.List // of *outside, longest there first
	aside   int        // attempts without a place inside
	closed  bool
}

// siteKey names what shares a limit: the set of hosts, which of our addresses the mail comes from, and the rule if one
// was made for the recipient's domain.
type siteKey struct {
	hosts string
	from  *origin
	rule  *Rule
}

// site is a set of MX hosts as seen from one of our addresses: all domains that have the same set share its limit and
// its connections. pool.mu guards it.
type site struct {
	key    siteKey
	domain string // the recipients' domain that came last, to speak of the site by
	limits limits
	pace   pace
	turn   time.Time  // when the next message may be sent, where the rate is limited
	queue  *list.List // of chan visit: who waits; a visit of nobody says that the site is shut now
	users  int        // attempts inside or waiting
	idle   []*session // longest idle first: the last one is taken, so that the others can expire
	rests  *list.Element
	since  time.Time // when it began to rest
}

// What is remembered of sites that nobody uses.
const (
	maxResting = 10_000
	restFor    = time.Hour
)

func newPool(most int, idleFor time.Duration, r *rules) *pool {
	return &pool{most: most, idleFor: idleFor, rules: r, inside: semaphore.NewWeighted(int64(most)),
		sites: map[siteKey]*site{}, idle: list.New(), resting: list.New(), outside: list.New()}
}

// enter waits until the site and the pool have room, at most until the given time. A site that is shut, or whose rate
// leaves no room soon, answers at once, with a *laterError. Every enter needs a leave.
func (p *pool) enter(ctx context.Context, key siteKey, domain string, until time.Time) (*site, visit, error) {
	st, v, err := p.enterSite(ctx, key, domain, until)
	if err != nil {
		return nil, v, err
	}
	if err = p.await(ctx, st, until); err == nil {
		err = acquire(ctx, p.inside, until)
	}
	if v.held = err == nil; !v.held {
		p.leave(st, v, nothing, nil)
		return nil, v, err
	}
	return st, v, nil
}

func (p *pool) enterSite(ctx context.Context, key siteKey, domain string, until time.Time) (*site, visit, error) {
	p.mu.Lock()
	st := p.site(key)
	st.domain = domain
	now := time.Now()
	v, a := visit{}, hold
	if st.queue.Len() == 0 || !st.pace.shut.IsZero() {
		v, a = st.pace.admit(now)
	}
	switch a {
	case turnAway:
		err := st.later(now)
		p.prune(st)
		p.mu.Unlock()
		return nil, v, err
	case enter:
		st.users++
		p.mu.Unlock()
		return st, v, nil
	}
	st.users++
	called := make(chan visit, 1)
	place := st.queue.PushBack(called)
	p.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case v = <-called:
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		select {
		case v = <-called:
			if v != nobody {
				st.pace.left(time.Now(), v, nothing, nil)
			}
			p.call(st, time.Now())
		default:
			st.queue.Remove(place)
		}
		st.users--
		p.prune(st)
		return nil, v, ctx.Err()
	}
	if v == nobody {
		p.mu.Lock()
		defer p.mu.Unlock()
		st.users--
		err := st.later(time.Now())
		p.prune(st)
		return nil, v, err
	}
	return st, v, nil
}

// site finds or makes a site.
func (p *pool) site(key siteKey) *site {
	st := p.sites[key]
	if st == nil {
		l := p.rules.limits(key)
		st = &site{key: key, limits: l, pace: newPace(l.start, l.most), queue: list.New()}
		st.pace.answered = l.proved
		p.sites[key] = st
	}
	if st.rests != nil {
		p.resting.Remove(st.rests)
		st.rests = nil
	}
	return st
}

// nobody is the visit of one who is told that the site is shut.
var nobody = visit{round: -1}

// call lets in who waits, as far as there is room, or sends them away if the site is shut.
func (p *pool) call(st *site, now time.Time) {
	for e := st.queue.Front(); e != nil; e = st.queue.Front() {
		v, a := st.pace.admit(now)
		switch a {
		case hold:
			return
		case turnAway:
			v = nobody
		}
		st.queue.Remove(e).(chan visit) <- v
	}
}

// await waits for the message's turn where the rate is limited.
func (p *pool) await(ctx context.Context, st *site, until time.Time) error {
	if st.limits.every == 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	turn := st.turn
	if least := now.Add(-time.Second); turn.Before(least) {
		turn = least // no more than a second's worth is made up for
	}
	if turn.Sub(now) > rateWait || turn.After(until) {
		p.mu.Unlock()
		return &laterError{turn, "the rate set for " + st.domain + " is used up; next turn at " + clock(turn)}
	}
	st.turn = turn.Add(st.limits.every)
	p.mu.Unlock()
	if !turn.After(now) {
		return nil
	}
	timer := time.NewTimer(turn.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rateWait is how long a message waits for its turn; one that would wait longer is put off.
const rateWait = 10 * time.Second

func acquire(ctx context.Context, sem *semaphore.Weighted, until time.Time) error {
	if sem.TryAcquire(1) {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return sem.Acquire(ctx, 1)
}

// leave ends a visit. What it says of the site decides whom it lets in next.
func (p *pool) leave(st *site, v visit, s signal, said *sender.Reply) {
	if v.held {
		p.inside.Release(1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	st.pace.left(now, v, s, said)
	st.users--
	p.call(st, now)
	p.prune(st)
}

// answers notes that a host of the site has answered, and lets in who waited for that.
func (p *pool) answers(st *site) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !st.pace.answered {
		st.pace.answered = true
		p.call(st, time.Now())
	}
}

// prune forgets a site that nobody uses, or lets it rest if there is something to remember.
func (p *pool) prune(st *site) {
	switch {
	case st.users > 0 || len(st.idle) > 0 || st.rests != nil:
	case p.closed || st.pace.usual() && !st.turn.After(time.Now()):
		delete(p.sites, st.key)
	default:
		st.since = time.Now()
		st.rests = p.resting.PushBack(st)
		if p.resting.Len() > maxResting {
			p.forget(p.resting.Front())
		}
	}
}

func (p *pool) forget(rests *list.Element) {
	st := p.resting.Remove(rests).(*site)
	st.rests = nil
	delete(p.sites, st.key)
}

// take is the connection of the site that was used last of those that are as safe as the message asks, or nil. If there
// are only others, one of them is closed to make room: the safer connection that takes its place suits both.
func (p *pool) take(st *site, d *demand) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(st.idle) - 1; i >= 0; i-- {
		if d.met(st.idle[i]) {
			return p.pick(st, i)
		}
	}
	if len(st.idle) > 0 {
		_ = p.pick(st, 0).tcp.Close()
		p.open--
	}
	return nil
}

// pick takes the i-th idle connection of a site out.
func (p *pool) pick(st *site, i int) *session {
	s := st.idle[i]
	st.idle = slices.Delete(st.idle, i, i+1)
	p.idle.Remove(s.elem)
	s.elem = nil
	return s
}

// put keeps a connection for the site's next attempt.
func (p *pool) put(st *site, s *session) {
	p.mu.Lock()
	if p.closed {
		p.open--
		p.mu.Unlock()
		s.quit()
		return
	}
	s.idle, s.site = time.Now(), st
	st.idle = append(st.idle, s)
	s.elem = p.idle.PushBack(s)
	p.mu.Unlock()
}
