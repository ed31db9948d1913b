package loadtest

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// wary is an SMTP server that wants AUTH PLAIN with one key, offers no pipelining, refuses some
// recipients, and hangs up after a number of mails. It speaks to one client after the other.
type wary struct {
	addr  string
	mails chan string
}

func startWary(t *testing.T, mailsPerSession int) wary {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := wary{l.Addr().String(), make(chan string, 100)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.talk(c, mailsPerSession)
			c.Close()
		}
	}()
	return w
}

func (w wary) talk(c net.Conn, mails int) {
	in, known, rcpts := bufio.NewScanner(c), false, 0
	say := func(s string) { c.Write([]byte(s + "\r\n")) }
	say("220-two lines\r\n220 wary")
	for in.Scan() {
		switch line := in.Text(); {
		case strings.HasPrefix(line, "EHLO"):
			say("250-wary\r\n250 AUTH PLAIN")
		case line == "AUTH PLAIN AGJvYgBrZXktMQ==": // \0bob\0key-1
			known = true
			say("235 2.7.0 ok")
		case strings.HasPrefix(line, "AUTH"):
			say("535 5.7.8 wrong key")
		case !known:
			say("530 5.7.0 AUTH first")
		case strings.HasPrefix(line, "MAIL"):
			rcpts = 0
			if mails--; mails < 0 {
				say("421 4.7.0 enough")
				return
			}
			say("250 ok")
		case strings.HasPrefix(line, "RCPT TO:<user1@"):
			say("550 5.1.1 nobody")
		case strings.HasPrefix(line, "RCPT"):
			rcpts++
			say("250 ok")
		case line == "DATA" && rcpts == 0:
			say("554 5.5.1 no recipients")
		case line == "DATA":
			say("354 go on")
			var mail strings.Builder
			for in.Scan() && in.Text() != "." {
				mail.WriteString(in.Text() + "\n")
			}
			w.mails <- mail.String()
			say("250 taken")
		default:
			say("250 ok")
		}
	}
}

func TestSMTPWithAuthAndRefusals(t *testing.T) {
	w := startWary(t, 3)
	l := testLoad(nil)
	l.SMTP, l.Keys, l.Recipients = w.addr, []string{"key-1"}, 2
	c, err := smtpTarget{addr: w.addr, user: "bob", keys: l.Keys, mail: newMail("run", l)}.dial(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	a, err := sendOne(c, 0, 2) // user0 and user1
	if err != nil || a.code != 550 || string(a.text) != "5.1.1 nobody" || len(a.taken) != 1 || a.taken[0] != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	if mail := <-w.mails; !strings.Contains(mail, "\nX-Bench: run 0 ") || !strings.Contains(mail, "\nMessage-ID: <run.0@loadtest.test>\n") {
		t.Errorf("mail %.300s", mail)
	}
	if a, err = sendOne(c, 1, 2); err != nil || a.code != 250 || len(a.taken) != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
	l.Recipients = 1
	only := &smtpConn{socket: c.(*smtpConn).socket, mail: newMail("run", l), in: c.(*smtpConn).in}
	if a, err = sendOne(only, 1, 1); err != nil || a.code != 550 || len(a.taken) != 0 || a.last {
		t.Fatalf("nobody left: %+v, %v", a, err)
	}
	if a, err = sendOne(only, 2, 1); err != nil || a.code != 421 || len(a.taken) != 0 || !a.last {
		t.Fatalf("hung up: %+v, %v", a, err)
	}
}

func TestSMTPWrongKeyIsSaidAtTheStart(t *testing.T) {
	l := testLoad(nil)
	l.SMTP, l.User, l.Keys = startWary(t, 1).addr, "bob", []string{"wrong"}
	_, err := l.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "535 5.7.8 wrong key") {
		t.Fatalf("%v", err)
	}
}

func TestSMTPRunReconnects(t *testing.T) {
	l := testLoad(nil)
	l.SMTP, l.User, l.Keys = startWary(t, 4).addr, "bob", []string{"key-1"}
	l.Connections, l.Count = 1, 20
	rep, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Of each 5 submissions, the last is answered 421; user1 is refused with 550.
	if rep.Accepted != 15 || rep.Failed != 5 || len(rep.Failures) != 2 || rep.Failures[0].Status != "421" || rep.Failures[0].Count != 4 {
		t.Fatalf("%+v", rep)
	}
}
