package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxSessions = 2_000
	maxMail     = 64 << 20 // bytes, as SIZE says
	sinkIdle    = 5 * time.Minute
	sinkBuffer  = 32 << 10
)

// Sink is an SMTP server that takes every mail, reads its stamp and forgets it. It is raw and
// lean, because it shares its cores with the system that it measures.
type Sink struct {
	listener net.Listener
	tally    tally

	mu       sync.Mutex
	sessions map[net.Conn]bool
	closed   bool
}

// NewSink listens on addr ("host:port", port 0: any free one).
func NewSink(addr string) (*Sink, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	return &Sink{listener: l, sessions: map[net.Conn]bool{}}, nil
}

// Addr is where it listens, as host:port.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends, and ends every session before it returns.
func (s *Sink) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.close()
	for {
		c, err := s.listener.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // out of file descriptors, say: they come back
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		case !s.admit(c):
			continue
		}
		wg.Go(func() {
			defer s.leave(c)
			(&session{sink: s, conn: c, in: bufio.NewReaderSize(c, sinkBuffer)}).serve()
		})
	}
}

func (s *Sink) admit(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.sessions) >= maxSessions {
		c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte("421 4.3.2 too many sessions\r\n"))
		c.Close()
		return false
	}
	s.sessions[c] = true
	return true
}

func (s *Sink) leave(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, c)
}

func (s *Sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.listener.Close()
	for c := range s.sessions {
		c.Close()
	}
}

// session is one client's connection.
type session struct {
	sink *Sink
	conn net.Conn
	in   *bufio.Reader
	out  []byte // replies not sent yet

	mail    bool
	serials []int // messages of the envelope that are ours
	foreign int   // and that are not
	run     *arrivals
}

func (s *session) serve() {
	s.reply("220 sink.test ESMTP")
	for {
		line, err := s.line()
		if err != nil {
			return
		}
		if more := s.command(bytes.TrimRight(line, "\r\n")); !more {
			s.flush()
			return
		}
	}
}

func (s *session) reply(lines string) { s.out = append(append(s.out, lines...), "\r\n"...) }

func (s *session) flush() error {
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

// line reads a line. Replies are held back while more commands lie in the buffer (RFC 2920).
func (s *session) line() ([]byte, error) {
	if s.in.Buffered() == 0 {
		s.conn.SetDeadline(time.Now().Add(sinkIdle))
		if len(s.out) > 0 {
			if err := s.flush(); err != nil {
				return nil, err
			}
		}
	}
	return s.in.ReadSlice('\n')
}

// command answers one command; false ends the session.
func (s *session) command(line []byte) bool {
	verb, _, _ := bytes.Cut(line, []byte(" "))
	switch strings.ToUpper(string(verb)) {
	case "EHLO":
		s.reset()
		s.reply("250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE " + strconv.Itoa(maxMail))
	case "HELO":
		s.reset()
		s.reply("250 sink.test")
	case "MAIL":
		s.reset()
		s.mail = true
		s.reply("250 2.1.0 ok")
	case "RCPT":
		s.recipient(line)
	case "DATA":
		return s.data()
	case "RSET":
		s.reset()
		s.reply("250 2.0.0 ok")
	case "NOOP":
		s.reply("250 2.0.0 ok")
	case "QUIT":
		s.reply("221 2.0.0 bye")
		return false
	default:
		s.reply("502 5.5.1 command not known here")
	}
	return true
}

func (s *session) reset() { s.mail, s.serials, s.foreign = false, s.serials[:0], 0 }

func (s *session) recipient(line []byte) {
	switch {
	case !s.mail:
		s.reply("503 5.5.1 MAIL first")
		return
	case len(s.serials)+s.foreign >= MaxRecipients:
		s.reply("452 4.5.3 too many recipients")
		return
	}
	if n, err := serialOf(line); err == nil {
		s.serials = append(s.serials, n)
	} else {
		s.foreign++
	}
	s.reply("250 2.1.5 ok")
}

// serialOf reads the number in RCPT TO:<user123@…>.
func serialOf(line []byte) (int, error) {
	_, rest, _ := bytes.Cut(line, []byte("<user"))
	digits, _, _ := bytes.Cut(rest, []byte("@"))
	n, err := strconv.Atoi(string(digits))
	if err != nil || n < 0 || n >= maxSerials {
		return 0, errors.New("not a recipient of ours")
	}
	return n, nil
}

// data takes a mail. It counts as arrived before it is answered: a client that misses the answer
// and sends again makes a duplicate, and is told on.
func (s *session) data() bool {
	if len(s.serials)+s.foreign == 0 {
		s.reply("503 5.5.1 RCPT first")
		return true
	}
	s.reply("354 go on")
	if s.flush() != nil {
		return false
	}
	stamp, err := s.content()
	if err != nil {
		return false
	}
	if stamp.run == "" {
		s.sink.tally.foreign(len(s.serials) + s.foreign)
	} else {
		s.join(stamp.run)
		s.run.record(s.serials, stamp, time.Now())
		s.sink.tally.foreign(s.foreign)
	}
	s.reset()
	s.reply("250 2.0.0 taken")
	return true
}

func (s *session) join(run string) {
	if s.run == nil || s.run.run != run {
		s.run = s.sink.tally.open(run)
		s.run.joined()
	}
}

// stamp is what X-Bench says, and how often the mail is signed.
type stamp struct {
	run        string
	sent       time.Time
	signatures int // DKIM-Signature fields (RFC 6376)
}

// content reads up to the final dot and picks the stamp out of the header.
func (s *session) content() (found stamp, err error) {
	header, fresh, signatures := true, true, 0 // fresh: at the start of a line
	for size := 0; size <= maxMail; {
		line, err := s.line()
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return found, err
		}
		size += len(line)
		switch {
		case !fresh:
		case string(line) == ".\r\n":
			found.signatures = signatures
			return found, nil
		case header && len(line) == 2:
			header = false
		case header && len(line) > 8 && bytes.EqualFold(line[:8], []byte("x-bench:")):
			found = s.parseStamp(line[8:])
		case header && len(line) > 15 && bytes.EqualFold(line[:15], []byte("dkim-signature:")):
			signatures++
		}
		fresh = err == nil
	}
	s.reply("552 5.3.4 too big")
	s.flush()
	return found, errors.New("too big")
}

// parseStamp reads "<run> <seq> <unix nanoseconds>"; anything else is nobody's.
func (s *session) parseStamp(value []byte) stamp {
	fields := bytes.Fields(value)
	if len(fields) != 3 || len(fields[0]) > 32 {
		return stamp{}
	}
	nanos, err := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil {
		return stamp{}
	}
	return stamp{run: string(fields[0]), sent: time.Unix(0, nanos)}
}
