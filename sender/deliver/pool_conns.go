package deliver

import (
	"container/list"
	"context"
	"errors"
	"time"
)

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
	for p.open-p.aside >= p.most && p.idle.Len() > 0 {
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

// expire takes out what has been idle for too long, and forgets sites that have rested for long.
func (p *pool) expire(now time.Time) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gone []*session
	for e := p.idle.Front(); e != nil && now.Sub(e.Value.(*session).idle) > p.idleFor; e = p.idle.Front() {
		gone = append(gone, p.evict())
	}
	for e := p.resting.Front(); e != nil && now.Sub(e.Value.(*site).since) > restFor; e = p.resting.Front() {
		p.forget(e)
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
	for p.resting.Len() > 0 {
		p.forget(p.resting.Front())
	}
	return gone
}

// evict takes out the longest idle connection. It is the longest idle one of its site, too.
func (p *pool) evict() *session {
	s := p.idle.Front().Value.(*session)
	st := s.site
	p.pick(st, 0)
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

// slowConnect is how long an attempt may take to connect before it waits outside.
const slowConnect = time.Second

// outside is an attempt that connects. If that takes long, it gives its place in the pool to others until it is
// connected, so that hosts that do not answer leave the room to those that do. As many wait outside as there is room
// inside; if there are more, the one that has waited longest is given up. pool.mu guards it.
type outside struct {
	p     *pool
	cut   context.CancelFunc // ends its waiting
	timer *time.Timer
	over  bool
	aside bool          // it has no place inside
	place *list.Element // in pool.outside; nil with aside: it was given up
}

// connecting watches over an attempt that connects under a context that cut ends. It ends with back.
func (p *pool) connecting(cut context.CancelFunc) *outside {
	o := &outside{p: p, cut: cut}
	o.timer = time.AfterFunc(slowConnect, o.step)
	return o
}

// step goes outside.
func (o *outside) step() {
	p := o.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.over {
		return
	}
	if p.outside.Len() >= p.most {
		longest := p.outside.Remove(p.outside.Front()).(*outside)
		longest.place = nil
		longest.cut()
	}
	o.aside, o.place = true, p.outside.PushBack(o)
	p.aside++
	p.inside.Release(1)
}

var errGivenUp = errors.New("given up")

// back comes inside again, after a wait if there is no room. If it fails, the visit has no place: it was given up with
// errGivenUp, or its time is over.
func (o *outside) back(ctx context.Context, v *visit, until time.Time) error {
	o.timer.Stop()
	p := o.p
	p.mu.Lock()
	o.over = true
	aside, place := o.aside, o.place
	if aside && place != nil {
		p.outside.Remove(place)
	}
	p.mu.Unlock()
	if !aside {
		return nil
	}
	err := errGivenUp
	if place != nil {
		err = acquire(ctx, p.inside, until)
	}
	v.held = err == nil
	p.mu.Lock()
	p.aside--
	p.mu.Unlock()
	return err
}
