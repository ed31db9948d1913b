package loadtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// talk sends text in pieces of so many bytes and reads all replies until the sink hangs up.
func talk(t *testing.T, s *Sink, text string, piece int) string {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		for len(text) > 0 {
			n := min(piece, len(text))
			if _, err := io.WriteString(c, text[:n]); err != nil {
				return
			}
			text = text[n:]
		}
	}()
	replies, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	return string(replies)
}

func mailOf(run string, serials ...int) string {
	var b strings.Builder
	b.WriteString("MAIL FROM:<a@b.test> SIZE=100 BODY=8BITMIME\r\n")
	for _, n := range serials {
		fmt.Fprintf(&b, "RCPT TO:<user%d@d%d.sink.test>\r\n", n, n%domains)
	}
	fmt.Fprintf(&b, "DATA\r\nSubject: x\r\nX-BENCH: %s %d %d\r\n\r\nX-Bench: other 1 1\r\n.\n..\r\n\r\n.\r\n", run, serials[0], time.Now().UnixNano())
	return b.String()
}

func TestSinkCountsWhatArrives(t *testing.T) {
	s := startSink(t)
	session := "EHLO x\r\n" + mailOf("aaaa", 0, 1) + mailOf("aaaa", 1) + mailOf("aaaa", 5) + mailOf("bbbb", 0) + "QUIT\r\n"
	for _, piece := range []int{1, 7, 1 << 20} {
		s.tally.reset()
		replies := talk(t, s, session, piece)
		if got := strings.Count(replies, "250 2.0.0 taken"); got != 4 || !strings.HasSuffix(replies, "221 2.0.0 bye\r\n") {
			t.Fatalf("pieces of %d: %d mails taken: %s", piece, got, replies)
		}
		a := s.tally.open("aaaa").stats()
		if a.Messages != 3 || a.Duplicates != 1 || a.Gaps != 3 || a.Sessions != 1 || a.Last == "" {
			t.Fatalf("pieces of %d: %+v", piece, a)
		}
		if b := s.tally.open("bbbb").stats(); b.Messages != 1 || b.Duplicates != 0 {
			t.Fatalf("%+v", b)
		}
		if runs, other := s.tally.all(); len(runs) != 2 || other != 0 {
			t.Fatalf("%d runs, %d others", len(runs), other)
		}
	}
}

// TestSinkCountsSignatures counts fields of the header, however they are folded, and not what a body quotes.
func TestSinkCountsSignatures(t *testing.T) {
	s := startSink(t)
	mail := func(serial int, header string) string {
		return fmt.Sprintf("MAIL FROM:<a@b.test>\r\nRCPT TO:<user%d@d.test>\r\nDATA\r\n%sX-Bench: aaaa %d 1\r\n\r\nDKIM-Signature: no\r\n.\r\n", serial, header, serial)
	}
	long := strings.Repeat("DKIM-Signature: ", sinkBuffer/16) // fills the buffer to its end
	field := "DKIM-Signature: v=1;\r\n dkim-signature: folded\r\n"
	session := mail(0, "") + mail(1, field) + mail(1, field) + mail(2, "X-DKIM-Signature: no\r\n"+field+strings.ToLower(field)) +
		mail(3, long+"dkim-signature: still the same\r\n") + mail(4, strings.Repeat(field, 5)) + "QUIT\r\n"
	for _, piece := range []int{11, 1 << 20} {
		s.tally.reset()
		talk(t, s, session, piece)
		if got, want := s.tally.open("aaaa").signatures, [4]int{1, 2, 1, 1}; got != want {
			t.Errorf("pieces of %d: %v, want %v", piece, got, want)
		}
	}
}

func TestSinkAnswersWrongOrderAndForeignMail(t *testing.T) {
	s := startSink(t)
	replies := talk(t, s, "HELO x\r\nRCPT TO:<user1@d.test>\r\nDATA\r\nVRFY x\r\nNOOP\r\nMAIL FROM:<>\r\nRSET\r\nRCPT TO:<x@y.test>\r\n"+
		"MAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nSubject: not ours\r\n\r\n.\r\n"+
		"MAIL FROM:<>\r\nRCPT TO:<user1@d1.sink.test>\r\nDATA\r\nX-Bench: bad stamp\r\n\r\n.\r\nQUIT\r\n", 1<<20)
	var codes []string
	for line := range strings.Lines(replies) {
		codes = append(codes, line[:3])
	}
	if got, want := strings.Join(codes, " "), "220 250 503 503 502 250 250 250 503 250 250 354 250 250 250 354 250 221"; got != want {
		t.Errorf("codes\n%s, want\n%s", got, want)
	}
	if runs, other := s.tally.all(); len(runs) != 0 || other != 2 {
		t.Errorf("%d runs, %d others", len(runs), other)
	}
}

func TestSinkForgetsTheOldestRun(t *testing.T) {
	var y tally
	first := y.open("first")
	for i := range maxRuns {
		y.open(fmt.Sprint(i))
	}
	if runs, _ := y.all(); len(runs) != maxRuns || y.open("first") == first {
		t.Errorf("keeps %d runs", len(runs))
	}
}

func TestSinkControl(t *testing.T) {
	s := startSink(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeControl(ctx, l) }()
	ask := func(method, path string) (int, []Arrived) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var stats struct{ Runs []Arrived }
		json.NewDecoder(resp.Body).Decode(&stats)
		return resp.StatusCode, stats.Runs
	}
	arrived := make(chan int, 1)
	go func() { code, _ := ask("GET", "/wait?n=2&timeout=10"); arrived <- code }()
	talk(t, s, mailOf("aaaa", 0, 1)+"QUIT\r\n", 1<<20)
	if code := <-arrived; code != 200 {
		t.Errorf("wait: %d", code)
	}
	if code, runs := ask("GET", "/stats"); code != 200 || len(runs) != 1 || runs[0].Messages != 2 {
		t.Errorf("stats: %d %+v", code, runs)
	}
	if code, _ := ask("GET", "/wait?n=3&run=aaaa&timeout=1"); code != 504 {
		t.Errorf("wait for more: %d", code)
	}
	for _, path := range []string{"/wait", "/wait?n=0", "/wait?n=1&timeout=0", "/wait?n=1&timeout=9999"} {
		if code, _ := ask("GET", path); code != 400 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, runs := ask("POST", "/reset"); code != 200 || len(runs) != 0 {
		t.Errorf("reset: %d %+v", code, runs)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
