package shardtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/localpg"
)

// Own has count shards on a Postgres of one test alone, which can be stopped and started again.
func Own(t testing.TB, count int) (e *Env, stop, start func()) {
	t.Helper()
	ctx := context.Background()
	root, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	var server *localpg.Server
	start = func() {
		if server, err = serve(ctx, root, "own", 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	stop = func() { _ = server.Stop(ctx) }
	start()
	t.Cleanup(func() { stop(); _ = os.RemoveAll(root) })
	e = &Env{Directory: database(t, server, "directory"), Servers: []shards.ServerSpec{{Name: "own", DSN: server.DSN("postgres")}}}
	if err := shards.Setup(ctx, e.Directory, e.Servers, count); err != nil {
		t.Fatal(err)
	}
	e.Shards = e.Open(t, shards.Config{Log: zap.NewNop()})
	if err := e.Shards.Migrate(ctx, nil); err != nil {
		t.Fatal(err)
	}
	return e, stop, start
}

// folder is one that Postgres's unprivileged user can reach, which t.TempDir is not.
func folder() (string, error) {
	root, err := os.MkdirTemp("", "postrider-test-")
	if err != nil {
		return "", err
	}
	return root, os.Chmod(root, 0o711)
}

// serve starts a server in a folder, with settings for a machine of so much memory.
func serve(ctx context.Context, root, name string, memory uint64) (*localpg.Server, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	bin, err := localpg.Find(ctx, filepath.Join(cache, "postrider"), os.Stderr)
	if err != nil {
		return nil, err
	}
	settings := localpg.DefaultSettings(memory, "shards")
	settings["fsync"] = "off" // the machine does not lose power between two tests
	return localpg.Start(ctx, localpg.Config{Name: name, Dir: filepath.Join(root, name), Binaries: bin, Settings: settings, Log: zap.NewNop()})
}

// Within waits until something is so, for d at most.
func Within(t testing.TB, d time.Duration, what string, ok func() bool) {
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
