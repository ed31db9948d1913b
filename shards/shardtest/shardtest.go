// Package shardtest gives tests real Postgres servers and migrated shards: a package's TestMain starts two servers
// for all its tests, and each test gets databases of its own on them.
//
//	var pg = shardtest.Two()
//
//	func TestMain(m *testing.M) { pg.Run(m) }
package shardtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/localpg"
)

// Servers are real Postgres servers, started by Run.
type Servers struct {
	list []*localpg.Server
}

// Two names two servers; Run starts them.
func Two() *Servers { return &Servers{} }

// Run is the body of a TestMain: it starts two servers, runs the tests, stops the servers and ends the process.
func (p *Servers) Run(m *testing.M) {
	status, err := p.run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shardtest:", err)
		status = 1
	}
	os.Exit(status)
}

func (p *Servers) run(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	root, err := folder()
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(root) }()
	for _, name := range []string{"pg1", "pg2"} {
		s, err := serve(ctx, root, name, 2<<30)
		if err != nil {
			return 1, err
		}
		defer func() { _ = s.Stop(context.Background()) }()
		p.list = append(p.list, s)
	}
	return m.Run(), nil
}

// Env is one test's world: a directory and shards on two servers, migrated and running.
type Env struct {
	Shards    *shards.Shards
	Directory string // DSN
	Servers   []shards.ServerSpec
	Postgres  []*localpg.Server
}

// New makes count shards spread over the two servers, in databases of this test alone.
func (p *Servers) New(t testing.TB, count int) *Env {
	t.Helper()
	if len(p.list) == 0 {
		t.Fatal("no servers: the package needs func TestMain(m *testing.M) { pg.Run(m) }")
	}
	ctx := context.Background()
	name := "t" + strings.ReplaceAll(uuid.NewString(), "-", "")
	e := &Env{Postgres: p.list, Directory: database(t, p.list[0], name+"_directory")}
	for i, s := range p.list {
		e.Servers = append(e.Servers, shards.ServerSpec{Name: fmt.Sprintf("pg%d", i+1), DSN: database(t, s, name)})
	}
	if err := shards.Setup(ctx, e.Directory, e.Servers, count); err != nil {
		t.Fatal(err)
	}
	e.Shards = e.Open(t, shards.Config{})
	if err := e.Shards.Migrate(ctx, nil); err != nil {
		t.Fatal(err)
	}
	e.Shards.Beat(ctx)
	return e
}

// Open is another process's view of the same shards. What it needs is filled in, and it runs until the test ends.
func (e *Env) Open(t testing.TB, cfg shards.Config) *shards.Shards {
	t.Helper()
	cfg.Directory = e.Directory
	if cfg.Instance == [16]byte{} {
		cfg.Instance = uuid.Must(uuid.NewV7())
	}
	if cfg.Log == nil {
		cfg.Log = zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
	}
	s, err := shards.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s
}

func database(t testing.TB, s *localpg.Server, name string) string {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, "create database "+name); err != nil {
		t.Fatal(err)
	}
	return s.DSN(name)
}
