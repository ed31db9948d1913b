package sandbox

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// listener knows its open connections, because go-smtp either cuts all of them off or waits for each to leave
// by itself. It also bounds them: one too many is told 421 and closed.
type listener struct {
	net.Listener
	limit int

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// conn is an SMTP connection. It is busy from the begin of DATA until its answer is written. Replies are held
// back until the client's next word is waited for: those to a pipeline leave together (RFC 2920 §3.2).
type conn struct {
	net.Conn
	from *listener
	busy atomic.Bool

	mu      sync.Mutex
	replies []byte
}

func newListener(l net.Listener, limit int) *listener {
	return &listener{Listener: l, limit: limit, conns: map[*conn]struct{}{}}
}

// Accept waits for the next connection within the limit.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.add(nc); c != nil {
			return c, nil
		}
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(nc, "421 4.3.2 Too many connections, try again later\r\n")
		nc.Close()
	}
}

func (l *listener) add(nc net.Conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.limit {
		return nil
	}
	c := &conn{Conn: nc, from: l}
	l.conns[c] = struct{}{}
	return c
}

// Write holds b back until the next Read, flush or Close.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replies = append(c.replies, b...)
	return len(b), nil
}

// Read sends the replies and waits for what comes next.
func (c *conn) Read(b []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.replies) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.replies)
	c.replies = c.replies[:0]
	return err
}

// Close sends the replies and ends the connection; more than once does no harm.
func (c *conn) Close() error {
	c.flush() // go-smtp has set a deadline with each reply
	c.from.mu.Lock()
	delete(c.from.conns, c)
	c.from.mu.Unlock()
	return c.Conn.Close()
}

// cut closes all connections, or only those that are not busy.
func (l *listener) cut(busyToo bool) {
	l.mu.Lock()
	var cut []*conn
	for c := range l.conns {
		if busyToo || !c.busy.Load() {
			cut = append(cut, c)
		}
	}
	l.mu.Unlock()
	for _, c := range cut {
		c.Close()
	}
}

// peerLog takes what go-smtp and net/http report: clients that went away are everyday life here, panics are not.
type peerLog struct{ *zap.Logger }

func (l peerLog) Printf(format string, v ...any) {
	what := strings.TrimSpace(fmt.Sprintf(format, v...))
	if strings.Contains(what, "panic serving") {
		l.Error("sandbox connection failed", zap.String("error", what))
		return
	}
	l.Debug("sandbox connection ended", zap.String("reason", what))
}

func (l peerLog) Println(v ...any) { l.Printf("%s", fmt.Sprint(v...)) }

// Write takes one line of net/http.
func (l peerLog) Write(line []byte) (int, error) {
	l.Printf("%s", line)
	return len(line), nil
}
