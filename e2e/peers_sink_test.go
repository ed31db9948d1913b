package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// sinkCases are the options of Postfix's smtp-sink that make it a difficult host, and what has to become of mail. With
// -W goes -p: where commands are pipelined, smtp-sink answers the next one before the one that it is slow with.
var sinkCases = []struct {
	name  string
	args  []string
	state string // the message's in the end; queued: for as long as the host is like that
	says  string // the host's word, or ours about it, in the message's events
	taken bool   // it has the mail in its file, whatever it says
}{
	{name: "well", state: "sent", taken: true},
	{name: "no pipelining", args: []string{"-p"}, state: "sent", taken: true},
	{name: "no 8bitmime", args: []string{"-8"}, state: "sent", taken: true},
	{name: "no enhanced codes", args: []string{"-E"}, state: "sent", taken: true},
	{name: "no ESMTP", args: []string{"-e"}, state: "sent", taken: true},
	{name: "PIX", args: []string{"-P"}, state: "sent", taken: true},
	{name: "EHLO refused", args: []string{"-f", "EHLO"}, state: "sent", taken: true},
	{name: "RSET refused", args: []string{"-f", "RSET"}, state: "sent", taken: true},
	{name: "gone at RSET", args: []string{"-q", "RSET"}, state: "sent", taken: true},
	{name: "gone at QUIT", args: []string{"-q", "QUIT"}, state: "sent", taken: true},
	{name: "slow within limits", args: []string{"-p", "-W", "MAIL:1", "-W", "RCPT:1", "-W", "DATA:1", "-W", ".:4"}, state: "sent", taken: true},

	{name: "5xx to MAIL", args: []string{"-f", "MAIL"}, state: "bounced", says: "500 5.3.0"},
	{name: "5xx to RCPT", args: []string{"-f", "RCPT", "-B", "550 5.1.1 No such user"}, state: "bounced", says: "550 5.1.1"},
	{name: "5xx to DATA", args: []string{"-f", "DATA", "-B", "554 5.7.1 Not this"}, state: "bounced", says: "554 5.7.1"},
	{name: "5xx to the dot", args: []string{"-f", "."}, state: "bounced", says: "500 5.3.0"},
	{name: "5xx within DATA", args: []string{"-A", "1"}, state: "bounced", says: "550"},

	{name: "5xx to the connection", args: []string{"-f", "CONNECT"}, state: "queued", says: "5.3.0"},
	{name: "5xx to all hellos", args: []string{"-f", "EHLO,HELO"}, state: "queued", says: "500 5.3.0"},
	{name: "4xx to the connection", args: []string{"-r", "CONNECT"}, state: "queued", says: "4.3.0"},
	{name: "4xx to EHLO", args: []string{"-r", "EHLO"}, state: "queued", says: "450 4.3.0"},
	{name: "4xx to MAIL", args: []string{"-r", "MAIL"}, state: "queued", says: "450 4.3.0"},
	{name: "4xx to RCPT", args: []string{"-r", "RCPT", "-b", "450 4.2.0 Greylisted"}, state: "queued", says: "450 4.2.0"},
	{name: "4xx to DATA", args: []string{"-r", "DATA"}, state: "queued", says: "450 4.3.0"},
	{name: "4xx to the dot", args: []string{"-r", "."}, state: "queued", says: "450 4.3.0", taken: true},
	{name: "421 to MAIL", args: []string{"-Q", "MAIL"}, state: "queued", says: "421"},
	{name: "gone at once", args: []string{"-q", "CONNECT"}, state: "queued", says: "closed"},
	{name: "gone at EHLO", args: []string{"-q", "EHLO"}, state: "queued", says: "closed"},
	{name: "gone at MAIL", args: []string{"-q", "MAIL"}, state: "queued", says: "closed"},
	{name: "gone at RCPT", args: []string{"-q", "RCPT"}, state: "queued", says: "closed"},
	{name: "gone at DATA", args: []string{"-q", "DATA"}, state: "queued", says: "closed"},
	{name: "gone at the dot", args: []string{"-q", "."}, state: "queued", says: "unknown", taken: true},
	{name: "silent at once", args: []string{"-p", "-W", "CONNECT:60"}, state: "queued", says: "in time"},
	{name: "silent at EHLO", args: []string{"-p", "-W", "EHLO:60"}, state: "queued", says: "in time"},
	{name: "silent at MAIL", args: []string{"-p", "-W", "MAIL:60"}, state: "queued", says: "in time"},
	{name: "silent at RCPT", args: []string{"-p", "-W", "RCPT:60"}, state: "queued", says: "in time"},
	{name: "silent at DATA", args: []string{"-p", "-W", "DATA:60"}, state: "queued", says: "in time"},
}

