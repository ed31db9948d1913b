package relay

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/bounce"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// world is a relay and a ledger on real shards.
type world struct {
	*shardtest.Env
	store *store.Store
	addr  net.Addr
}

func open(t *testing.T, e *shardtest.Env) *world {
	t.Helper()
	w := &world{Env: e, store: store.New(e.Shards)}
	l := ledger.New(ledger.Config{Shards: e.Shards, Store: w.store, Queue: jobstest.Start(t), Log: zap.NewNop()})
	r := New(Config{Hostname: "mx.test", Key: bounce.Key{}, Store: w.store, Ledger: l, Log: zap.NewNop()})
	listener := listenLocal(t)
	w.addr = listener.Addr()
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	g.Go(func() error { return r.Run(ctx, listener) })
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// delivered stores a message that the next host has taken.
func (w *world) delivered(t *testing.T, account int64, email string) sender.ID {
	t.Helper()
	s := &sender.Submission{ID: sender.NewID(), Account: account, Content: sender.Content{From: sender.Address{Email: "f@example.com"}, Text: "t"}}
	m := sender.Message{ID: sender.NewID(), Account: account, Submission: s.ID, Expires: time.Now().Add(time.Hour), Recipient: sender.Recipient{Address: sender.Address{Email: email}}}
	body, err := store.EncodeContent(&s.Content)
	if err != nil {
		t.Fatal(err)
	}
	a := &store.Accepted{Submission: s, Messages: []sender.Message{m}, Metadata: []string{""}, Body: body, Claimed: true}
	f := &store.Fact{Account: account, Message: m.ID, Attempt: 1, State: sender.Delivered, Kind: sender.EventDelivered, At: time.Now(), Reply: sender.Reply{Code: 250, Stage: "dot"}}
	err = w.Shards.Write(context.Background(), account, func(ctx context.Context, tx pgx.Tx) error {
		if err := shards.Exec(ctx, tx, w.store.AcceptStatement(), []*store.Accepted{a}); err != nil {
			return err
		}
		return shards.Exec(ctx, tx, w.store.LedgerStatement(), []*store.Fact{f})
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}
