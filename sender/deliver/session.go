package deliver

import (
	"bufio"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

// extensions are what a host said to EHLO that matters here.
type extensions struct {
	pipelining bool // RFC 2920
	starttls   bool // RFC 3207
	smtputf8   bool // RFC 6531
	size       bool // RFC 1870
	maxSize    int64
}

// session is one connection to one host, from its greeting on. One attempt uses it at a time.
type session struct {
	tcp  net.Conn // closing it ends everything
	conn net.Conn // tcp, or TLS on it
	br   *bufio.Reader
	host string
	cfg  *Config
	ext  extensions
	tls  bool
	shown

	from *source     // the address it comes from; nil for the system's choice
	log  *transcript // of the attempt that uses it

	until time.Time   // the end of the attempt that uses it
	stop  func() bool // ends the watch over the attempt's context

	rep   reply
	out   []byte
	steps [4]step
	mail  bool // a transaction is open at the host and needs RSET before the next
	used  int  // messages so far

	site *site // while idle: who may use it next, since when, and its place in the pool's list
	idle time.Time
	elem *list.Element
}

func newSession(conn net.Conn, host string, cfg *Config) *session {
	return &session{tcp: conn, conn: conn, br: bufio.NewReaderSize(conn, 2*maxLine), host: host, cfg: cfg}
}

// begin binds the session to an attempt: the connection is closed at once when ctx ends.
func (s *session) begin(ctx context.Context, until time.Time) {
	s.until = until
	s.stop = context.AfterFunc(ctx, func() { _ = s.tcp.Close() })
}

// end lets go of the attempt and says whether the connection is still open from our side.
func (s *session) end() bool { return s.stop() }

// by sets when the next reads and writes must be over: in d, and not after the attempt's end.
func (s *session) by(d time.Duration) {
	t := time.Now().Add(d)
	if s.until.Before(t) {
		t = s.until
	}
	_ = s.conn.SetDeadline(t) // fails only on a closed connection, and so will the read or write
}

// read takes the next reply. It has until d from now, or, if its first bytes are here already, no longer than before.
func (s *session) read(d time.Duration) error {
	if s.br.Buffered() == 0 {
		s.by(d)
	}
	return s.hear()
}

// ask writes a command line and takes its reply.
func (s *session) ask(line string) error {
	s.by(s.cfg.Timeouts.Command)
	s.out = append(append(s.out[:0], line...), "\r\n"...)
	s.log.sent(s.out)
	if _, err := s.conn.Write(s.out); err != nil {
		return err
	}
	return s.hear()
}

// quit takes leave (RFC 5321 §4.1.1.10) without waiting for the answer.
func (s *session) quit() {
	_ = s.conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = s.conn.Write([]byte("QUIT\r\n")) // a peer that has gone does not miss it
	_ = s.conn.Close()
}

// greet takes the greeting, says hello and turns on TLS if it is offered and wanted, or as the policy asks.
func (s *session) greet(cfg *tls.Config, p *policy, secure bool) result {
	if err := s.read(s.cfg.Timeouts.Greeting); err != nil {
		return s.failed("greeting", err)
	}
	if s.rep.code/100 != 2 {
		return s.said("greeting")
	}
	if r := s.hello(); r.is() {
		return r
	}
	switch {
	case !secure:
		return result{}
	case !s.ext.starttls:
		return s.inClear(p, "the host offers no TLS")
	}
	if r := s.startTLS(cfg, p); r.is() || !s.tls {
		return r
	}
	return s.hello()
}

// name is ours, as the address that we come from is called.
func (s *session) name() string {
	if s.from != nil {
		return s.from.Hostname
	}
	return s.cfg.Hostname
}

// hear takes a reply.
func (s *session) hear() error {
	err := s.rep.read(s.br)
	if err == nil {
		s.log.heard(&s.rep)
	}
	return err
}

// hello introduces us and learns what the host can do. Nothing from before is kept (RFC 3207 §4.2).
func (s *session) hello() result {
	s.ext = extensions{}
	if err := s.ask("EHLO " + s.name()); err != nil {
		return s.failed("helo", err)
	}
	switch s.rep.code {
	case 250:
		s.ext = parseExtensions(string(s.rep.text))
		if cap(s.rep.text) > 2*maxLine {
			s.rep.text = nil // a long list is not worth its memory
		}
		return result{}
	case 500, 502, 504: // a host of before 1995: RFC 5321 §3.2
		if err := s.ask("HELO " + s.name()); err != nil {
			return s.failed("helo", err)
		}
	}
	if s.rep.code/100 != 2 {
		return s.said("helo")
	}
	return result{}
}

func parseExtensions(text string) extensions {
	var e extensions
	_, lines, _ := strings.Cut(text, "\n") // the first line is the host's name
	for line := range strings.SplitSeq(lines, "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToUpper(word) {
		case "PIPELINING":
			e.pipelining = true
		case "STARTTLS":
			e.starttls = true
		case "SMTPUTF8":
			e.smtputf8 = true
		case "SIZE":
			e.size = true
			if n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err == nil && n > 0 {
				e.maxSize = n // none, or 0, is no fixed limit
			}
		}
	}
	return e
}

// said is the result of the reply just read, when it was not the one hoped for.
func (s *session) said(stage string) result {
	if s.rep.code/100 == 3 || s.rep.code/100 == 2 && stage != "dot" {
		return s.failed(stage, protocolError("answered "+strconv.Itoa(s.rep.code)+", which makes no sense here"))
	}
	r := result{Outcome: sender.Outcome{Reply: s.rep.at(stage, s.host), TLS: s.tls}}
	r.class, r.Verdict = classify(&r.Reply)
	r.Suppress = r.class == classRecipient
	r.broken = s.rep.code == 421 // the host closes after it: RFC 5321 §3.8
	r.early = beforeMail(stage) || stage == "mail" && r.broken
	return r
}

// failed is the result of a connection that broke, fell silent or spoke nonsense.
func (s *session) failed(stage string, err error) result {
	var nonsense protocolError
	late := errors.Is(err, os.ErrDeadlineExceeded)
	var r result
	switch {
	case errors.As(err, &nonsense):
		r = problem(stage, "4.5.0", nonsense.Error())
	case errors.Is(err, net.ErrClosed):
		r = cancelled(stage)
	case late:
		r = problem(stage, "4.4.2", "the host did not answer in time")
	case errors.Is(err, io.EOF):
		r = problem(stage, "4.4.2", "the host closed the connection")
	default:
		r = problem(stage, "4.4.2", "the connection broke: "+reason(err))
	}
	r.Reply.Host, r.TLS, r.broken = s.host, s.tls, true
	r.early = beforeMail(stage) || stage == "mail" && !late && nonsense == ""
	return r
}

// beforeMail says that at this stage the host has not heard of the message.
func beforeMail(stage string) bool {
	return stage == "greeting" || stage == "helo" || stage == "starttls"
}
