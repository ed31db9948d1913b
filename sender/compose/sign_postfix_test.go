package compose

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = relay.example.net
mydestination =
alias_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
relayhost = [%[2]s]:%[3]s
`

const postfixMaster = `127.0.0.1:%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// TestSignaturesSurvivePostfix sends signed mails through a Postfix of the machine, as it comes.
func TestSignaturesSurvivePostfix(t *testing.T) {
	path, err := exec.LookPath("postfix")
	if err != nil {
		path = "/usr/sbin/postfix" // often not in PATH
	}
	if _, err := os.Stat(path); err != nil || os.Geteuid() != 0 {
		t.Skip("needs Postfix, and root to start it")
	}
	keys := testKeys(t)
	txt, mails := records(t, keys), signedMails(t, 200, keys)
	next := newSink(t)
	hop := startPostfix(t, path, next.addr)
	names := map[string]string{} // by recipient
	client, err := smtp.Dial(hop)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, mail := range mails {
		to := fmt.Sprintf("r%d@example.org", len(names))
		names[to] = name
		if err := send(client, to, mail); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	deadline := time.After(time.Minute)
	for range mails {
		select {
		case got := <-next.got:
			if !strings.Contains(string(got.mail), "by relay.example.net (Postfix)") {
				t.Fatalf("did not come by Postfix:\n%s", got.mail)
			}
			if said := verdicts(t, got.mail, txt); !allPass(said, len(keys)) {
				t.Errorf("%s: %q\nsent:\n%s\ngot:\n%s", names[got.to], said, mails[names[got.to]], got.mail)
			}
			delete(names, got.to)
		case <-deadline:
			t.Fatalf("%d mails did not arrive", len(names))
		}
	}
	if len(names) > 0 {
		t.Errorf("did not arrive: %v", names)
	}
}

func send(c *smtp.Client, to string, mail []byte) error {
	if err := c.Mail("bounce@example.com"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail); err != nil {
		return err
	}
	return w.Close()
}

// startPostfix starts one of our own, beside what the machine may run, and answers where it listens.
func startPostfix(t *testing.T, path, relayhost string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "compose-postfix") // t.TempDir has a name too long for Postfix's sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"", "etc", "queue", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	if err := os.Chown(filepath.Join(dir, "data"), uid, -1); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	host, port, _ := net.SplitHostPort(relayhost)
	_, own, _ := net.SplitHostPort(addr)
	for name, text := range map[string]string{"main.cf": fmt.Sprintf(postfixMain, dir, host, port), "master.cf": fmt.Sprintf(postfixMaster, own)} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	etc := filepath.Join(dir, "etc")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, "-c", etc, "start").CombinedOutput(); err != nil { // returns when it listens
		t.Fatalf("start Postfix: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(path, "-c", etc, "stop").CombinedOutput(); err != nil {
			t.Errorf("stop Postfix: %v: %s", err, out)
		}
	})
	return addr
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sink is the next host: it hands on what it gets.
type sink struct {
	addr string
	got  chan received
}

type received struct {
	to   string
	mail []byte
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{l.Addr().String(), make(chan received, 1000)}
	server := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &sinkSession{sink: s}, nil }))
	server.EnableSMTPUTF8 = true
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s
}

type sinkSession struct {
	*sink
	to string
}

func (s *sinkSession) Mail(string, *gosmtp.MailOptions) error { return nil }

func (s *sinkSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.to = to
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	mail, err := io.ReadAll(r)
	if err == nil {
		s.got <- received{s.to, mail}
	}
	return err
}

func (s *sinkSession) Reset()        {}
func (s *sinkSession) Logout() error { return nil }
