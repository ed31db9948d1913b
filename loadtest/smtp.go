package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// smtpTarget hands mail over by SMTP (RFC 5321), many mails a connection, with the envelope in
// one write where the server offers PIPELINING (RFC 2920).
type smtpTarget struct {
	addr string
	user string
	keys []string
	mail *mail
}

func (t smtpTarget) dial(ctx context.Context, number int) (conn, error) {
	s, err := dialSocket(ctx, t.addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the SMTP server: %w", err)
	}
	c := &smtpConn{socket: s, mail: t.mail, in: bufio.NewReaderSize(s.Conn, 4<<10)}
	key := ""
	if len(t.keys) > 0 {
		key = t.keys[number%len(t.keys)]
	}
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	if err := c.greet(t.user, key); err != nil {
		s.Close()
		return nil, err
	}
	return c, nil
}

type smtpConn struct {
	socket
	mail       *mail
	in         *bufio.Reader
	pipelining bool
	replies    []reply
}

// reply is a whole reply; text is its last line, or of an EHLO reply all of them.
type reply struct {
	code int
	text []byte
}

func (r reply) ok() bool { return r.code/100 == 2 }

func (c *smtpConn) greet(user, key string) error {
	if r, err := c.read(); err != nil || !r.ok() {
		return fmt.Errorf("SMTP greeting: %w", orRefused(r, err))
	}
	r, err := c.command("EHLO loadtest.test")
	if err != nil || !r.ok() {
		return fmt.Errorf("EHLO: %w", orRefused(r, err))
	}
	c.pipelining = bytes.Contains(bytes.ToUpper(r.text), []byte("PIPELINING"))
	if key == "" {
		return nil
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + key)) // RFC 4616
	if r, err := c.command("AUTH PLAIN " + plain); err != nil || !r.ok() {
		return fmt.Errorf("AUTH PLAIN: %w", orRefused(r, err))
	}
	return nil
}

func orRefused(r reply, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("the server said %d %s", r.code, r.text)
}

func (c *smtpConn) close() {
	c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte("QUIT\r\n"))
	c.Conn.Close()
}

func (c *smtpConn) send(s submission, deadline time.Time) (answer, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	replies, err := c.envelope(s)
	if err != nil {
		return answer{}, fmt.Errorf("envelope: %w", err)
	}
	a := c.judge(replies)
	data := replies[len(replies)-1]
	if data.code == 354 {
		if data, err = c.data(s, len(a.taken) > 0); err != nil {
			return answer{}, fmt.Errorf("data: %w", err)
		}
	}
	if !data.ok() {
		a.taken = nil
		if len(a.text) == 0 {
			a.code, a.text = data.code, data.text
		}
	}
	a.last = data.code == 421 || a.code == 421
	if len(a.taken) == 0 && !a.last { // leave no half envelope behind
		if _, err := c.command("RSET"); err != nil {
			return answer{}, fmt.Errorf("RSET: %w", err)
		}
	}
	return a, nil
}

// envelope sends MAIL, a RCPT for each message and DATA, and returns the reply to each: all in one
// write, or without pipelining one after the other's reply.
func (c *smtpConn) envelope(s submission) ([]reply, error) {
	b := append(append(c.buf[:0], "MAIL FROM:<"...), c.mail.froms[0]...)
	b = append(b, ">\r\n"...)
	for i := range c.mail.recipients {
		b = c.mail.appendRecipient(append(b, "RCPT TO:<"...), s.first+i)
		b = append(b, ">\r\n"...)
	}
	b = append(b, "DATA\r\n"...)
	c.buf = b
	c.replies = c.replies[:0]
	for len(b) > 0 {
		now := b
		if !c.pipelining {
			now = b[:bytes.IndexByte(b, '\n')+1]
		}
		b = b[len(now):]
		if _, err := c.Write(now); err != nil {
			return nil, err
		}
		for range bytes.Count(now, []byte("\n")) {
			r, err := c.read()
			if err != nil {
				return nil, err
			}
			r.text = bytes.Clone(r.refusal())
			c.replies = append(c.replies, r)
			if r.code == 421 { // it hangs up; no more replies come
				return append(c.replies, r), nil
			}
		}
	}
	return c.replies, nil
}

// refusal is the text of a reply that says no: the others are not worth a copy.
func (r reply) refusal() []byte {
	if r.code < 400 {
		return nil
	}
	return r.text
}

// judge says which recipients were taken, and remembers the first refusal.
func (c *smtpConn) judge(replies []reply) answer {
	a := answer{code: 250}
	c.taken = c.taken[:0]
	for i, r := range replies[:len(replies)-1] {
		switch {
		case !r.ok() && len(a.text) == 0:
			a.code, a.text = r.code, r.text
		case r.ok() && i > 0 && replies[0].ok():
			c.taken = append(c.taken, i-1)
		}
	}
	a.taken = c.taken
	return a
}

// data sends the mail, or nothing but the final dot when no recipient was taken.
func (c *smtpConn) data(s submission, wanted bool) (reply, error) {
	c.buf = append(c.buf[:0], ".\r\n"...)
	if wanted {
		c.buf = c.mail.appendMIME(c.buf[:0], s)
	}
	if _, err := c.Write(c.buf); err != nil {
		return reply{}, err
	}
	return c.read()
}

func (c *smtpConn) command(line string) (reply, error) {
	if _, err := c.Write([]byte(line + "\r\n")); err != nil {
		return reply{}, err
	}
	return c.read()
}

// read reads one reply of up to 100 lines. The text is valid until the next read.
func (c *smtpConn) read() (reply, error) {
	var text []byte
	for range 100 {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return reply{}, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return reply{}, errors.New("a reply is shorter than its code")
		}
		code, err := strconv.Atoi(string(line[:3]))
		if err != nil {
			return reply{}, fmt.Errorf("a reply starts with %.10q instead of a code", line)
		}
		if len(line) == 3 || line[3] == ' ' {
			if text == nil {
				return reply{code, line[min(4, len(line)):]}, nil
			}
			return reply{code, append(text, line[4:]...)}, nil
		}
		text = append(append(text, line[4:]...), '\n')
	}
	return reply{}, errors.New("a reply has more than 100 lines")
}
