package localpg

import (
	"context"
	"errors"
	"fmt"
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

const helperDir = "LOCALPG_TEST_HELPER_DIR"

// TestMain is also the helper process of TestDiesWithParent: a program that starts a server, says
// its pid and port, and stays until it is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv(helperDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := start(context.Background(), dir, Config{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.PID(), s.port)
	select {}
}

// folder is a temporary folder that Postgres's user can reach too, unlike that of t.TempDir for root.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg-*")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func start(ctx context.Context, dir string, c Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if c.Binaries.Dir == "" {
		b, ok := installed(ctx, 0)
		if !ok {
			return nil, errors.New("no PostgreSQL is installed")
		}
		c.Binaries = b
	}
	if c.Settings == nil {
		c.Settings = DefaultSettings(1<<30, "shards")
	}
	c.Name, c.Dir = "test", dir
	return Start(ctx, c)
}

func mustStart(t *testing.T, dir string, c Config) *Server {
	t.Helper()
	if _, ok := installed(t.Context(), 0); !ok {
		t.Skip("no PostgreSQL is installed")
	}
	s, err := start(t.Context(), dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if left := processesOf(s.cfg.Dir); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	out, err := psql(t, s.DSN("postgres"), sql)
	if err != nil {
		t.Fatalf("%s: %v: %s", sql, err, out)
	}
	return out
}

func psql(t *testing.T, dsn, sql string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("there is no psql")
	}
	out, err := exec.CommandContext(t.Context(), path, "-XAtc", sql, dsn).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// within waits for a thing to come true.
func within(t *testing.T, limit time.Duration, what string, true func() bool) {
	t.Helper()
	deadline := time.After(limit)
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !true() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func TestLife(t *testing.T) {
	dir := filepath.Join(folder(t), "made", "pg1")
	s := mustStart(t, dir, Config{})
	if got := query(t, s, "create table t as select 7 as n; select n from t"); !strings.HasSuffix(got, "7") {
		t.Errorf("n = %q", got)
	}
	for setting, want := range map[string]string{
		"wal_level": "logical", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "on",
		"shared_buffers": "64MB", "server_encoding": "UTF8", "max_connections": "200", "cluster_name": "test",
	} {
		if got := query(t, s, "show "+setting); got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	if out, err := psql(t, strings.Replace(s.DSN("postgres"), s.password, "guess", 1), "select 1"); err == nil {
		t.Errorf("a wrong password got in: %s", out)
	}
	if info, err := os.Stat(s.passwordPath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v, %v", info.Mode(), err)
	}

	if _, err := start(t.Context(), dir, Config{}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second start on the folder: %v", err)
	}

	port := s.port
	stop(t, s)
	s = mustStart(t, dir, Config{Settings: map[string]string{"work_mem": "5MB"}})
	if s.port != port {
		t.Errorf("the port was %d and is now %d", port, s.port)
	}
	if got := query(t, s, "select n from t"); got != "7" {
		t.Errorf("after the restart n = %q", got)
	}
	if got := query(t, s, "show work_mem"); got != "5MB" {
		t.Errorf("work_mem = %q", got)
	}
}

// TestAsOrdinaryUser runs the other tests as nobody.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("we are one")
	}
	nobody, err := lookup(user.Lookup("nobody"))
	if err != nil {
		t.Skip("there is no user nobody")
	}
	dir := folder(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "localpg.test")
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, program, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Mkdir(tmp, 0o700), nobody.own(tmp)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.timeout=2m",
		"-test.run=^(TestLife|TestDiesWithParent|TestRunRestarts|TestStrangersPID|TestOrphans)$")
	nobody.dress(cmd, syscall.SIGKILL)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 5 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSideBySide(t *testing.T) {
	dir := folder(t)
	begin := time.Now()
	type result struct {
		s   *Server
		err error
	}
	results := make(chan result)
	for i, role := range []string{"directory", "shards", "shards"} {
		go func() {
			s, err := start(t.Context(), filepath.Join(dir, "pg"+strconv.Itoa(i)), Config{Settings: DefaultSettings(4<<30, role)})
			results <- result{s, err}
		}()
	}
	for range 3 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		defer stop(t, r.s)
	}
	t.Logf("three new servers answer after %s", time.Since(begin).Round(time.Millisecond))
}
