package relay

import (
	"context"
	"net"
	"os"
	"path/filepath"
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
	"github.com/postrider/postrider/shards/localpg"
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

// private has one shard on a Postgres of this test alone, which can be stopped and started again.
func private(t *testing.T) (e *shardtest.Env, stop, start func()) {
	t.Helper()
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "postrider-own-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	bin, err := localpg.Find(ctx, filepath.Join(cache, "postrider"), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	settings := localpg.DefaultSettings(1<<30, "shards")
	settings["fsync"] = "off"
	var server *localpg.Server
	start = func() {
		server, err = localpg.Start(ctx, localpg.Config{Name: "own", Dir: filepath.Join(dir, "own"), Binaries: bin, Settings: settings})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop = func() { _ = server.Stop(ctx) }
	start()
	t.Cleanup(func() { stop(); _ = os.RemoveAll(dir) })
	c, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, "create database directory"); err != nil {
		t.Fatal(err)
	}
	e = &shardtest.Env{Directory: server.DSN("directory"), Servers: []shards.ServerSpec{{Name: "own", DSN: server.DSN("postgres")}}}
	if err := shards.Setup(ctx, e.Directory, e.Servers, 1); err != nil {
		t.Fatal(err)
	}
	e.Shards = e.Open(t, shards.Config{Log: zap.NewNop()})
	if err := e.Shards.Migrate(ctx, nil); err != nil {
		t.Fatal(err)
	}
	return e, stop, start
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(d), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s", d, what)
		case <-tick.C:
		}
	}
}
