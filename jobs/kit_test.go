package jobs_test

import (
	"context"
	"net"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/postrider/postrider/jobs"
)

// patience is how long a test waits for a thing that should come at once.
const patience = 30 * time.Second

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
		panic("not reached")
	}
}

// until asks again and again, for things that tell nobody when they happen.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %s until %s", patience, what)
		}
	}
}

// run runs handlers until the test or the returned function ends it, whichever is first.
func run(t *testing.T, q *jobs.Queue, handlers map[string]jobs.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx, handlers) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := receive(t, ended, "Run to end"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func ring(t *testing.T, q *jobs.Queue, list ...jobs.Job) {
	t.Helper()
	if err := q.Ring(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
}

func stats(t *testing.T, q *jobs.Queue) jobs.Stats {
	t.Helper()
	st, err := q.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// sum is what is left in the queue, of all kinds.
type sum struct{ pending, inFlight, dead int }

func left(t *testing.T, q *jobs.Queue) sum {
	t.Helper()
	st := stats(t, q)
	return sum{st.Pending, st.InFlight, st.Dead}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func start(t *testing.T, cfg jobs.ServerConfig) *jobs.Server {
	t.Helper()
	s, err := jobs.StartServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(s) })
	return s
}

func stopServer(s *jobs.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.Stop(ctx)
}

// raw is a connection past the package, as an operator's own tool would make it.
func raw(t *testing.T, s *jobs.Server) jetstream.JetStream {
	t.Helper()
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("nats://"+u.Host, nats.Token(u.User.Username()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func grave(t *testing.T, s *jobs.Server, seq uint64) *jetstream.RawStreamMsg {
	t.Helper()
	stream, err := raw(t, s).Stream(t.Context(), "DEAD")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// freeAddress is one that nobody listens on at the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
