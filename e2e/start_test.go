package e2e

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStartErrors starts on what cannot work: one line that says what to do, exit 1 or 2, and no process left.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // after the parallel subtests
	base := filepath.Dir(folder(t))
	for name, content := range map[string]string{"newer": "99\n", "garbage": "hello\n"} {
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name, "version"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code int
		says string
		args []string
	}{
		"newer version": {1, "newer", []string{"--dir", filepath.Join(base, "newer")}}, "not ours": {1, "garbage", []string{"--dir", filepath.Join(base, "garbage")}},
		"below a file": {1, "file", []string{"--dir", filepath.Join(base, "file", "dir")}}, "a file": {1, "file", []string{"--dir", filepath.Join(base, "file")}},
		"http taken": {1, taken.Addr().String(), []string{"--http", taken.Addr().String()}}, "inbox taken": {1, taken.Addr().String(), []string{"--inbox", taken.Addr().String()}},
		"metrics taken": {1, taken.Addr().String(), []string{"--metrics", taken.Addr().String()}}, "smtp taken": {1, taken.Addr().String(), []string{"--smtp", taken.Addr().String()}},
		"bad address": {1, "nonsense", []string{"--http", "nonsense"}}, "ready file nowhere": {1, "/nowhere/", []string{"--ready-file", "/nowhere/ready"}},
		"unknown flag": {2, "--nonsense", []string{"--nonsense"}}, "an argument": {2, "", []string{"x"}}, "no servers": {2, "--servers", []string{"--servers", "0"}}, "no shards": {2, "--shards", []string{"--shards", "0"}},
		"many shards": {2, "--shards", []string{"--shards", "1000000"}}, "letters": {2, "--servers", []string{"--servers", "two"}}, "search": {2, "--search", []string{"--search", "lucene"}},
		"log": {2, "--log", []string{"--log", "xml"}}, "log level": {2, "level", []string{"--log-level", "loud"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			if c.code == 1 {
				t.Parallel()
			}
			failsToStart(t, dir, c.code, c.says, c.args...)
		})
	}
}

func failsToStart(t *testing.T, dir string, code int, says string, args ...string) {
	t.Helper()
	cmd := exec.Command(os.Getenv(binaryEnv), devArgs(dir, append([]string{"--shards", "1", "--servers", "1"}, args...)...)...)
	var stdout, stderr tail
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	limit := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	_ = cmd.Run()
	if !limit.Stop() {
		t.Error("it did not end by itself")
	}
	text := stderr.String()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.HasPrefix(text, "postrider: ") || strings.Count(text, "\n") != 1 || !strings.Contains(text, says) {
		t.Errorf("exit %d, want %d; want one line that says %q, got:\n%s%s", got, code, says, &stdout, text)
	}
	gone(t, dir)
}

// gone waits until no process works in a folder.
func gone(t *testing.T, dir string) {
	t.Helper()
	wait(t, 10*time.Second, "no process to work in "+filepath.Base(filepath.Dir(dir)), func() bool { return len(below(dir)) == 0 })
}

// TestStartUnreachable starts as root below a folder that Postgres's user may not enter.
func TestStartUnreachable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's Postgres can enter what the user can")
	}
	closed := filepath.Join(filepath.Dir(folder(t)), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	failsToStart(t, filepath.Join(closed, "dir"), 1, closed)
}

// TestLife starts, refuses a second start, stops, starts again, is killed and starts again, on one folder.
func TestLife(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	d := start(t, dir, "--log-level", "info")
	id := d.send(t, "private.person@example.net", object{"subject": "quite confidential"})
	bounced := d.send(t, "bounce+private.person@example.net")
	d.waitState(t, id, "sent")
	d.waitState(t, bounced, "bounced")
	closedFiles(t, dir)
	failsSecond(t, d)
	family := family(d.PID)
	if len(family) < 4 {
		t.Errorf("it has only the processes %v", family)
	}
	begin := time.Now()
	d.stop(t)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopped after %v", took)
	}
	if left := below(dir); len(left) > 0 {
		t.Errorf("processes %v are left at exit", left)
	}
	for _, secret := range []string{"private.person", "confidential"} {
		if strings.Contains(d.output.String(), secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
	again := start(t, dir)
	if again.Key != d.Key || again.Account != d.Account {
		t.Errorf("another key or account than before: %d, %d", again.Account, d.Account)
	}
	again.waitState(t, id, "sent")
	again.kill()
	gone(t, dir)
	last := afterKill(t, dir)
	last.waitState(t, id, "sent")
	last.suppressed(t, "bounce+private.person@example.net", "hard-bounce")
	_ = last.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-last.ended:
	case <-time.After(12 * time.Second):
		t.Error("not stopped 12 s after SIGINT")
	}
	if code := last.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d after SIGINT", code)
	}
}

