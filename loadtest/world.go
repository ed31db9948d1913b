package loadtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// readyPatience covers a first start, which may fetch Postgres.
const readyPatience = 5 * time.Minute

// world is what a benchmark measures in: a fresh `postrider dev` in a temporary folder, and the sink that it delivers to.
type world struct {
	program string
	log     io.Writer // what is being done, a line each; nil for none
	dir     string
	sink    *Sink
	child   *child
	ready   Ready
	stop    []func() // what close does, the last first
}

// newWorld starts everything. Without an error, the caller closes it.
func newWorld(ctx context.Context, program string, log io.Writer) (_ *world, err error) {
	w := &world{program: program, log: log}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = tempDir(); err != nil {
		return nil, err
	}
	w.stop = append(w.stop, func() { os.RemoveAll(w.dir) })
	if err := w.startSink(ctx); err != nil {
		return nil, err
	}
	return w, w.startPostrider(ctx)
}

// close takes down what was started, in reverse, and removes the folder.
func (w *world) close() {
	for i := len(w.stop) - 1; i >= 0; i-- {
		w.stop[i]()
	}
}

// tempDir makes a folder that Postgres's and Postfix's users can reach.
func tempDir() (string, error) {
	parent := "/var/tmp"
	if _, err := os.Stat(parent); err != nil {
		parent = os.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "loadtest-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// startSink starts the sink, which outlives what delivers to it.
func (w *world) startSink(ctx context.Context) error {
	sink, err := NewSink("127.0.0.1:0")
	if err != nil {
		return err
	}
	w.sink = sink
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx) }()
	w.stop = append(w.stop, func() { stop(); <-done })
	return nil
}

func (w *world) startPostrider(ctx context.Context) error {
	w.say("starting postrider")
	readyFile := filepath.Join(w.dir, "ready.json")
	c, err := startChild("postrider", filepath.Join(w.dir, "postrider.log"), w.program, "dev",
		"--dir", w.data(), "--sink", w.sink.Addr(), "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0",
		"--inbox", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--search", "postgres", "--ready-file", readyFile, "--log-level", "warn")
	if err != nil {
		return err
	}
	w.child = c
	w.stop = append(w.stop, func() { c.stop(c.pid()) })
	err = c.until(ctx, readyPatience, func() bool {
		_, err := os.Stat(readyFile)
		return err == nil
	})
	if err != nil {
		return err
	}
	w.ready, err = ReadReady(readyFile)
	return err
}

// data is the folder that postrider stores everything in.
func (w *world) data() string { return filepath.Join(w.dir, "postrider") }

// accounts makes n accounts and returns a key of each.
func (w *world) accounts(ctx context.Context, n int) ([]string, error) {
	w.say("making %d accounts", n)
	return MakeAccounts(ctx, w.program, w.ready.Config, n)
}

func (w *world) say(format string, args ...any) {
	if w.log != nil {
		fmt.Fprintf(w.log, format+"\n", args...)
	}
}
