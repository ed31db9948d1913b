package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// start runs a sandbox until the test ends.
func start(t testing.TB, cfg Config) *Sandbox {
	t.Helper()
	s, stop := launch(t, cfg)
	t.Cleanup(stop)
	return s
}

// launch runs a sandbox until stop is called, which checks that it ends in time and without an error.
func launch(t testing.TB, cfg Config) (s *Sandbox, stop func()) {
	t.Helper()
	cfg.SMTP, cfg.Inbox = "127.0.0.1:0", "127.0.0.1:0"
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return s, func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(2 * time.Second):
			t.Error("Run did not end within 2 seconds")
		}
	}
}

func dial(t *testing.T, s *Sandbox) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(s.SMTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const plainMail = "From: Ann <ann@example.com>\r\nTo: Bob <bob@example.org>\r\nSubject: Hello\r\n" +
	"Message-ID: <one@example.com>\r\n\r\nHow are you?\r\n"

func sendMail(t *testing.T, s *Sandbox, from, raw string, to ...string) error {
	t.Helper()
	return dial(t, s).SendMail(from, to, strings.NewReader(raw))
}

// code is the SMTP code and enhanced code of an error, "250" for none.
func code(err error) string {
	if err == nil {
		return "250"
	}
	var e *smtp.SMTPError
	if !errors.As(err, &e) {
		return err.Error()
	}
	return fmt.Sprintf("%d %d.%d.%d", e.Code, e.EnhancedCode[0], e.EnhancedCode[1], e.EnhancedCode[2])
}

func TestAnswers(t *testing.T) {
	s := start(t, Config{})
	tests := []struct {
		to, want string
		kept     bool
	}{
		{"bob@example.org", "250", true},
		{"bounce@example.org", "550 5.1.1", false},
		{"BOUNCE+x.y@example.org", "550 5.1.1", false},
		{"reject@example.org", "554 5.7.1", false},
		{"reject+tag@example.org", "554 5.7.1", false},
		{"defer-1@example.org", "451 4.7.1", false},
		{"bouncer@example.org", "250", true},
		{"rené@exämple.org", "250", true},
	}
	for _, tt := range tests {
		t.Run(tt.to, func(t *testing.T) {
			s.inbox.clear()
			c := dial(t, s)
			err := c.Mail("return@example.com", &smtp.MailOptions{UTF8: true})
			if err == nil {
				err = c.Rcpt(tt.to, nil)
			}
			if err == nil {
				err = data(c, plainMail)
			}
			if got := code(err); got != tt.want {
				t.Errorf("answer %s, want %s", got, tt.want)
			}
			if kept := len(s.inbox.all()) == 1; kept != tt.kept {
				t.Errorf("in the inbox: %v, want %v", kept, tt.kept)
			}
		})
	}
}

func data(c *smtp.Client, raw string) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, raw); err != nil {
		return err
	}
	return w.Close()
}

func TestDefersTheFirstAttemptsOfEachMessage(t *testing.T) {
	s := start(t, Config{})
	for _, from := range []string{"r-1@example.com", "r-2@example.com"} {
		for i, want := range []string{"451 4.7.1", "451 4.7.1", "250", "250"} {
			if got := code(sendMail(t, s, from, plainMail, "defer-2+tag@example.org")); got != want {
				t.Errorf("attempt %d of %s: %s, want %s", i+1, from, got, want)
			}
		}
	}
}

func TestOneRefusedRecipientDoesNotHarmTheOthers(t *testing.T) {
	s := start(t, Config{})
	c := dial(t, s)
	if err := c.Mail("r@example.com", nil); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{"a@example.org": "250", "bounce@example.org": "550 5.1.1", "b@example.org": "250"} {
		if got := code(c.Rcpt(to, nil)); got != want {
			t.Errorf("RCPT %s: %s, want %s", to, got, want)
		}
	}
	if err := data(c, plainMail); err != nil {
		t.Fatal(err)
	}
	if m := s.inbox.find("latest"); len(m.to) != 2 || string(m.raw) != plainMail || m.from != "r@example.com" {
		t.Errorf("kept %q from %q: %q", m.to, m.from, m.raw)
	}
}

func TestSlowAnswersLate(t *testing.T) {
	s := start(t, Config{})
	begin := time.Now()
	if err := sendMail(t, s, "r@example.com", plainMail, "slow-300@example.org", "bob@example.org"); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("answered after %s, want 300 ms or more", d)
	}
}

