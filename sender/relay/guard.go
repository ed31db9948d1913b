package relay

import (
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// guard stands between the listener and go-smtp v0.25, whose server takes the rest of a DATA block for commands
// after a read in it has timed out (its issue 196). A guarded connection is closed for good by its first failed
// read, and ends when its session has lasted too long, so that a byte now and then does not hold it.
type guard struct {
	net.Listener
	slots   chan struct{}
	session time.Duration
	closed  chan struct{}
	shut    func() // closes closed

	mu   sync.Mutex
	open map[*guarded]struct{}
}

func newGuard(l net.Listener, sessions int, session time.Duration) *guard {
	closed := make(chan struct{})
	return &guard{Listener: l, slots: make(chan struct{}, sessions), session: session, closed: closed,
		shut: sync.OnceFunc(func() { close(closed) }), open: map[*guarded]struct{}{}}
}

// Accept waits for a free slot first: more sessions than the limit stay in the kernel's queue.
func (g *guard) Accept() (net.Conn, error) {
	select {
	case g.slots <- struct{}{}:
	case <-g.closed:
		return nil, net.ErrClosed
	}
	c, err := g.Listener.Accept()
	if err != nil {
		<-g.slots
		return nil, err
	}
	one := &guarded{Conn: c, ends: time.Now().Add(g.session)}
	one.free = sync.OnceFunc(func() { g.left(one) })
	g.mu.Lock()
	g.open[one] = struct{}{}
	g.mu.Unlock()
	return one, nil
}

// Close ends the listener; a caller of Accept that waits for a slot is told.
func (g *guard) Close() error {
	g.shut()
	return g.Listener.Close()
}

// drop ends every session at once.
func (g *guard) drop() {
	g.mu.Lock()
	all := slices.Collect(maps.Keys(g.open))
	g.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

func (g *guard) left(c *guarded) {
	g.mu.Lock()
	delete(g.open, c)
	g.mu.Unlock()
	<-g.slots
}

type guarded struct {
	net.Conn
	ends time.Time
	free func()
}

func (c *guarded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

func (c *guarded) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.cap(t)) }
func (c *guarded) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.cap(t)) }
func (c *guarded) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.cap(t)) }

// cap keeps every deadline within the session's end.
func (c *guarded) cap(t time.Time) time.Time {
	if t.IsZero() || t.After(c.ends) {
		return c.ends
	}
	return t
}

func (c *guarded) Close() error {
	c.free()
	return c.Conn.Close()
}
