package loadtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func dialHTTP(t *testing.T, url string, l Load) conn {
	t.Helper()
	c, err := sendTarget(url, l.Keys, newMail("0badcafe", l)).dial(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func sendOne(c conn, seq, recipients int) (answer, error) {
	return c.send(submission{seq: seq, first: seq * recipients, due: time.Now()}, time.Now().Add(5*time.Second))
}

func TestHTTPCallIsWhatItShouldBe(t *testing.T) {
	var conns atomic.Int32
	calls := make(chan call, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c call
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		calls <- c
		fmt.Fprint(w, `[{"status":"queued"},{"status": "rejected"},{"status":"sent"}]`)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	l := testLoad(nil)
	l.Recipients = 3
	c := dialHTTP(t, server.URL, l)
	for seq := range 3 {
		a, err := sendOne(c, seq, 3)
		if err != nil || a.code != 200 || len(a.taken) != 2 || a.taken[0] != 0 || a.taken[1] != 2 {
			t.Fatalf("answer %+v, %v", a, err)
		}
		got := <-calls
		if got.Key != l.Keys[seq%2] || len(got.Message.Text) == 0 || len(got.Message.To) != 3 {
			t.Fatalf("call %+v", got)
		}
		if to, want := got.Message.To[2].Email, fmt.Sprintf("user%d@d%d.sink.test", seq*3+2, seq*3+2); to != want {
			t.Errorf("to %s, want %s", to, want)
		}
		if stamp := got.Message.Headers["X-Bench"]; !strings.HasPrefix(stamp, fmt.Sprintf("0badcafe %d ", seq)) {
			t.Errorf("stamp %q", stamp)
		}
		for line := range strings.Lines(got.Message.Text) {
			if len(line) > lineText+1 {
				t.Fatalf("a line of %d characters", len(line))
			}
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections for 3 calls", conns.Load())
	}
}

func TestHTTPSurvivesErrorsAndKeepsTheConnection(t *testing.T) {
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		switch n++; n {
		case 1:
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
		case 2: // chunked, because it is long and in parts
			for range 20_000 {
				fmt.Fprint(w, `{"status":"queued"}`)
			}
		case 3:
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"status":"error","code":-2}`)
		case 4:
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, `[{"status":"queued"}]`)
		}
	}))
	defer server.Close()
	c := dialHTTP(t, server.URL, testLoad(nil))
	for i, want := range []struct {
		code, taken int
		text        string
		last        bool
	}{{503, 0, "overloaded", false}, {200, 1, `{"status"`, false}, {422, 0, `{"status":"error"`, false}, {200, 1, "[", true}} {
		a, err := sendOne(c, i, 1)
		if err != nil || a.code != want.code || len(a.taken) != want.taken || !strings.HasPrefix(string(a.text), want.text) || a.last != want.last {
			t.Fatalf("answer %d: %d, %d taken, last %v, %.40q, %v", i+1, a.code, len(a.taken), a.last, a.text, err)
		}
	}
}

// A server that says these things raw, one after each request.
func rawHTTP(t *testing.T, answers ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		l.Close() // it serves one client
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for _, a := range answers {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			io.WriteString(c, a)
		}
	}()
	return "http://" + l.Addr().String()
}

func TestHTTPBadAnswers(t *testing.T) {
	for name, raw := range map[string]string{
		"not HTTP":        "SSH-2.0-OpenSSH_9.2\r\n",
		"no code":         "HTTP/1.1 abc OK\r\n\r\n",
		"bad length":      "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
		"huge length":     "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"cut short":       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[]",
		"long header":     "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxLine) + "\r\n\r\n",
		"many headers":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n",
		"bad chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"endless body":    "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", maxAnswer+1),
		"nothing":         "",
		"ends in headers": "HTTP/1.1 200 OK\r\nContent-",
	} {
		c := dialHTTP(t, rawHTTP(t, raw), testLoad(nil))
		if a, err := sendOne(c, 0, 1); err == nil {
			t.Errorf("%s: taken for an answer: %+v", name, a)
		}
	}
}

func TestHTTPInformationalAndUnframedAnswers(t *testing.T) {
	c := dialHTTP(t, rawHTTP(t, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n[{\"status\":\"queued\"}]"), testLoad(nil))
	a, err := sendOne(c, 0, 1)
	if err != nil || len(a.taken) != 1 || !a.last {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestHTTPDeadlineAndInterrupt(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer server.Close()
	defer close(hold)
	c := dialHTTP(t, server.URL, testLoad(nil))
	if _, err := c.send(submission{}, time.Now().Add(20*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	c = dialHTTP(t, server.URL, testLoad(nil))
	time.AfterFunc(20*time.Millisecond, c.interrupt)
	if _, err := sendOne(c, 0, 1); err == nil {
		t.Error("an interrupt does not end the wait")
	}
}

func TestEachKeyHasItsSender(t *testing.T) {
	l := testLoad(nil)
	l.Froms = []string{"one@a.test", "two@b.test"}
	m := newMail("r", l)
	for seq := range 4 {
		text := string(m.appendJSON(nil, "k", submission{seq: seq}))
		if !strings.Contains(text, `"from_email":"`+l.Froms[seq%2]+`"`) {
			t.Errorf("message %d: %.80s", seq, text)
		}
	}
}

func TestMailHasItsSizeAndDoesNotRepeat(t *testing.T) {
	for _, size := range []int{0, 1, 2, 77, 78, 79, 100, 2048, 300_000} {
		l := testLoad(nil)
		l.Size, l.SMTP = size, "x"
		m := newMail("r", l)
		a, b := m.appendText(nil, 1), m.appendText(nil, 2)
		if got := len(a); got > size || got < size-2 {
			t.Errorf("size %d: %d bytes", size, got)
		}
		if size > 100 && string(a) == string(b) {
			t.Error("two mails are the same")
		}
		if size > 3 && !strings.HasSuffix(string(a), "\r\n") {
			t.Error("the text does not end a line")
		}
	}
}
