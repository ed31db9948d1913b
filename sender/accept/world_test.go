package accept_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// world is a door on real shards, with a note of what it told the dispatcher.
type world struct {
	*shardtest.Env
	store *store.Store
	door  *accept.Door

	mu      sync.Mutex
	room    bool // the dispatcher takes what it is offered
	offered map[sender.ID]bool
	handed  map[sender.ID]int
	dropped map[sender.ID]bool // and whether it was said to be unsure
	rung    map[string]int
}

func open(t *testing.T, e *shardtest.Env) *world {
	t.Helper()
	w := &world{Env: e, store: store.New(e.Shards), room: true, offered: map[sender.ID]bool{}, handed: map[sender.ID]int{},
		dropped: map[sender.ID]bool{}, rung: map[string]int{}}
	w.door = accept.New(accept.Config{Shards: e.Shards, Store: w.store, Life: time.Hour, Log: zap.NewNop(),
		Reserve: w.reserve, Hand: w.hand, Drop: w.drop, Ring: w.ring})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.door.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) reserve(messages []sender.Message, _ int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := w.room && messages[0].Account%2 == 1
	for _, m := range messages {
		w.offered[m.ID] = room
	}
	return room
}

func (w *world) hand(_ *sender.Submission, messages []sender.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range messages {
		w.handed[m.ID]++
	}
}

func (w *world) drop(_ int64, ids []sender.ID, unsure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.dropped[id] = unsure
	}
}

func (w *world) ring(shard string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rung[shard]++
}

func mail(account int64, to ...string) *sender.Submission {
	s := &sender.Submission{Account: account, Content: sender.Content{From: sender.Address{Email: "from@example.com"}, Subject: "s", Text: "t"}}
	for _, email := range to {
		s.Recipients = append(s.Recipients, sender.Recipient{Address: sender.Address{Email: email}})
	}
	return s
}

func (w *world) send(t *testing.T, s *sender.Submission) []accept.Result {
	t.Helper()
	results, err := w.door.Accept(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// stored lists what an account has in its shard.
func (w *world) stored(t *testing.T, account int64) []store.Found {
	t.Helper()
	now := time.Now()
	found, err := w.store.Search(context.Background(), account, store.Query{From: now.Add(-time.Hour), To: now.Add(time.Hour), Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func kind(err error) sender.ErrorKind {
	var e *sender.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func exec(t *testing.T, dsn, sql string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	if _, err := c.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
	return c
}

// server is the DSN of the server that holds an account.
func (w *world) server(t *testing.T, account int64) string {
	t.Helper()
	for _, s := range w.Servers {
		if s.Name == w.Shards.Of(account).Server.Name {
			return s.DSN
		}
	}
	t.Fatal("no such server")
	return ""
}

// elsewhere is an account in another shard of the same server.
func (w *world) elsewhere(t *testing.T, account int64) int64 {
	t.Helper()
	sh := w.Shards.Of(account)
	for a := account + 1; a < account+1000; a++ {
		if other := w.Shards.Of(a); other != sh && other.Server == sh.Server {
			return a
		}
	}
	t.Fatal("no such account")
	return 0
}
