package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// world is the API on a socket, with a door on real shards. What the door hands over stays in hand.
type world struct {
	*shardtest.Env
	store   *store.Store
	url     string
	account int64
	key     string // of full scope

	mu    sync.Mutex
	wound []time.Time // that the dispatcher was told of
	subs  []sender.Submission
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{Env: pg.New(t, 4)}
	w.store = store.New(w.Shards)
	door := accept.New(accept.Config{Shards: w.Shards, Store: w.store, Life: time.Hour, Log: zap.NewNop(), At: w.at,
		Reserve: func([]sender.Message, int) bool { return true }, Drop: func(int64, []sender.ID, bool) {}, Ring: func(string) {},
		Hand: func(sub *sender.Submission, _ []sender.Message) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.subs = append(w.subs, *sub)
		}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + l.Addr().String()
	a := New(Config{Shards: w.Shards, Store: w.store, Door: door, Log: zap.NewNop(), Ready: func() error { return nil }, At: w.at})
	run(t, door.Run)
	run(t, func(ctx context.Context) error { return a.Run(ctx, l) })
	account, key, err := w.Shards.CreateAccount(context.Background(), "test")
	if err != nil {
		t.Fatal(err)
	}
	w.account, w.key = account.ID, key
	return w
}

func run(t *testing.T, f func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) at(_ string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wound = append(w.wound, at)
}

// last is the latest time that the dispatcher was told of.
func (w *world) last() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wound) == 0 {
		return time.Time{}
	}
	return w.wound[len(w.wound)-1]
}

// handed is what the dispatcher was given last.
func (w *world) handed(t *testing.T) sender.Submission {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.subs) == 0 {
		t.Fatal("nothing was handed to the dispatcher")
	}
	return w.subs[len(w.subs)-1]
}

type header map[string]string

// ask makes a call under /v1 and reads its answer into a place, if there is one.
func (w *world) ask(t *testing.T, verb, path, body string, into any, h header) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, verb, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.key)
	for k, v := range h {
		r.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s %s: %d %s: %v", verb, path, res.StatusCode, text, err)
		}
	}
	return res
}

// refused makes a call that must fail as a problem of a type.
func (w *world) refused(t *testing.T, verb, path, body, name string, h header) problem {
	t.Helper()
	var p problem
	res := w.ask(t, verb, path, body, &p, h)
	if p.Type != problemPath+name || p.Status != res.StatusCode || p.Status < 400 || p.Title == "" || p.Detail == "" || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s %.80s: %d %+v, want %s", verb, path, body, res.StatusCode, p, name)
	}
	return p
}

// send sends a mail from the rest of its fields and returns what became of its recipients.
func (w *world) send(t *testing.T, rest string, h header) []v1Result {
	t.Helper()
	var out v1Results
	res := w.ask(t, http.MethodPost, "/v1/messages", `{"from_email":"from@example.com","subject":"s","text":"t",`+rest+`}`, &out, h)
	if res.StatusCode != http.StatusOK || len(out.Messages) == 0 {
		t.Fatalf("%s: %d %+v", rest, res.StatusCode, out)
	}
	return out.Messages
}

// record enters a fact about a message in hand.
func (w *world) record(t *testing.T, f *store.Fact) {
	t.Helper()
	g := shards.NewGroup(w.Shards, w.store.LedgerStatement(), shards.GroupConfig{Committers: 1, Max: 1, MaxBytes: 1 << 20, Queue: 1})
	ctx, stop := context.WithCancel(context.Background())
	err := g.Do(f.Account, f, 300)
	stop()
	if ended := g.Run(ctx); err != nil || ended != nil {
		t.Fatal(err, ended)
	}
}
