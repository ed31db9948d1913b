package loadtest

import (
	"context"
	"net"
	"time"
)

// target is where mail is handed over: httpTarget or smtpTarget.
type target interface {
	dial(ctx context.Context, number int) (conn, error)
}

// conn is one connection to a target, used by one worker.
type conn interface {
	send(s submission, deadline time.Time) (answer, error)
	interrupt() // from any goroutine: fails what send waits for
	close()
}

// submission is one hand-over. Its messages have the serial numbers first, first+1, …
type submission struct {
	seq   int
	first int
	due   time.Time
	at    time.Time // when its messages are to be sent; zero is now
}

// stamped is the time from which the sink counts a message's latency.
func (s submission) stamped() time.Time {
	if s.at.IsZero() {
		return s.due
	}
	return s.at
}

// answer is what the target said. It is valid until the next send on the same connection.
type answer struct {
	code  int    // HTTP status or SMTP reply code; of the first refusal, where there was one
	text  []byte // body or reply, for the report
	taken []int  // which of the submission's messages were taken
	last  bool   // the target closes the connection
}

// socket is what both connections share.
type socket struct {
	net.Conn
	buf   []byte // request under construction, used again
	taken []int
}

func (s *socket) interrupt() { s.SetDeadline(time.Unix(1, 0)) }

func dialSocket(ctx context.Context, addr string) (socket, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	return socket{Conn: c, buf: make([]byte, 0, 8<<10)}, err
}

// watched is a connection that no longer listens for the end of its run once it is closed.
type watched struct {
	conn
	stop func() bool
}

func (w watched) close() {
	w.stop()
	w.conn.close()
}
