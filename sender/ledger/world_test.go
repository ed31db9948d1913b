package ledger_test

import (
	"context"
	"encoding/binary"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// book is a ledger on real shards.
type book struct {
	*shardtest.Env
	store  *store.Store
	ledger *ledger.Ledger
	stop   func()
}

func open(t *testing.T, e *shardtest.Env, queue *jobs.Queue) *book {
	t.Helper()
	b := &book{Env: e, store: store.New(e.Shards)}
	b.ledger = ledger.New(ledger.Config{Shards: e.Shards, Store: b.store, Queue: queue, Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := b.ledger.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	b.stop = func() { cancel(); <-ended }
	t.Cleanup(b.stop)
	return b
}

// sending stores messages that are in this instance's hands, at their first attempt.
func (b *book) sending(t *testing.T, account int64, count int) []sender.ID {
	t.Helper()
	s := &sender.Submission{ID: sender.NewID(), Account: account, Content: sender.Content{From: sender.Address{Email: "f@example.com"}, Text: "t"}}
	a := &store.Accepted{Submission: s, Claimed: true, Metadata: make([]string, count)}
	var ids []sender.ID
	for range count {
		m := sender.Message{ID: sender.NewID(), Account: account, Submission: s.ID, Expires: time.Now().Add(time.Hour),
			Recipient: sender.Recipient{Address: sender.Address{Email: "a@example.net"}}}
		a.Messages, ids = append(a.Messages, m), append(ids, m.ID)
	}
	var err error
	if a.Body, err = store.EncodeContent(&s.Content); err == nil {
		err = b.Shards.Write(context.Background(), account, func(ctx context.Context, tx pgx.Tx) error {
			return shards.Exec(ctx, tx, b.store.AcceptStatement(), []*store.Accepted{a})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func delivered(account int64, id sender.ID) *store.Fact {
	return &store.Fact{Account: account, Message: id, Attempt: 1, State: sender.Delivered, Kind: sender.EventDelivered, At: time.Now(),
		Reply: sender.Reply{Code: 250, Stage: "dot", Text: "ok"}}
}

// record enters a fact and is told by the channel how that ended.
func (b *book) record(f *store.Fact) <-chan error {
	done := make(chan error, 2) // 2: a second call of done would be seen
	b.ledger.Record(f, func(err error) { done <- err })
	return done
}

func (b *book) state(t *testing.T, account int64, id sender.ID) sender.State {
	t.Helper()
	f, events, err := b.store.Info(context.Background(), account, id)
	if err != nil || f.State.Final() != (len(events) == 1) {
		t.Fatalf("state %d with %d events, %v", f.State, len(events), err)
	}
	return f.State
}

func (b *book) outbox(t *testing.T, shard string) []store.Batch {
	t.Helper()
	rows, err := b.store.Outbox(context.Background(), shard, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// queueServer starts a queue server that others can reach; the same again starts it on what it has stored.
func queueServer(t *testing.T, cfg *jobs.ServerConfig) (u string, stop func()) {
	t.Helper()
	if cfg.Dir == "" {
		*cfg = jobs.ServerConfig{Dir: filepath.Join(t.TempDir(), "queue"), Listen: "127.0.0.1:0", Token: "secret"}
	}
	s, err := jobs.StartServer(*cfg)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = parsed.Host
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			s.Stop(context.Background())
		}
	}
	t.Cleanup(stop)
	return s.URL(), stop
}

func connect(t *testing.T, u string) *jobs.Queue {
	t.Helper()
	return jobstest.Connect(t, jobs.Config{URL: u})
}

// told counts the messages in a shard's event stream. The server is asked with its own client: what stands on the
// stream is what other programs will read.
func told(t *testing.T, u, shard string) map[sender.ID]int {
	t.Helper()
	nc, err := nats.Connect(u)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cons, err := js.OrderedConsumer(ctx, "EVENTS", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"events." + shard}})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := cons.FetchNoWait(10_000)
	if err != nil {
		t.Fatal(err)
	}
	out := map[sender.ID]int{}
	for m := range batch.Messages() {
		count, n := binary.Uvarint(m.Data())
		rest := m.Data()[max(n, 0):]
		if n <= 0 || uint64(len(rest)) != 16*count {
			t.Fatalf("an entry of %d bytes for %d ids", len(m.Data()), count)
		}
		for ; len(rest) > 0; rest = rest[16:] {
			out[sender.ID(rest[:16])]++
		}
	}
	return out
}

func receive(t *testing.T, from <-chan error, what string) error {
	t.Helper()
	select {
	case err := <-from:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("waited 20 s for %s", what)
		return nil
	}
}
