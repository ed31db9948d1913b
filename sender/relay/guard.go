package relay

import (
	"net"
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
}

func newGuard(l net.Listener, sessions int, session time.Duration) *guard {
	return &guard{Listener: l, slots: make(chan struct{}, sessions), session: session}
}

// Accept waits for a free slot first: more sessions than the limit stay in the kernel's queue.
func (g *guard) Accept() (net.Conn, error) {
	g.slots <- struct{}{}
	c, err := g.Listener.Accept()
	if err != nil {
		<-g.slots
		return nil, err
	}
	return &guarded{Conn: c, ends: time.Now().Add(g.session), free: sync.OnceFunc(func() { <-g.slots })}, nil
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
