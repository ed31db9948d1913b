package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestRunRestarts(t *testing.T) {
	s := mustStart(t, filepath.Join(folder(t), "pg"), Config{})
	query(t, s, "create table t as select 7 as n")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	for range 2 {
		pid := s.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, "it answers again", func() bool {
			_, err := psql(t, s.DSN("postgres"), "select n from t")
			return err == nil && s.PID() != pid
		})
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := query(t, s, "select n from t"); got != "7" {
		t.Errorf("Run's end touched the server: %q", got)
	}
}

func TestStopEndsRun(t *testing.T) {
	log, lines := observer.New(zap.InfoLevel)
	s := mustStart(t, filepath.Join(folder(t), "pg"), Config{Log: zap.New(log)})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	stop(t, s)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := lines.Len(); n != 0 {
		t.Errorf("a stop that was asked for was logged: %v", lines.All())
	}
}

// A frozen server cannot shut down; Stop wakes it.
func TestStopFrozen(t *testing.T) {
	s := mustStart(t, filepath.Join(folder(t), "pg"), Config{})
	if err := syscall.Kill(s.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
}

// A context that has ended makes a stop immediate, not unfinished.
func TestStopAtOnce(t *testing.T) {
	s := mustStart(t, filepath.Join(folder(t), "pg"), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); err != nil && !strings.Contains(err.Error(), "was ended by") {
		t.Error(err)
	}
	if left := processesOf(s.cfg.Dir); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// helper starts a server in another process, which then holds the folder.
func helper(t *testing.T, dir string) (parent *exec.Cmd, postmaster int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var port int
	if _, err := fmt.Fscan(out, &postmaster, &port); err != nil {
		rest, _ := io.ReadAll(out)
		t.Fatalf("helper: %v %s", err, rest)
	}
	return cmd, postmaster
}

func TestDiesWithParent(t *testing.T) {
	if _, ok := installed(t.Context(), 0); !ok {
		t.Skip("no PostgreSQL is installed")
	}
	dir := filepath.Join(folder(t), "pg")
	parent, postmaster := helper(t, dir)
	if !worksIn(postmaster, dir) {
		t.Fatalf("process %d is not the postmaster", postmaster)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "all its processes have ended", func() bool { return len(processesOf(dir)) == 0 })
	s := mustStart(t, dir, Config{})
	if got := query(t, s, "select pg_is_in_recovery()"); got != "f" {
		t.Errorf("recovery: %s", got)
	}
}

// What a killed parent left, frozen so that the parent's death could not end it, is taken over.
func TestTakesOverLeftovers(t *testing.T) {
	if _, ok := installed(t.Context(), 0); !ok {
		t.Skip("no PostgreSQL is installed")
	}
	dir := filepath.Join(folder(t), "pg")
	parent, postmaster := helper(t, dir)
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	s := mustStart(t, dir, Config{})
	if s.PID() == postmaster || worksIn(postmaster, dir) {
		t.Errorf("the old server %d still runs", postmaster)
	}
	query(t, s, "select 1")
}

// Without a postmaster its children go on until they notice; a start does not wait for that.
func TestOrphans(t *testing.T) {
	dir := filepath.Join(folder(t), "pg")
	s := mustStart(t, dir, Config{})
	children := processesOf(dir)
	if len(children) < 2 {
		t.Skip("/proc shows children to no one here: root without CAP_SYS_PTRACE, or not Linux")
	}
	for _, pid := range children { // frozen, so that they do not notice
		if pid != s.PID() {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
	_ = syscall.Kill(s.PID(), syscall.SIGKILL)
	<-s.current().done
	if len(processesOf(dir)) == 0 {
		t.Fatal("there are no orphans")
	}
	if err := s.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "was ended by") {
		t.Errorf("frozen orphans were ended by a word: %v", err)
	}
	query(t, mustStart(t, dir, Config{}), "select 1")
}

// A pid file may name a process that has nothing to do with it.
func TestStrangersPID(t *testing.T) {
	dir := filepath.Join(folder(t), "pg")
	s := mustStart(t, dir, Config{})
	stop(t, s)
	stranger := exec.Command("sleep", "60")
	s.user.dress(stranger, syscall.SIGKILL) // Postgres would be misled by one of its own user
	stranger.Dir = "/tmp"
	p, err := spawn(stranger)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(p.pid, syscall.SIGKILL); <-p.done }()
	file := filepath.Join(dir, "postmaster.pid")
	text := strconv.Itoa(p.pid) + "\n" + dir + "\n1700000000\n5432\n\n127.0.0.1\n  1 1\nready   \n"
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), s.user.own(file)); err != nil {
		t.Fatal(err)
	}
	query(t, mustStart(t, dir, Config{}), "select 1")
	select {
	case <-p.done:
		t.Errorf("the stranger was ended: %v", p.err)
	default:
	}
}
