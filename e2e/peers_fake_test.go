package e2e

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a mail host of our own. It keeps what it takes, and is as well or as ill as its mood says.
type fake struct {
	addr string

	mu       sync.Mutex
	listener net.Listener // nil while it is down
	mood     mood
	conns    map[net.Conn]bool
	peak     int // connections at once since it was last up
	mails    map[string][][]byte
	greeted  int // the most bytes of a greeting that somebody took
	misled   int // connections on which something came after the answer to STARTTLS
	running  sync.WaitGroup
}

// mood is what is wrong with a host; the zero mood is a host that is well.
type mood struct {
	answers map[string]string // by command, in place of its usual ones; CONNECT and "." are commands
	drip    bool              // a byte a second
	flood   int               // bytes of greeting that never ends before
	dies    bool              // after the final dot, with all its connections
}

const hello = "250-fake\r\n250-8BITMIME\r\n250 PIPELINING\r\n"

func newFake(t *testing.T, addr string, m mood) *fake {
	t.Helper()
	f := &fake{addr: addr, conns: map[net.Conn]bool{}, mails: map[string][][]byte{}}
	f.up(t, m)
	t.Cleanup(func() { f.down(); f.running.Wait() })
	return f
}

// up has it listen in this mood. Connections from before are gone.
func (f *fake) up(t *testing.T, m mood) {
	t.Helper()
	f.down()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener, f.mood, f.peak = l, m, 0
	f.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.peak = max(f.peak, len(f.conns))
			f.mu.Unlock()
			f.running.Go(func() {
				f.serve(conn, m)
				f.mu.Lock()
				delete(f.conns, conn)
				f.mu.Unlock()
				_ = conn.Close()
			})
		}
	})
}

// down is what happens to a host that is killed.
func (f *fake) down() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		_ = f.listener.Close()
		f.listener = nil
	}
	for conn := range f.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// serve talks to a client until one of them has enough.
func (f *fake) serve(conn net.Conn, m mood) {
	if m.flood > 0 {
		f.flood(conn, m.flood)
		return
	}
	r := bufio.NewReader(conn)
	for verb := "CONNECT"; m.say(conn, verb) && verb != "QUIT"; {
		if verb == "STARTTLS" {
			if _, err := r.ReadByte(); err == nil {
				f.mu.Lock()
				f.misled++
				f.mu.Unlock()
			}
			return
		}
		if verb == "DATA" && f.take(r) != nil {
			return
		}
		if verb == "DATA" && m.dies {
			f.down()
			return
		}
		if verb == "DATA" {
			verb = "."
			continue
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ = strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
	}
}

// say gives the answer to a command.
func (m *mood) say(conn net.Conn, verb string) bool {
	text, ok := m.answers[verb]
	usual := map[string]string{"CONNECT": "220 fake ESMTP\r\n", "EHLO": hello, "DATA": "354 go on\r\n"}
	if !ok {
		text, ok = usual[verb]
	}
	if !ok {
		text = "250 2.0.0 fine\r\n"
	}
	if !m.drip {
		_, err := conn.Write([]byte(text))
		return err == nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range text {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return false
		}
		<-tick.C
	}
	return true
}

// flood writes a greeting of so many bytes, as far as the other side takes it.
func (f *fake) flood(conn net.Conn, n int) {
	line := append(bytes.Repeat([]byte("220-welcome "), 80), "\r\n"...)
	wrote := 0
	for err := error(nil); err == nil && wrote < n; wrote += len(line) {
		_ = conn.SetWriteDeadline(time.Now().Add(2 * peerTime)) // somebody who neither reads nor closes
		_, err = conn.Write(line)
	}
	f.mu.Lock()
	f.greeted = max(f.greeted, wrote)
	f.mu.Unlock()
}

// take reads a mail up to its dot and keeps it as it was meant (RFC 5321 §4.5.2).
func (f *fake) take(r *bufio.Reader) error {
	var raw []byte
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return err
		}
		if string(line) == ".\r\n" {
			break
		}
		raw = append(raw, bytes.TrimPrefix(line, []byte("."))...)
	}
	id := ""
	if m := messageID.FindSubmatch(raw); m != nil {
		id = string(m[1])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mails[id] = append(f.mails[id], raw)
	return nil
}

// counts is how many mails it has, and how many copies more than one of each.
func (f *fake) counts() (mails, doubles int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, copies := range f.mails {
		doubles += len(copies) - 1
	}
	return len(f.mails), doubles
}

// holds wants it to have all of these mails and no other; of a mail that is there more than once, the same bytes.
func (f *fake) holds(t *testing.T, ids []string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if len(f.mails[id]) == 0 {
			t.Errorf("%s is lost", id)
		}
		for _, raw := range f.mails[id] {
			if !bytes.Equal(raw, f.mails[id][0]) {
				t.Errorf("%s came as\n%s\nand as\n%s", id, f.mails[id][0], raw)
			}
		}
	}
	if len(f.mails) != len(ids) {
		t.Errorf("%d mails were sent and %d arrived", len(ids), len(f.mails))
	}
}
