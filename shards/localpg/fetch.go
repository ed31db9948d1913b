package localpg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// MavenCentral is where the archives come from unless a mirror is named.
const MavenCentral = "https://repo1.maven.org/maven2"

// What is fetched: the build of the zonky embedded-postgres-binaries project of the PostgreSQL
// major that the tests run on.
const fetched = "15.19.0"

// digests are the SHA-256 of the archives, as Maven Central publishes them beside each: held here,
// so that no mirror need be trusted.
var digests = map[string]string{
	"linux-amd64":        "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f",
	"linux-amd64-alpine": "a04a72fb429fed3624507f54244a69f43be491c67f744e58c1a3696a67262aab",
	"linux-arm64v8":      "95baf4bd4af31b91b3050118df59388ed0064756b556b850669e0300aa7b9911",
	"darwin-amd64":       "11d0a55e26f4c74c6ea6c72c5e4e6ac959b29a06cc6da5e5ac8162f9fd9f8055",
	"darwin-arm64v8":     "9bfc44d3f50298bb14fa125da4b67a36f382f8134ab2fc95349b72bcd5ec4e87",
}

// Limits of a fetch.
const (
	archiveLimit = 256 << 20 // bytes; the largest today has 61 MB
	fetchLimit   = 30 * time.Minute
	stallLimit   = 30 * time.Second // without a byte
)

// Fetch unpacks PostgreSQL binaries into a folder of cacheDir, unless they are there already, and
// returns that folder. mirror is the base URL of a Maven repository, such as MavenCentral. The
// archive (15 MB on Linux, 61 MB on macOS) is held against a known SHA-256; a crash leaves nothing
// that would be taken for complete. At most one line a second goes to progress, which may be nil.
// As root, a cacheDir that Postgres's user cannot reach is an *UnreachableError.
func Fetch(ctx context.Context, mirror, cacheDir string, progress io.Writer) (Binaries, error) {
	platform := platformName()
	digest, known := digests[platform]
	if !known {
		return Binaries{}, fmt.Errorf("no PostgreSQL is installed, and there is none to fetch for %s: install PostgreSQL %d or newer", platform, oldest)
	}
	name := "embedded-postgres-binaries-" + platform
	p := parcel{
		name:   "postgres-" + fetched + "-" + platform,
		url:    fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", strings.TrimRight(mirror, "/"), name, fetched, name, fetched),
		digest: digest,
	}
	b, err := p.fetch(ctx, cacheDir, progress)
	if err != nil {
		return Binaries{}, fmt.Errorf("no PostgreSQL is installed, and fetching %s failed (or install PostgreSQL %d or newer): %w", p.url, oldest, err)
	}
	return b, nil
}

// platformName is the project's name for this machine.
func platformName() string {
	name := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		name += "v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		name += "-alpine" // musl in place of glibc
	}
	return name
}

// parcel is an archive to fetch: a zip that holds a .txz of the installed tree.
type parcel struct {
	name, url, digest string
}

func (p parcel) fetch(ctx context.Context, cacheDir string, progress io.Writer) (Binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	if progress == nil {
		progress = io.Discard
	}
	target, err := filepath.Abs(filepath.Join(cacheDir, p.name))
	if err != nil {
		return Binaries{}, err
	}
	server, err := unprivileged()
	if err != nil {
		return Binaries{}, err
	}
	if err := server.reach(filepath.Join(target, "bin")); err != nil {
		return Binaries{}, err
	}
	if err := makeFolders(filepath.Dir(target), 0o755); err != nil {
		return Binaries{}, err
	}
	lock, err := waitLock(ctx, target+".lock")
	if err != nil {
		return Binaries{}, err
	}
	defer func() { _ = lock.Close() }()
	if _, err := os.Stat(target); err == nil {
		return inspect(ctx, filepath.Join(target, "bin"))
	}
	return p.install(ctx, target, progress)
}

// install downloads and unpacks under another name and renames what has proved to run.
func (p parcel) install(ctx context.Context, target string, progress io.Writer) (Binaries, error) {
	work := target + ".new"
	if err := os.RemoveAll(work); err != nil {
		return Binaries{}, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.Mkdir(work, 0o755); err != nil { //nolint:gosec // Postgres's user reads it
		return Binaries{}, err
	}
	archive := filepath.Join(work, "archive.zip")
	if err := p.download(ctx, archive, progress); err != nil {
		return Binaries{}, err
	}
	tree := filepath.Join(work, "tree")
	if err := unpack(ctx, archive, tree); err != nil {
		return Binaries{}, fmt.Errorf("unpack: %w", err)
	}
	if _, err := inspect(ctx, filepath.Join(tree, "bin")); err != nil {
		return Binaries{}, err
	}
	syscall.Sync() // a thousand files, once: cheaper than one by one
	if err := os.Rename(tree, target); err != nil {
		return Binaries{}, err
	}
	if err := syncPath(filepath.Dir(target)); err != nil {
		return Binaries{}, err
	}
	return inspect(ctx, filepath.Join(target, "bin"))
}

func (p parcel) download(ctx context.Context, path string, progress io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallLimit, func() { cancel(fmt.Errorf("nothing came for %s", stallLimit)) })
	defer stall.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	m := &meter{sum: sha256.New(), total: resp.ContentLength, name: p.name, out: progress, stall: stall}
	n, err := io.Copy(io.MultiWriter(f, m), io.LimitReader(resp.Body, archiveLimit+1))
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case n > archiveLimit:
		return fmt.Errorf("the archive is larger than %d MB", archiveLimit>>20)
	}
	m.say()
	if sum := hex.EncodeToString(m.sum.Sum(nil)); sum != p.digest {
		return fmt.Errorf("the archive has SHA-256 %s, not %s: the mirror holds another file", sum, p.digest)
	}
	return f.Close()
}

// meter sums up what passes, tells of it once a second and keeps the stall timer quiet.
type meter struct {
	sum   hash.Hash
	n     int64
	total int64 // -1 when the server did not say
	name  string
	out   io.Writer
	said  time.Time
	stall *time.Timer
}

// Write never fails.
func (m *meter) Write(p []byte) (int, error) {
	m.stall.Reset(stallLimit)
	m.n += int64(len(p))
	if time.Since(m.said) >= time.Second {
		m.say()
	}
	return m.sum.Write(p)
}

func (m *meter) say() {
	m.said = time.Now()
	of := ""
	if m.total > 0 {
		of = fmt.Sprintf(" of %.1f", float64(m.total)/1e6)
	}
	_, _ = fmt.Fprintf(m.out, "fetching %s: %.1f%s MB\n", m.name, float64(m.n)/1e6, of)
}

// waitLock waits for the lock of a file while another process has it.
func waitLock(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := lockFile(path)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