// testSinks sends to smtp-sink in all its moods at once. What stays queued has to arrive when the host is well again.
func testSinks(t *testing.T, p *peers) {
	whole := t // the hosts stay until its end
	const n = 5
	program, d := sinkProgram(t), p.fresh(t)
	sinks, ids := make([]*sink, len(sinkCases)), make([][]string, len(sinkCases))
	for i, c := range sinkCases {
		domain := fmt.Sprintf("sink%d.example.net", i)
		sinks[i] = &sink{program: program, addr: p.place(domain), dump: sinkFolder(t)}
		sinks[i].start(t, c.args...)
		ids[i] = d.many(t, domain, n)
	}
	for i, c := range sinkCases {
		t.Run(c.name, func(t *testing.T) {
			s := sinks[i]
			if c.state == "queued" {
				if said := d.deferred(t, 40*time.Second, ids[i]...); !strings.Contains(said, c.says) {
					t.Errorf("nothing says %q: %s", c.says, said)
				}
				if had := s.copies(t); c.taken != (len(had) > 0) {
					t.Errorf("the host has %v", had)
				}
				s.stop()
				s.start(whole)
				return
			}
			d.allIn(t, 40*time.Second, ids[i], c.state)
			if m := d.state(t, ids[i][0]); c.says != "" && !strings.Contains(fmt.Sprint(m["smtp_events"]), c.says) {
				t.Errorf("%v, want %q", m["smtp_events"], c.says)
			}
			if c.state == "sent" {
				s.holds(t, ids[i], true)
			}
		})
	}
	for i, c := range sinkCases {
		if c.state == "queued" {
			t.Run(c.name+", then well", func(t *testing.T) {
				d.allIn(t, 60*time.Second, ids[i], "sent")
				sinks[i].holds(t, ids[i], !c.taken)
			})
		}
	}
}

// sinkProgram is where Postfix's smtp-sink is. Without it the test is left out, but not where peers have to be there.
func sinkProgram(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("smtp-sink"); err == nil {
		return path
	}
	const usual = "/usr/sbin/smtp-sink" // often not in PATH
	if _, err := os.Stat(usual); err != nil {
		noPeer(t, "needs smtp-sink, which comes with Postfix: %v", err)
	}
	return usual
}

// noPeer ends a test whose peer is not on this machine: quietly, but not in a CI that says that peers are required.
func noPeer(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Getenv("POSTRIDER_PEERS") == "required" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// sink is an smtp-sink that writes what it takes to a file.
type sink struct {
	program, addr, dump string
	cmd                 *exec.Cmd
	said                *tail
}

// sinkFolder is a file in a folder that nobody (the user) can write to.
func sinkFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Dir(folder(t))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "dump")
}

// start runs it, again at the same address and with the same file if it has run before.
func (s *sink) start(t *testing.T, args ...string) {
	t.Helper()
	if os.Geteuid() == 0 {
		args = append(args, "-u", "nobody")
	}
	s.cmd, s.said = exec.Command(s.program, append(args, "-D", s.dump, s.addr, "100")...), &tail{}
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	wait(t, 10*time.Second, "smtp-sink to listen", func() bool {
		conn, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (s *sink) stop() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

var messageID = regexp.MustCompile(`(?im)^Message-ID:\s+<([0-9a-f]{32})@`)

// copies is how often it has taken each mail, by id.
func (s *sink) copies(t *testing.T) map[string]int {
	t.Helper()
	b, err := os.ReadFile(s.dump)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range messageID.FindAllSubmatch(b, -1) {
		out[string(m[1])]++
	}
	if mails := strings.Count("\n"+string(b), "\nX-Client-Addr: "); err == nil && mails < len(out) {
		t.Errorf("%d mails with %d ids", mails, len(out))
	}
	return out
}

// holds wants it to have all of these mails and no other, each once or, if copies may be there, more often.
func (s *sink) holds(t *testing.T, ids []string, once bool) {
	t.Helper()
	had := s.copies(t)
	for _, id := range ids {
		if had[id] < 1 || once && had[id] != 1 {
			t.Errorf("%s arrived %d times", id, had[id])
		}
	}
	if len(had) != len(ids) {
		t.Errorf("%d mails were sent and %d arrived", len(ids), len(had))
	}
}