// failsSecond starts once more on a folder in use.
func failsSecond(t *testing.T, d *dev) {
	t.Helper()
	ready := d.dir + ".second"
	cmd := exec.Command(os.Getenv(binaryEnv), devArgs(d.dir, "--ready-file", ready)...)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "in use") || !strings.Contains(string(out), d.dir) {
		t.Errorf("a second start: exit %d\n%s", code, out)
	}
	if _, err := os.Stat(ready); err == nil {
		t.Error("a second start has written its ready file")
	}
	d.must(t, "/api/1.0/users/ping", object{}) // the first goes on
	if _, err := os.Stat(d.dir + ".ready"); err != nil {
		t.Error(err)
	}
}

// afterKill starts on a folder whose last process was killed: the old ready file goes before anything is ready.
func afterKill(t *testing.T, dir string) *dev {
	t.Helper()
	if _, err := os.Stat(dir + ".ready"); err != nil {
		t.Errorf("a killed process cannot have removed its ready file: %v", err)
	}
	d := begin(t, dir, nil)
	wait(t, 5*time.Second, "the old ready file to go", func() bool {
		b, err := os.ReadFile(dir + ".ready")
		return err != nil || strings.Contains(string(b), fmt.Sprintf(`"pid":%d,`, d.cmd.Process.Pid))
	})
	d.waitReady(t)
	return d
}

// closedFiles wants what holds keys and mail to be the owner's alone. Postgres's own folders are its user's affair,
// and as root it must be able to pass through the two above them.
func closedFiles(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		open := info.Mode().Perm() & 0o077
		passing := os.Geteuid() == 0 && open == 0o011 && (path == dir || path == filepath.Join(dir, "postgres"))
		if open != 0 && !passing {
			t.Errorf("%s has mode %#o", path, info.Mode().Perm())
		}
		if filepath.Dir(path) == filepath.Join(dir, "postgres") && e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	info, err := os.Stat(dir + ".ready")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file, which holds a key: %v %v", info.Mode(), err)
	}
}

// TestStopBusy stops it while it delivers to hosts that do not answer, and wants nothing of that lost.
func TestStopBusy(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	d := start(t, dir)
	ids := map[string]string{}
	for i := range 10 {
		ids[d.send(t, fmt.Sprintf("hang@h%d.example.net", i))] = "queued"
		ids[d.send(t, fmt.Sprintf("slow-60000@s%d.example.net", i))] = "queued"
		ids[d.send(t, fmt.Sprintf("anybody@a%d.example.net", i))] = "sent"
	}
	begin := time.Now()
	d.stop(t)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopped after %v", took)
	}
	gone(t, dir)
	again := start(t, dir)
	for id, want := range ids {
		again.waitState(t, id, want)
	}
	_ = again.cmd.Process.Signal(syscall.SIGTERM)
	<-time.After(200 * time.Millisecond)
	_ = again.cmd.Process.Signal(syscall.SIGTERM) // a second one stops at once
	select {
	case <-again.ended:
	case <-time.After(3 * time.Second):
		t.Error("still there 3 s after a second SIGTERM")
		again.kill()
	}
	gone(t, dir)
}

// TestOrdinaryUser runs it as a user who is not root, in a folder of that user's own.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("all other tests run as an ordinary user already")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("no user to run as: %v", err)
	}
	uid, err1 := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(nobody.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		t.Skipf("odd ids: %s %s", nobody.Uid, nobody.Gid)
	}
	dir := folder(t)
	if err := os.Chown(filepath.Dir(dir), int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	d := startAs(t, dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)})
	d.waitState(t, d.send(t, "anybody@example.net"), "sent")
	for _, pid := range family(d.PID) {
		info, err := os.Stat("/proc/" + strconv.Itoa(pid))
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
			t.Errorf("process %d runs as user %d", pid, info.Sys().(*syscall.Stat_t).Uid)
		}
	}
	d.stop(t)
	gone(t, dir)
}
