package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	maxMailBytes  = 26 << 20
	maxRecipients = 1_000
	maxLine       = 2_000 // bytes; twice what RFC 5321 §4.5.3.1.6 asks for
	maxConns      = 4_096
	maxHanging    = 1_000
	hangTime      = 15 * time.Minute // longer than any sender waits for RCPT (RFC 5321 §4.5.3.2: 5 minutes)
	readTimeout   = 5 * time.Minute  // for one command, and for all of DATA
	writeTimeout  = time.Minute
	rememberMails = 50_000 // deferred messages remembered, at the least
	keepBuffer    = 1 << 20
)

var (
	errNoUser = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1},
		Message: "No such user here"}
	errLater = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1},
		Message: "Greylisted, try again later"}
	errPolicy = &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1},
		Message: "Message refused by policy"}
	errClosing = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2},
		Message: "Closing the connection"}
	errNoMail = &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1},
		Message: "The transaction was reset, begin with MAIL"}
)

// mx takes mail in.
type mx struct {
	server   *smtp.Server
	inbox    *inbox
	after    *aftermath
	attempts *attempts
	buffers  sync.Pool // of *bytes.Buffer
	hanging  atomic.Int64
	stopping chan struct{} // closed when mail is no longer taken
}

func newMX(cfg Config, box *inbox, after *aftermath) *mx {
	m := &mx{
		inbox:    box,
		after:    after,
		attempts: newAttempts(rememberMails),
		buffers:  sync.Pool{New: func() any { return new(bytes.Buffer) }},
		stopping: make(chan struct{}),
	}
	m.server = smtp.NewServer(smtp.BackendFunc(m.session))
	m.server.Domain = cfg.Hostname
	m.server.MaxMessageBytes = maxMailBytes
	m.server.MaxRecipients = maxRecipients
	m.server.MaxLineLength = maxLine
	m.server.ReadTimeout = readTimeout
	m.server.WriteTimeout = writeTimeout
	m.server.EnableSMTPUTF8 = true
	m.server.ErrorLog = peerLog{cfg.Log}
	return m
}

// run serves l until ctx ends, then lets transactions in progress end.
func (m *mx) run(ctx context.Context, l *listener) error {
	served := make(chan error, 1)
	go func() { served <- m.server.Serve(l) }()
	var failed error
	select {
	case err := <-served:
		failed = fmt.Errorf("sandbox: serve SMTP: %w", err)
	case <-ctx.Done():
		l.Close()
		<-served // go-smtp must not take one more while it waits for the last
	}
	close(m.stopping)
	l.cut(false)
	force := time.AfterFunc(drainTime, func() { l.cut(true) })
	defer force.Stop()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*drainTime)
	defer cancel()
	if err := m.server.Shutdown(drain); errors.Is(err, context.DeadlineExceeded) {
		return errors.Join(failed, fmt.Errorf("sandbox: SMTP sessions did not end: %w", err))
	}
	return failed
}

func (m *mx) stopped() bool {
	select {
	case <-m.stopping:
		return true
	default:
		return false
	}
}

func (m *mx) session(c *smtp.Conn) (smtp.Session, error) {
	return &session{mx: m, conn: c.Conn().(*conn)}, nil
}

// session is one client's dialogue. With BDAT, go-smtp calls Data beside the other methods, even beside the
// next Mail: so a transaction is a value of its own, complete when Data begins.
type session struct {
	mx   *mx
	conn *conn
	now  atomic.Pointer[transaction]
}

type transaction struct {
	from  string
	to    []string
	kinds uint16        // the set of kinds among the recipients, as bits
	wait  time.Duration // the longest of the slow ones
}

func (t *transaction) has(k Kind) bool { return t.kinds&(1<<k) != 0 }

// Mail begins a transaction.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.now.Store(&transaction{from: from})
	return nil
}

// Rcpt adds a recipient, unless it wants to be refused here.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	t := s.now.Load()
	if t == nil {
		return errNoMail
	}
	o := OutcomeOf(to[:max(strings.LastIndexByte(to, '@'), 0)])
	switch o.Kind {
	case Bounce:
		return errNoUser
	case Defer:
		if s.mx.attempts.next(t.from, to) <= o.Times {
			return errLater
		}
	case Hang:
		return s.hang()
	}
	t.to = append(t.to, to)
	t.kinds |= 1 << o.Kind
	t.wait = max(t.wait, o.Wait)
	return nil
}

// hang says nothing until the client goes away, and ends the connection then. What the client still sends
// can never be answered, so it is read away: that is how its leaving is noticed. One too many does not wait.
func (s *session) hang() error {
	defer s.mx.hanging.Add(-1)
	if s.mx.hanging.Add(1) <= maxHanging {
		s.conn.SetReadDeadline(time.Now().Add(hangTime))
		_, _ = io.Copy(io.Discard, s.conn)
	}
	s.conn.Close()
	return errClosing
}

// Data takes the mail. One answer stands for all recipients, so the harshest of them decides: drop@, then
// reject@; slow-MS@ delays whatever the answer is.
func (s *session) Data(r io.Reader) error {
	s.conn.busy.Store(true)
	t := s.now.Load()
	if t == nil {
		return errNoMail
	}
	raw, err := s.read(r)
	if err != nil {
		return err
	}
	if t.has(Drop) {
		s.conn.Close()
		return errClosing
	}
	if t.wait > 0 && !s.pause(t.wait) {
		return errClosing
	}
	if t.has(Reject) {
		return errPolicy
	}
	m := s.mx.inbox.add(t.from, t.to, raw)
	if t.has(LateBounce) || t.has(Complain) || t.has(Open) || t.has(Click) {
		s.mx.after.plan(m)
	}
	return nil
}

func (s *session) read(r io.Reader) ([]byte, error) {
	buf := s.mx.buffers.Get().(*bytes.Buffer)
	buf.Reset()
	_, err := buf.ReadFrom(r)
	raw := bytes.Clone(buf.Bytes())
	if buf.Cap() <= keepBuffer {
		s.mx.buffers.Put(buf)
	}
	return raw, err
}

// pause waits for d; it is cut short, and false, when the sandbox stops.
func (s *session) pause(d time.Duration) bool {
	s.conn.flush()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.mx.stopping:
		return false
	}
}

// Reset ends the transaction; go-smtp also calls it once the answer to DATA is written.
func (s *session) Reset() {
	s.now.Store(nil)
	s.conn.busy.Store(false)
	if s.mx.stopped() {
		s.conn.Close()
	}
}

// Logout has nothing to free.
func (s *session) Logout() error { return nil }
