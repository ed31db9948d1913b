// Package jobstest gives every test a queue of its own, on a real embedded server.
package jobstest

import (
	"context"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
)

// Start starts a server in a folder of the test, reached in-process only, and connects to it. Both end with the test.
func Start(t testing.TB) *jobs.Queue {
	t.Helper()
	s, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Stop(ctx)
	})
	return Connect(t, jobs.Config{Server: s})
}

// Connect connects to a server; the connection ends with the test.
func Connect(t testing.TB, cfg jobs.Config) *jobs.Queue {
	t.Helper()
	q, err := jobs.Connect(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}
