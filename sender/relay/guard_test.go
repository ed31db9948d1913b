package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/bounce"
)

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// quick is a relay whose reads time out soon; nothing behind it is reached.
func quick() *Relay {
	r := New(Config{Hostname: "mx.test", Log: zap.NewNop()})
	r.server.ReadTimeout = 200 * time.Millisecond
	return r
}

func path(account int64, id sender.ID) string {
	return bounce.Key{}.Encode(bounce.ReturnPath{Account: account, Message: id}) + "@bounces.test"
}

// peer is the other side, line by line.
type peer struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr net.Addr) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return &peer{c, bufio.NewReader(c)}
}

// say sends a line and wants a reply that begins with a code.
func (p *peer) say(t *testing.T, line, code string) {
	t.Helper()
	if line != "" {
		_, _ = io.WriteString(p, line+"\r\n")
	}
	for {
		got, err := p.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(got, code) {
			t.Fatalf("%q is answered %q, %v, want %s", line, got, err, code)
		}
		if len(got) > 3 && got[3] == ' ' {
			return
		}
	}
}

// data brings a session into DATA, sends a part of a mail and falls silent.
func (p *peer) data(t *testing.T) {
	t.Helper()
	p.say(t, "", "220")
	p.say(t, "EHLO peer.test", "250")
	p.say(t, "MAIL FROM:<>", "250")
	p.say(t, "RCPT TO:<"+path(1, sender.NewID())+">", "250")
	p.say(t, "DATA", "354")
	_, _ = io.WriteString(p, "Subject: x\r\n\r\nhal")
}

// TestGuardEndsAfterTimeout shows what the guard is for. Without it, go-smtp answers a DATA that timed out and takes
// what the other side sends of the mail after that for commands: a mail could smuggle others in. If the first half
// of this test fails, go-smtp has been mended, and the guard may shrink.
func TestGuardEndsAfterTimeout(t *testing.T) {
	l := listenLocal(t)
	bare := quick()
	go func() { _ = bare.server.Serve(l) }()
	defer func() { _ = bare.server.Close() }()
	p := dial(t, l.Addr())
	p.data(t)
	p.say(t, "", "554") // the timeout
	p.say(t, "NOOP this is a line of the mail", "250")

	l = listenLocal(t)
	guarded := quick()
	go func() { _ = guarded.server.Serve(newGuard(l, 10, time.Minute)) }()
	defer func() { _ = guarded.server.Close() }()
	p = dial(t, l.Addr())
	p.data(t)
	if rest, _ := io.ReadAll(p.in); len(rest) > 0 {
		t.Errorf("the guarded session went on: %q", rest)
	}
	if _, err := io.WriteString(p, "NOOP\r\n"); err == nil {
		if line, err := p.in.ReadString('\n'); err == nil {
			t.Errorf("and answered %q", line)
		}
	}
}

// TestGuardEndsSession has a client that is never silent be cut off all the same.
func TestGuardEndsSession(t *testing.T) {
	l := listenLocal(t)
	r := quick()
	begin := time.Now()
	go func() { _ = r.server.Serve(newGuard(l, 10, 500*time.Millisecond)) }()
	defer func() { _ = r.server.Close() }()
	p := dial(t, l.Addr())
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(p, "NOOP\r\n"); err != nil {
				return
			}
		}
	}()
	_, _ = io.Copy(io.Discard, p.in)
	if took := time.Since(begin); took < 400*time.Millisecond || took > 5*time.Second {
		t.Errorf("a session of 500 ms took %v", took)
	}
}

// TestGuardSlots has sessions beyond the limit wait for one to end.
func TestGuardSlots(t *testing.T) {
	l := listenLocal(t)
	r := New(Config{Hostname: "mx.test", Log: zap.NewNop()})
	go func() { _ = r.server.Serve(newGuard(l, 2, time.Minute)) }()
	defer func() { _ = r.server.Close() }()
	first, second, third := dial(t, l.Addr()), dial(t, l.Addr()), dial(t, l.Addr())
	first.say(t, "", "220")
	second.say(t, "", "220")
	_ = third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if line, err := third.in.ReadString('\n'); err == nil {
		t.Errorf("a third session of two is greeted with %q", line)
	}
	first.say(t, "QUIT", "221")
	_ = third.SetReadDeadline(time.Now().Add(10 * time.Second))
	third.say(t, "", "220")
	_ = second.Close() // without a word
	dial(t, l.Addr()).say(t, "", "220")
}

// TestStopWithSessions stops while every slot is taken by an idle client: Run returns soon and leaves none open.
func TestStopWithSessions(t *testing.T) {
	l := listenLocal(t)
	r := New(Config{Hostname: "mx.test", Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, l) }()
	var peers []*peer
	for range maxSessions {
		p := dial(t, l.Addr())
		p.say(t, "", "220")
		peers = append(peers, p)
	}
	begin := time.Now()
	cancel()
	if err := <-ended; err != nil || time.Since(begin) > 3*time.Second {
		t.Errorf("stopping took %v, %v", time.Since(begin), err)
	}
	for i, p := range peers {
		if _, err := p.in.ReadString('\n'); err == nil {
			t.Fatalf("session %d lives on", i)
		}
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener lives on")
	}
}

// TestStopBeforeServe has a stop come before the first Accept.
func TestStopBeforeServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- New(Config{Log: zap.NewNop()}).Run(ctx, listenLocal(t)) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it serves on")
	}
}

// TestRunFails tells a listener that broke from a stop.
func TestRunFails(t *testing.T) {
	l := listenLocal(t)
	_ = l.Close()
	if err := New(Config{Log: zap.NewNop()}).Run(context.Background(), l); err == nil {
		t.Error("a closed listener is served")
	}
}

// TestGreedy has lines without an end and crowds of recipients be refused.
func TestGreedy(t *testing.T) {
	l := listenLocal(t)
	r := New(Config{Hostname: "mx.test", Log: zap.NewNop()})
	go func() { _ = r.server.Serve(newGuard(l, 10, time.Minute)) }()
	defer func() { _ = r.server.Close() }()
	p := dial(t, l.Addr())
	p.say(t, "", "220")
	p.say(t, "EHLO peer.test", "250")
	p.say(t, "MAIL FROM:<>", "250")
	for range maxRcpts {
		p.say(t, "RCPT TO:<"+path(1, sender.NewID())+">", "250")
	}
	p.say(t, "RCPT TO:<"+path(1, sender.NewID())+">", "452")
	p.say(t, "NOOP "+strings.Repeat("x", maxLine), "500")
	if _, err := p.in.ReadByte(); err == nil {
		t.Error("the session goes on after a line without an end")
	}
	declared := dial(t, l.Addr())
	declared.say(t, "", "220")
	declared.say(t, "EHLO peer.test", "250")
	declared.say(t, fmt.Sprintf("MAIL FROM:<> SIZE=%d", maxReport+1), "552")
}

// TestFault holds against an address only what speaks of it.
func TestFault(t *testing.T) {
	const hard, soft = sender.ReasonHardBounce, sender.ReasonSoftBounce
	for status, want := range map[string]sender.RejectReason{"5.1.1": hard, "5.1.2": hard, "5.1.3": hard, "5.1.6": hard, "5.1.10": hard, "5.2.1": hard,
		"5.2.2": soft, "4.2.2": soft, "4.2.1": soft, "": "", "5.7.1": "", "5.0.0": "", "4.1.1": "", "4.4.7": "", "4.7.1": "", "4.20.1": "", "5.1.11": "", "5.1": ""} {
		if got := fault(status); got != want {
			t.Errorf("%q: %q, want %q", status, got, want)
		}
	}
}
