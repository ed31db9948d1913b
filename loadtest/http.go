package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"
)

// HTTP by hand (RFC 9112): one write, one read and no allocation for a submission, because the
// client shares its cores with the system that it measures.

const (
	headRoom  = 512      // bytes kept free before the body for the request's head
	maxAnswer = 1 << 20  // bytes of an answer's body
	maxLine   = 16 << 10 // bytes of one line of an answer's head
)

var errNotHTTP = errors.New("the answer is not HTTP/1.1")

// httpTarget makes calls of one method of the API.
type httpTarget struct {
	addr   string
	method string                                 // like messages/send
	lay    func(b []byte, s submission) []byte    // appends a call's body
	taken  func(taken []int, answer []byte) []int // appends which messages a 200 answer takes
}

// sendTarget hands mail over by messages/send, by each key in turn.
func sendTarget(addr string, keys []string, m *mail) httpTarget {
	return httpTarget{
		addr: addr, method: "messages/send",
		lay: func(b []byte, s submission) []byte { return m.appendJSON(b, keys[s.seq%len(keys)], s) },
		taken: func(taken []int, answer []byte) []int {
			taken = appendTaken(taken, answer)
			return taken[:min(len(taken), m.recipients)]
		},
	}
}

// callTarget makes calls of any other method, each about one message that a 200 answer takes.
func callTarget(addr, method string, lay func(b []byte, s submission) []byte) httpTarget {
	return httpTarget{addr: addr, method: method, lay: lay,
		taken: func(taken []int, _ []byte) []int { return append(taken, 0) }}
}

func (t httpTarget) dial(ctx context.Context, _ int) (conn, error) {
	u, err := url.Parse(t.addr)
	if err != nil || u.Scheme != "http" || u.Host == "" || len(u.Host) > 253 {
		return nil, fmt.Errorf("--api %q is not of the form http://host:port", t.addr)
	}
	host := u.Host
	if u.Port() == "" {
		host += ":80"
	}
	s, err := dialSocket(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("connect to the API: %w", err)
	}
	head := "POST /api/1.0/" + t.method + " HTTP/1.1\r\nHost: " + u.Host + "\r\nContent-Type: application/json\r\nContent-Length: "
	return &httpConn{socket: s, target: t, head: head, in: bufio.NewReaderSize(s.Conn, maxLine)}, nil
}

type httpConn struct {
	socket
	target httpTarget
	head   string
	in     *bufio.Reader
	body   []byte
}

func (c *httpConn) close() { c.Conn.Close() }

func (c *httpConn) send(s submission, deadline time.Time) (answer, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	if _, err := c.Write(c.request(s)); err != nil {
		return answer{}, fmt.Errorf("send: %w", err)
	}
	a, err := c.readAnswer()
	if err != nil {
		return answer{}, fmt.Errorf("read the answer: %w", err)
	}
	if a.code == 200 {
		c.taken = c.target.taken(c.taken[:0], a.text)
		a.taken = c.taken
	}
	return a, nil
}

// request lays the body out first, behind some room, and then the head before it: the head says
// how long the body is.
func (c *httpConn) request(s submission) []byte {
	c.buf = c.target.lay(c.buf[:headRoom], s)
	var number [24]byte
	length := append(strconv.AppendInt(number[:0], int64(len(c.buf)-headRoom), 10), "\r\n\r\n"...)
	from := headRoom - len(length)
	copy(c.buf[from:], length)
	from -= len(c.head)
	copy(c.buf[from:], c.head)
	return c.buf[from:]
}

func (c *httpConn) readAnswer() (answer, error) {
	for {
		h, err := c.readHead()
		if err != nil {
			return answer{}, err
		}
		if h.code < 200 { // 100 Continue and its like: the answer is still to come
			continue
		}
		c.body, err = h.readBody(c.in, c.body[:0])
		return answer{code: h.code, text: c.body, last: h.last}, err
	}
}

type httpHead struct {
	code    int
	length  int // -1: until the connection ends
	chunked bool
	last    bool // Connection: close
}

func (c *httpConn) readHead() (httpHead, error) {
	h := httpHead{length: -1}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || len(line) < 13 {
		return h, errNotHTTP
	}
	if h.code, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, errNotHTTP
	}
	for range 100 {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return h, err
		}
		name, value, found := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if !found {
			return h, nil
		}
		if err := h.field(name, bytes.TrimSpace(value)); err != nil {
			return h, err
		}
	}
	return h, errors.New("the answer has more than 100 header fields")
}

func (h *httpHead) field(name, value []byte) (err error) {
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 || h.length > maxAnswer {
			return fmt.Errorf("the answer's Content-Length %.20q is not a number up to %d", value, maxAnswer)
		}
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		h.chunked = bytes.EqualFold(value, []byte("chunked"))
	case bytes.EqualFold(name, []byte("Connection")):
		h.last = bytes.EqualFold(value, []byte("close"))
	}
	return nil
}

func (h *httpHead) readBody(in *bufio.Reader, b []byte) ([]byte, error) {
	if h.length >= 0 && !h.chunked {
		b = append(b, make([]byte, h.length)...)
		_, err := io.ReadFull(in, b)
		return b, err
	}
	var from io.Reader = in
	if h.chunked {
		from = httputil.NewChunkedReader(in)
	} else {
		h.last = true
	}
	body, err := io.ReadAll(io.LimitReader(from, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	case h.chunked:
		return body, readTrailer(in)
	}
	return body, nil
}

// readTrailer reads what httputil leaves of a chunked body: fields that nobody reads, and an empty line.
func readTrailer(in *bufio.Reader) error {
	for range 100 {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
	}
	return errors.New("the answer has more than 100 trailer fields")
}

// appendTaken appends the positions of the results whose status is queued, sent or scheduled.
// Results stand in the order of the recipients. It looks for the fields instead of decoding the
// answer: decoding costs more than the rest of the client.
func appendTaken(taken []int, body []byte) []int {
	field := []byte(`"status"`)
	for i := 0; ; i++ {
		at := bytes.Index(body, field)
		if at < 0 {
			return taken
		}
		body = body[at+len(field):]
		status, _, _ := bytes.Cut(bytes.TrimLeft(body, ": \t\r\n\""), []byte(`"`))
		switch string(status) {
		case "queued", "sent", "scheduled":
			taken = append(taken, i)
		}
	}
}
