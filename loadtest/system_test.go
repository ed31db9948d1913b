package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The system under test is outside of this package, so the tests bring a small one: it takes
// messages/send calls and relays each recipient's mail by SMTP. The test binary started again
// plays it as a program of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("LOADTEST_PLAY") {
	case "postrider":
		playPostrider(os.Args[1:])
	case "burner":
		playBurner(os.Args[1:])
	default:
		os.Exit(m.Run())
	}
}

// call is what the system reads of a call.
type call struct {
	Key     string
	ID      string
	SendAt  string `json:"send_at"`
	Message struct {
		From    string `json:"from_email"`
		Text    string
		Headers map[string]string
		To      []struct{ Email string }
	}
}

// relay is the small system; each fault is about single recipients.
type relay struct {
	sink     string
	lose     map[string]bool // answered queued, never delivered
	twice    map[string]bool // delivered twice
	reject   map[string]bool // answered rejected
	sessions chan *smtp.Client
	wg       sync.WaitGroup

	early     time.Duration // scheduled messages leave so long before their time
	unsigned  bool          // no mail is signed
	deaf      bool          // cancel-scheduled is answered well and does nothing
	mu        sync.Mutex
	scheduled map[string]*time.Timer // by id
}

func newRelay(sink string) *relay {
	return &relay{sink: sink, sessions: make(chan *smtp.Client, 50), scheduled: map[string]*time.Timer{}}
}

func (s *relay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/metrics" {
		fmt.Fprintf(w, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 4.2e+07\n")
		return
	}
	var c call
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&c); err != nil || c.Key == "" {
		http.Error(w, `{"status":"error","message":"bad call"}`, http.StatusUnprocessableEntity)
		return
	}
	switch r.URL.Path {
	case "/api/1.0/messages/send":
		json.NewEncoder(w).Encode(s.send(c))
	case "/api/1.0/messages/cancel-scheduled":
		if !s.deaf && !s.cancel(c.ID) {
			http.Error(w, `{"status":"error","name":"Unknown_Message"}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{}`)
	case "/api/1.0/messages/list-scheduled":
		fmt.Fprint(w, `[]`)
	default:
		http.NotFound(w, r)
	}
}

func (s *relay) send(c call) []map[string]string {
	answer := []map[string]string{}
	for _, to := range c.Message.To {
		status, id := "queued", newName()+newName()
		switch {
		case s.reject[to.Email]:
			status = "rejected"
		case c.SendAt != "":
			status = "scheduled"
			s.schedule(c, to.Email, id)
		case !s.lose[to.Email]:
			s.wg.Go(func() { s.deliver(c, to.Email) })
		}
		answer = append(answer, map[string]string{"email": to.Email, "status": status, "_id": id})
		if s.twice[to.Email] {
			s.wg.Go(func() { s.deliver(c, to.Email) })
		}
	}
	return answer
}

func (s *relay) schedule(c call, to, id string) {
	at, err := time.Parse(time.DateTime, c.SendAt)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scheduled[id] = time.AfterFunc(time.Until(at)-s.early, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.scheduled[id] == nil { // cancelled, or at the end
			return
		}
		delete(s.scheduled, id)
		s.wg.Go(func() { s.deliver(c, to) })
	})
}

func (s *relay) cancel(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.scheduled[id] != nil
	delete(s.scheduled, id)
	return found
}

func (s *relay) deliver(c call, to string) {
	client, err := s.session()
	if err != nil {
		panic(err)
	}
	err = client.Mail("return@example.com")
	if err == nil {
		err = client.Rcpt(to)
	}
	if err == nil {
		var w io.WriteCloser
		if w, err = client.Data(); err == nil {
			if n := s.signatures(c.Message.From); n > 0 {
				fmt.Fprint(w, strings.Repeat("dkim-signature: v=1;\r\n b=\r\n", n))
			}
			fmt.Fprintf(w, "From: bench@example.com\r\nx-bench: %s\r\n\r\n%s", c.Message.Headers["X-Bench"], c.Message.Text)
			err = w.Close()
		}
	}
	if err != nil {
		panic(err)
	}
	select {
	case s.sessions <- client:
	default:
		client.Quit()
	}
}

