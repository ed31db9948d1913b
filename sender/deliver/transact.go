package deliver

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/postrider/postrider/sender"
)

// block is how much content is written under one deadline.
const block = 64 << 10

// step is a command before the content: where its line ends in session.out, and how long its answer may take.
type step struct {
	stage string
	end   int
	limit time.Duration
}

// transact sends one message. With PIPELINING (RFC 2920) that is two writes: the commands, then the content.
func (s *session) transact(e *Envelope) result {
	if r := s.unfit(e); r.is() {
		return r
	}
	s.used++
	refused, steps := result{}, s.script(e)
	if s.ext.pipelining {
		s.by(s.cfg.Timeouts.Command)
		s.log.sent(s.out)
		if _, err := s.conn.Write(s.out); err != nil {
			return s.failed("mail", err)
		}
	}
	for i := range steps {
		r := s.step(steps, i, refused.is())
		switch {
		case !r.is():
			continue
		case refused.is(): // while the answers to what was sent after it are taken
			refused.broken = true
			return refused
		case r.broken || !s.ext.pipelining:
			return r
		}
		refused = r
	}
	if refused.is() {
		return refused
	}
	if s.br.Buffered() > 0 {
		return s.failed("data", protocolError("spoke before the content was sent"))
	}
	if e.Still != nil {
		if err := e.Still(); err != nil { // the connection is given up: the host waits for content now
			r := problem("data", "4.3.2", err.Error())
			r.Reply.Host, r.TLS, r.broken = s.host, s.tls, true
			return r
		}
	}
	return s.content(e.Data)
}

// unfit says that this host cannot take the message, as it told us in its hello.
func (s *session) unfit(e *Envelope) (r result) {
	switch {
	case s.ext.maxSize > 0 && int64(e.Size) > s.ext.maxSize:
		r = bounce("mail", "5.3.4", fmt.Sprintf("the message has %d bytes and the host takes %d at most", e.Size, s.ext.maxSize))
	case e.SMTPUTF8 && !s.ext.smtputf8:
		r = bounce("mail", "5.6.7", "the host does not take addresses or headers in UTF-8 (SMTPUTF8)")
	}
	r.Reply.Host, r.TLS = s.host, s.tls
	return r
}

// script writes the commands into out and returns the steps they are.
func (s *session) script(e *Envelope) []step {
	t, steps, b := &s.cfg.Timeouts, s.steps[:0], s.out[:0]
	if s.mail {
		b = append(b, "RSET\r\n"...)
		steps = append(steps, step{"rset", len(b), t.Command})
	}
	b = append(append(append(b, "MAIL FROM:<"...), e.From...), '>')
	if s.ext.size {
		b = strconv.AppendInt(append(b, " SIZE="...), int64(e.Size), 10)
	}
	if e.SMTPUTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	b = append(b, "\r\n"...)
	steps = append(steps, step{"mail", len(b), t.Command})
	b = append(append(append(b, "RCPT TO:<"...), e.To...), ">\r\n"...)
	steps = append(steps, step{"rcpt", len(b), t.Command})
	b = append(b, "DATA\r\n"...)
	steps = append(steps, step{"data", len(b), t.Data})
	s.out = b
	return steps
}

// step sends the i-th command, unless it was pipelined, and takes its answer. Once a command was refused, the
// answers to those behind it only have to be taken: a failure then means a broken connection.
func (s *session) step(steps []step, i int, refused bool) result {
	st := &steps[i]
	var err error
	switch {
	case !s.ext.pipelining:
		from := 0
		if i > 0 {
			from = steps[i-1].end
		}
		s.by(st.limit)
		s.log.sent(s.out[from:st.end])
		if _, err = s.conn.Write(s.out[from:st.end]); err == nil {
			err = s.hear()
		}
	case i == 0: // its time began with the write
		err = s.hear()
	default:
		err = s.read(st.limit)
	}
	ok := s.rep.code/100 == 2 && st.stage != "data" || s.rep.code == 354 && st.stage == "data"
	switch {
	case st.stage == "rset":
		if err != nil || !ok { // the host is confused: a new connection is cheaper than finding out how
			r := s.failed("mail", errors.Join(err, protocolError("did not take RSET")))
			r.early = !errors.Is(err, os.ErrDeadlineExceeded)
			return r
		}
		s.mail = false
	case err != nil:
		return s.failed(st.stage, err)
	case refused && ok && st.stage == "data":
		return s.callOff()
	case refused:
	case !ok:
		return s.said(st.stage)
	case st.stage == "mail":
		s.mail = true
	}
	return result{}
}

// callOff ends the content of a host that asks for it after it refused the recipient: a lone dot, and whatever the
// answer, the message has failed (RFC 2920 §3.1).
func (s *session) callOff() result {
	s.by(s.cfg.Timeouts.Dot)
	if _, err := s.conn.Write([]byte(".\r\n")); err != nil {
		return s.failed("data", err)
	}
	if err := s.hear(); err != nil {
		return s.failed("data", err)
	}
	s.mail = false
	return result{}
}

// content sends the message itself and takes the host's last word on it.
func (s *session) content(data []byte) result {
	for len(data) > 0 {
		n := min(len(data), block)
		s.by(s.cfg.Timeouts.Block)
		if _, err := s.conn.Write(data[:n]); err != nil {
			return s.cutShort(err)
		}
		data = data[n:]
	}
	s.log.note("the content", "")
	s.by(s.cfg.Timeouts.Dot)
	if err := s.hear(); err != nil {
		r := s.failed("dot", err)
		r.Unknown = true // RFC 1047: it may have arrived, so a second copy is possible
		r.Reply.Text += "; the outcome is unknown: it may have the message"
		return r
	}
	s.mail = false
	r := s.said("dot")
	r.Unknown = s.rep.code/100 == 3
	return r
}

// cutShort is the result of content that the host did not let us finish: what it said before it closed, if it did.
// The final dot was not sent, so the message has not arrived.
func (s *session) cutShort(err error) result {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		s.by(time.Second)
		if s.hear() == nil && s.rep.code >= 400 {
			r := s.said("data")
			r.broken = true
			return r
		}
	}
	r := s.failed("data", err)
	r.Verdict = sender.OutcomeDeferred
	return r
}
