package localpg

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every failure that people meet is one line that names the thing.
func TestErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	root := folder(t)
	mustStart(t, filepath.Join(root, "good"), Config{})
	newer := filepath.Join(root, "newer")
	other := filepath.Join(root, "other")
	if err := errors.Join(os.Mkdir(newer, 0o700), os.WriteFile(filepath.Join(newer, "PG_VERSION"), []byte("99\n"), 0o600),
		os.Mkdir(other, 0o700), os.WriteFile(filepath.Join(other, "thesis.txt"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		u, err := unprivileged()
		if err := errors.Join(err, u.own(newer), u.own(other)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		dir  string
		cfg  Config
		want string
	}{
		"no folder":     {"", Config{}, "no data folder was given"},
		"taken port":    {"p", Config{Port: taken.Addr().(*net.TCPAddr).Port}, "its port is taken by another program"},
		"unknown":       {"u", Config{Settings: map[string]string{"colour": "red"}}, `settings: unrecognized configuration parameter "colour"`},
		"bad value":     {"v", Config{Settings: map[string]string{"shared_buffers": "red"}}, `settings: invalid value for parameter "shared_buffers": "red"`},
		"two lines":     {"l", Config{Settings: map[string]string{"work_mem": "1MB\nfsync = off"}}, "cannot be a Postgres setting"},
		"newer":         {"newer", Config{}, "was made by PostgreSQL 99"},
		"something":     {"other", Config{}, "is neither empty nor a Postgres data folder"},
		"no such place": {"/dev/null/pg", Config{}, "/dev/null"},
		"no binaries":   {"b", Config{Binaries: Binaries{Dir: "/nowhere/bin", Version: 15}}, "/nowhere/bin/initdb"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.dir
			if dir != "" && !filepath.IsAbs(dir) {
				dir = filepath.Join(root, dir)
			}
			s, err := start(t.Context(), dir, c.cfg)
			if err == nil {
				stop(t, s)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
			if left := processesOf(dir); dir != "" && len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has this trouble")
	}
	closed := filepath.Join(folder(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder(t), "link")
	if err := os.Symlink(closed, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(closed, "a", "pg"), filepath.Join(link, "pg")} {
		_, err := start(t.Context(), dir, Config{Binaries: Binaries{Dir: "/usr/bin", Version: 15}})
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) {
			t.Fatalf("%s: %v", dir, err)
		}
		if !strings.HasSuffix(unreachable.Folder, "/closed") && unreachable.Folder != link {
			t.Errorf("it blames %s", unreachable.Folder)
		}
		if !errors.As(Reachable(dir), &unreachable) {
			t.Errorf("Reachable(%s) = %v", dir, Reachable(dir))
		}
	}
	if entries, _ := os.ReadDir(closed); len(entries) > 0 {
		t.Errorf("it left %v", entries)
	}
}

func TestExplain(t *testing.T) {
	ended := errors.New("exit status 1")
	for _, c := range []struct{ text, want string }{
		{`2026-01-02 03:04:05.678 UTC [7] LOG:  starting PostgreSQL 15.18 on x86_64
2026-01-02 03:04:05.678 UTC [7] LOG:  could not bind IPv4 address "127.0.0.1": Address already in use
2026-01-02 03:04:05.678 UTC [7] HINT:  Is another postmaster already running on port 5432?
2026-01-02 03:04:05.678 UTC [7] WARNING:  could not create listen socket for "127.0.0.1"
2026-01-02 03:04:05.678 UTC [7] FATAL:  could not create any TCP/IP sockets
2026-01-02 03:04:05.678 UTC [7] LOG:  database system is shut down
`, `could not bind IPv4 address "127.0.0.1": Address already in use: ` + errPort.Error()},
		{`2026-01-02 03:04:05.678 UTC [7] FATAL:  could not write lock file "postmaster.pid": No space left on device
`, `could not write lock file "postmaster.pid": No space left on device: free some space on the disk of the data folder`},
		{`2026-01-02 03:04:05.678 UTC [9] PANIC:  could not write to file "pg_wal/xlogtemp.9": No space left on device
2026-01-02 03:04:05.678 UTC [7] LOG:  checkpointer process (PID 9) was terminated by signal 6: Aborted
`, `could not write to file "pg_wal/xlogtemp.9": No space left on device: free some space on the disk of the data folder`},
		{`initdb: error: could not create directory "/x/pg": Read-only file system
initdb: removing contents of data directory "/x/pg"
`, `could not create directory "/x/pg": Read-only file system: the data folder must be on a disk that can be written`},
		{"postgres: error while loading shared libraries: libssl.so.1.1: cannot open shared object file\n",
			"ended with exit status 1; it last said: postgres: error while loading shared libraries: libssl.so.1.1: cannot open shared object file"},
	} {
		if got := explain(c.text, ended).Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	if err := explain("could not bind: FATAL: Address already in use", ended); !errors.Is(err, errPort) {
		t.Errorf("a taken port is not known as one: %v", err)
	}
}

func TestTrimLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writer, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	line := strings.Repeat("x", 1<<20-1) + "\n"
	for range 10 {
		_, _ = writer.WriteString(line)
	}
	check := func(what string, log, older int64) {
		t.Helper()
		for path, want := range map[string]int64{path: log, path + ".1": older} {
			if info, err := os.Stat(path); err == nil && info.Size() != want || err != nil && want != 0 {
				t.Errorf("%s: %s is not %d bytes: %v, %v", what, path, want, info, err)
			}
		}
	}
	if err := trimLog(path); err != nil {
		t.Fatal(err)
	}
	check("at the limit", logLimit, 0)
	_, _ = writer.WriteString("one more\n")
	if err := trimLog(path); err != nil {
		t.Fatal(err)
	}
	check("over it", 0, logLimit)
	_, _ = writer.WriteString("written on\n")
	check("afterwards", 11, logLimit)
}