// signatures is how many a mail gets.
func (s *relay) signatures(from string) int {
	switch {
	case s.unsigned:
		return 0
	case strings.HasSuffix(from, ".both.example.net"):
		return 2
	case strings.HasSuffix(from, ".ed25519.example.net"):
		return 1
	}
	return 0
}

func (s *relay) session() (*smtp.Client, error) {
	select {
	case c := <-s.sessions:
		return c, nil
	default:
		return smtp.Dial(s.sink)
	}
}

func (s *relay) stop() {
	s.mu.Lock()
	clear(s.scheduled)
	s.mu.Unlock()
	s.wg.Wait()
	close(s.sessions)
	for c := range s.sessions {
		c.Quit()
	}
}

// startSystem runs a relay between HTTP and the sink for one test.
func startSystem(t *testing.T, sink *Sink) (*relay, string) {
	t.Helper()
	r := newRelay(sink.Addr())
	server := httptest.NewServer(r)
	t.Cleanup(func() { server.Close(); r.stop() })
	return r, server.URL
}

func startSink(t *testing.T) *Sink {
	t.Helper()
	s, err := NewSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// testLoad is a small closed loop.
func testLoad(sink *Sink) Load {
	return Load{
		Keys: []string{"key-1", "key-2"}, From: "bench@example.com", Count: 200, Connections: 4, Size: 2048, Recipients: 1,
		Timeout: 10 * time.Second, Drain: 5 * time.Second, Settle: 20 * time.Millisecond, Sink: sink,
	}
}

// playPostrider is `postrider dev` and `postrider account create`, as far as a Bench uses them.
func playPostrider(args []string) {
	flag := func(name string) string {
		for i, a := range args {
			if a == name {
				return args[i+1]
			}
		}
		return ""
	}
	switch args[0] {
	case "domain":
		if !strings.HasSuffix(args[2], ".example.net") || flag("--account") != "2" {
			panic(fmt.Sprint(args))
		}
		return
	case "account":
		fmt.Printf("{\"account\":2,\"name\":%q,\"key\":\"key-of-%d\"}\n", flag("--name"), os.Getpid())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", flag("--http"))
	if err != nil {
		panic(err)
	}
	r := newRelay(flag("--sink"))
	r.unsigned = os.Getenv("LOADTEST_FAULT") == "unsigned"
	if os.Getenv("LOADTEST_FAULT") == "early and deaf" {
		r.early, r.deaf = 1500*time.Millisecond, true
	}
	go http.Serve(l, r)
	ready, _ := json.Marshal(Ready{PID: os.Getpid(), Config: "some.toml", API: "http://" + l.Addr().String(), Key: "k", Metrics: "http://" + l.Addr().String() + "/metrics"})
	if err := os.WriteFile(flag("--ready-file")+".part", ready, 0o600); err != nil {
		panic(err)
	}
	os.Rename(flag("--ready-file")+".part", flag("--ready-file"))
	<-ctx.Done()
	r.stop()
}

// playBurner burns CPU: "child" for 150 ms, "parent" in two children, one after the other; each
// step waits for a line on standard input, and answers with one.
func playBurner(args []string) {
	if args[0] == "child" {
		for end := ownCPU() + 150*time.Millisecond; ownCPU() < end; {
			os.Getpid()
			json.Marshal(args)
		}
		return
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("done") {
		cmd := exec.Command(os.Args[0], "child")
		if err := cmd.Run(); err != nil {
			panic(err)
		}
		f, err := os.CreateTemp("", "burner")
		if err != nil {
			panic(err)
		}
		f.Write(bytes.Repeat([]byte("x"), 100))
		f.Sync()
		f.Close()
		os.Remove(f.Name())
	}
}
