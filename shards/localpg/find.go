package localpg

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

const oldest = 15 // the first version that the schema works on

// Binaries are the programs of one PostgreSQL version: at least initdb and postgres.
type Binaries struct {
	Dir     string
	Version int // major
}

// Find looks for PostgreSQL 15 or newer: the newest that a package manager installed, then PATH.
// If there is none it fetches one from Maven Central, once, into cacheDir; see Fetch.
func Find(ctx context.Context, cacheDir string, progress io.Writer) (Binaries, error) {
	if b, ok := installed(ctx, 0); ok {
		return b, nil
	}
	return Fetch(ctx, MavenCentral, cacheDir, progress)
}

// installed is the newest installed version from 15 on, or the given one if it is not 0.
func installed(ctx context.Context, version int) (best Binaries, ok bool) {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",           // Debian and its kin
		"/usr/pgsql-*/bin",                    // Red Hat, by the PostgreSQL project
		"/opt/homebrew/opt/postgresql@*/bin",  // macOS on ARM
		"/usr/local/opt/postgresql@*/bin",     // macOS on Intel
		"/usr/libexec/postgresql*",            // Alpine
		"/Library/PostgreSQL/*/bin",           // macOS, by EDB
		"/Applications/Postgres.app/*/*/*bin", // Postgres.app: Contents/Versions/N/bin
	} {
		found, _ := filepath.Glob(pattern) // fails only for a malformed pattern
		dirs = append(dirs, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(resolved(path)))
	}
	for _, dir := range dirs {
		b, err := inspect(ctx, dir)
		if err == nil && b.Version > best.Version && (version == 0 || b.Version == version) {
			best, ok = b, true
		}
	}
	return best, ok
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// inspect asks the binaries in a folder for their version.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return Binaries{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := osUser{}.run(ctx, filepath.Join(dir, "postgres"), "--version")
	if err != nil {
		return Binaries{}, fmt.Errorf("%s/postgres cannot be run: %w", dir, explain(out, err))
	}
	match := versionLine.FindStringSubmatch(out)
	if match == nil {
		return Binaries{}, fmt.Errorf("%s/postgres does not say its version: %q", dir, out)
	}
	version, err := strconv.Atoi(match[1])
	if err != nil || version < oldest {
		return Binaries{}, fmt.Errorf("%s holds PostgreSQL %s, and %d is the oldest that works", dir, match[1], oldest)
	}
	return Binaries{Dir: dir, Version: version}, nil
}