func TestSlowDoesNotHoldUpTheEnd(t *testing.T) {
	s, stop := launch(t, Config{})
	c := dial(t, s)
	answered := make(chan error, 1)
	go func() {
		answered <- c.SendMail("r@example.com", []string{"slow-600000@example.org"}, strings.NewReader(plainMail))
	}()
	eventually(t, "the transaction to begin", func() bool { return anyBusy(s) })
	stop()
	if err := receive(t, answered); err == nil || len(s.inbox.all()) > 0 {
		t.Error("accepted, although the sandbox ended before the answer was due")
	}
}

func TestMailOnItsWayIsTakenAtTheEnd(t *testing.T) {
	s, stop := launch(t, Config{})
	c := dial(t, s)
	if err := errors.Join(c.Mail("r@example.com", nil), c.Rcpt("bob@example.org", nil)); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	idle := dial(t, s)
	if err := idle.Hello("x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the transaction to begin", func() bool { return anyBusy(s) })
	go func() {
		<-s.mx.stopping
		io.WriteString(w, plainMail)
		w.Close()
	}()
	stop()
	if len(s.inbox.all()) != 1 {
		t.Error("the mail is not in the inbox")
	}
	if idle.Noop() == nil {
		t.Error("an idle session outlived the sandbox")
	}
}

func anyBusy(s *Sandbox) bool {
	s.smtp.mu.Lock()
	defer s.smtp.mu.Unlock()
	for c := range s.smtp.conns {
		if c.busy.Load() {
			return true
		}
	}
	return false
}

func TestDropClosesWithoutAnAnswer(t *testing.T) {
	s := start(t, Config{})
	for _, chunked := range []bool{false, true} {
		nc, err := net.Dial("tcp", s.SMTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(5 * time.Second))
		commands := "EHLO x\r\nMAIL FROM:<r@example.com>\r\nRCPT TO:<drop@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
		want := 5 // with the greeting
		if chunked {
			commands += fmt.Sprintf("BDAT %d LAST\r\n%s", len(plainMail), plainMail)
		} else {
			commands += "DATA\r\n" + plainMail + ".\r\n"
			want = 6
		}
		io.WriteString(nc, commands)
		replies := 0
		scan := bufio.NewScanner(nc)
		for scan.Scan() {
			if line := scan.Text(); len(line) > 3 && line[3] == ' ' {
				replies++
			}
		}
		if replies != want {
			t.Errorf("chunked %v: %d replies, want %d and then the end of the connection", chunked, replies, want)
		}
	}
	if n := len(s.inbox.all()); n != 0 {
		t.Errorf("%d mails in the inbox, want none", n)
	}
}

func TestHang(t *testing.T) {
	s, stop := launch(t, Config{})
	var clients []*textproto.Conn
	for range 2 {
		c, err := textproto.Dial("tcp", s.SMTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
		// The pipelined DATA must not be answered either.
		c.PrintfLine("EHLO x\r\nMAIL FROM:<r@example.com>\r\nRCPT TO:<hang+1@example.org>\r\nDATA")
		for _, want := range []int{220, 250, 250} {
			if _, _, err := c.ReadResponse(want); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "both sessions to hang", func() bool { return s.mx.hanging.Load() == 2 })
	clients[0].Close()
	eventually(t, "the abandoned session to end", func() bool { return s.mx.hanging.Load() == 1 })
	stop()
	if _, err := clients[1].ReadLine(); err == nil {
		// RCPT got no answer but the end of the connection, and MAIL had got its own before.
		if line, err := clients[1].ReadLine(); err == nil {
			t.Errorf("answered %q", line)
		}
	}
}

func TestExtensionsAndLimits(t *testing.T) {
	s := start(t, Config{Hostname: "mx.example.test"})
	c := dial(t, s)
	for _, ext := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE"} {
		if ok, _ := c.Extension(ext); !ok {
			t.Errorf("%s is not offered", ext)
		}
	}
	if got := code(c.Mail("r@example.com", &smtp.MailOptions{Size: maxMailBytes + 1})); got != "552 5.3.4" {
		t.Errorf("a mail too large is answered %s", got)
	}
	if err := c.Mail("r@example.com", nil); err != nil {
		t.Fatal(err)
	}
	for i := range maxRecipients {
		if err := c.Rcpt(fmt.Sprintf("to-%d@example.org", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := code(c.Rcpt("more@example.org", nil)); got != "452 4.5.3" {
		t.Errorf("recipient 1,001 is answered %s", got)
	}
}

func TestConnectionLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(inner, 1)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 2 { // closing the first makes room for the next
		first, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		held := <-accepted
		second, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if b, _ := io.ReadAll(second); !strings.HasPrefix(string(b), "421 4.3.2 ") {
			t.Errorf("the connection over the limit was told %q", b)
		}
		held.Close()
	}
}

// eventually waits for something that happens in another goroutine.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(5 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 5 seconds for %s", what)
		}
	}
}
