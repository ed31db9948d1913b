package deliver

import (
	"container/list"
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// pool holds the open connections. An attempt first enters its site and the pool, first come first served, and only
// then takes or opens a connection. So there are never more connections in use than attempts inside, and whenever
// all are open and an attempt still needs a new one, at least one is idle and can go.
type pool struct {
	perSite, most int
	idleFor       time.Duration
	inside        *semaphore.Weighted

	mu     sync.Mutex
	sites  map[string]*site
	idle   *list.List // all idle sessions, longest idle first
	open   int
	closed bool
}

// site is a set of MX hosts: all domains that have the same set share its limit and its connections.
type site struct {
	name   string
	inside *semaphore.Weighted
	users  int        // attempts inside or waiting; guarded by pool.mu, as idle is
	idle   []*session // longest idle first: the last one is taken, so that the others can expire
}

func newPool(perSite, most int, idleFor time.Duration) *pool {
	return &pool{perSite: perSite, most: most, idleFor: idleFor, inside: semaphore.NewWeighted(int64(most)),
		sites: map[string]*site{}, idle: list.New()}
}

// enter waits until the site and the pool have room, at most until the given time. Every enter needs a leave.
func (p *pool) enter(ctx context.Context, name string, until time.Time) (*site, error) {
	p.mu.Lock()
	st := p.sites[name]
	if st == nil {
		st = &site{name: name, inside: semaphore.NewWeighted(int64(p.perSite))}
		p.sites[name] = st
	}
	st.users++
	p.mu.Unlock()
	if err := acquire(ctx, st.inside, until); err != nil {
		p.forget(st)
		return nil, err
	}
	if err := acquire(ctx, p.inside, until); err != nil {
		st.inside.Release(1)
		p.forget(st)
		return nil, err
	}
	return st, nil
}

func acquire(ctx context.Context, sem *semaphore.Weighted, until time.Time) error {
	if sem.TryAcquire(1) {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return sem.Acquire(ctx, 1)
}

func (p *pool) leave(st *site) {
	p.inside.Release(1)
	st.inside.Release(1)
	p.forget(st)
}

func (p *pool) forget(st *site) {
	p.mu.Lock()
	st.users--
	p.prune(st)
	p.mu.Unlock()
}

// prune forgets a site that nobody uses.
func (p *pool) prune(st *site) {
	if st.users == 0 && len(st.idle) == 0 {
		delete(p.sites, st.name)
	}
}

// take is the connection of the site that was used last, or nil.
func (p *pool) take(st *site) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(st.idle)
	if n == 0 {
		return nil
	}
	s := st.idle[n-1]
	st.idle[n-1] = nil
	st.idle = st.idle[:n-1]
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

// drop closes a connection that is in use.
func (p *pool) drop(s *session) {
	_ = s.tcp.Close()
	p.shrink()
}

// grow counts a connection that is about to be opened. The idle ones that have to make room for it are returned,
// to be closed.
func (p *pool) grow() []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gone []*session
	for p.open >= p.most && p.idle.Len() > 0 {
		gone = append(gone, p.evict())
	}
	p.open++
	return gone
}

// shrink counts a connection that is closed, or was not to be had.
func (p *pool) shrink() {
	p.mu.Lock()
	p.open--
	p.mu.Unlock()
}

// expire takes out what has been idle for too long.
func (p *pool) expire(now time.Time) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gone []*session
	for e := p.idle.Front(); e != nil && now.Sub(e.Value.(*session).idle) > p.idleFor; e = p.idle.Front() {
		gone = append(gone, p.evict())
	}
	return gone
}

// close takes out all that is idle and keeps nothing from now on.
func (p *pool) close() []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var gone []*session
	for p.idle.Len() > 0 {
		gone = append(gone, p.evict())
	}
	return gone
}

// evict takes out the longest idle connection. It is the longest idle one of its site, too.
func (p *pool) evict() *session {
	s := p.idle.Remove(p.idle.Front()).(*session)
	st := s.site
	st.idle = append(st.idle[:0], st.idle[1:]...)
	s.elem = nil
	p.open--
	p.prune(st)
	return s
}

// size is the number of open connections.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}
