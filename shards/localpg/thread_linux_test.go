package localpg

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The signal at a parent's death follows the thread that started the child: it must not be the
// thread of whoever called Start.
func TestOutlivesCallersThread(t *testing.T) {
	dir := filepath.Join(folder(t), "pg")
	if _, ok := installed(t.Context(), 0); !ok {
		t.Skip("no PostgreSQL is installed")
	}
	started := make(chan error)
	var s *Server
	var thread int
	go onDyingThread(func() {
		thread = syscall.Gettid()
		var err error
		s, err = start(t.Context(), dir, Config{})
		started <- err
	})
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	within(t, 5*time.Second, "the thread has ended", func() bool {
		_, err := os.Stat(filepath.Join("/proc/self/task", strconv.Itoa(thread)))
		return os.IsNotExist(err)
	})
	query(t, s, "select 1")
	if f := readPIDFile(dir); f.status != "ready" {
		t.Errorf("the server is %q", f.status)
	}
}

// onDyingThread must be the last call of a goroutine, whose thread then ends with it.
func onDyingThread(do func()) {
	runtime.LockOSThread() // and never unlock
	if syscall.Gettid() != os.Getpid() {
		do()
		return
	}
	done := make(chan struct{}) // the main thread never ends: hold it, and take another
	go func() { defer close(done); onDyingThread(do) }()
	<-done
	runtime.UnlockOSThread()
}
