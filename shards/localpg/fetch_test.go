package localpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ulikunitz/xz"
)

// archive is built like those of the zonky project: a jar with one .txz of the installed tree. Its
// postgres only tells its version.
func archive(t *testing.T, version string, extra ...tar.Header) []byte {
	t.Helper()
	var txz bytes.Buffer
	x, err := xz.NewWriter(&txz)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(x)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
	add(tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "./bin/postgres", Typeflag: tar.TypeReg, Mode: 0o755}, script)
	add(tar.Header{Name: "./bin/initdb", Typeflag: tar.TypeReg, Mode: 0o755}, script)
	add(tar.Header{Name: "lib/libpq.so.5.15", Typeflag: tar.TypeReg, Mode: 0o644}, strings.Repeat("library ", 1000))
	add(tar.Header{Name: "lib/libpq.so", Typeflag: tar.TypeSymlink, Linkname: "libpq.so.5.15"}, "")
	for _, h := range extra {
		add(h, "")
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	f, err := z.Create("META-INF/MANIFEST.MF")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte("Manifest-Version: 1.0\n"))
	if err := errors.Join(w.Close(), x.Close()); err != nil {
		t.Fatal(err)
	}
	if f, err = z.Create("postgres-linux-x86_64.txz"); err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write(txz.Bytes())
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// serve offers an archive and counts how often it is fetched.
func serve(t *testing.T, content []byte) (p parcel, fetches *atomic.Int32) {
	t.Helper()
	fetches = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a.jar" {
			http.NotFound(w, r)
			return
		}
		fetches.Add(1)
		_, _ = w.Write(content)
	}))
	t.Cleanup(server.Close)
	sum := sha256.Sum256(content)
	return parcel{name: "postgres-test", url: server.URL + "/a.jar", digest: hex.EncodeToString(sum[:])}, fetches
}

func TestFetch(t *testing.T) {
	p, fetches := serve(t, archive(t, "15.19"))
	cache := filepath.Join(folder(t), "cache", "deep")
	leftover := filepath.Join(cache, p.name+".new", "tree")
	if err := os.MkdirAll(leftover, 0o711); err != nil { // of a fetch that was killed
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(cache, 0o711), os.Chmod(filepath.Dir(cache), 0o711)); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	done := make(chan error)
	for range 3 {
		go func() {
			var said strings.Builder
			b, err := p.fetch(t.Context(), cache, &said)
			if err == nil && (b.Version != 15 || b.Dir != filepath.Join(cache, p.name, "bin")) {
				err = errors.New("it is " + b.Dir)
			}
			done <- err
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := fetches.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if info, err := os.Stat(filepath.Join(cache, p.name, "lib", "libpq.so")); err != nil || info.Size() != 8000 {
		t.Errorf("library behind its link: %v, %v", info, err)
	}
	for _, path := range []string{"", "bin", "bin/postgres"} {
		if info, err := os.Stat(filepath.Join(cache, p.name, path)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s is not for everybody: %v, %v", path, info, err)
		}
	}
	if _, err := os.Stat(filepath.Dir(leftover)); !os.IsNotExist(err) {
		t.Errorf("the working folder is left: %v", err)
	}
}

func TestFetchSaysHowFar(t *testing.T) {
	p, _ := serve(t, archive(t, "15.19"))
	var said strings.Builder
	if _, err := p.fetch(t.Context(), folder(t), &said); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	if len(lines) > 2 || !strings.HasPrefix(lines[0], "fetching postgres-test: 0.0 of 0.0 MB") {
		t.Errorf("%q", lines)
	}
}

func TestFetchRefuses(t *testing.T) {
	good := archive(t, "15.19")
	for name, c := range map[string]struct {
		content []byte
		change  func(*parcel)
		want    string
	}{
		"other file":  {good, func(p *parcel) { p.digest = strings.Repeat("0", 64) }, "the mirror holds another file"},
		"not there":   {good, func(p *parcel) { p.url += "x" }, "404"},
		"nobody":      {good, func(p *parcel) { p.url = "http://127.0.0.1:1/a.jar" }, "refused"},
		"no zip":      {[]byte("<html>"), nil, "not a valid zip file"},
		"old version": {archive(t, "14.2"), nil, "15 is the oldest that works"},
		"climbing":    {archive(t, "15.1", tar.Header{Name: "../../evil", Typeflag: tar.TypeReg, Mode: 0o755}), nil, "escapes"},
		"by a link": {archive(t, "15.1", tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"},
			tar.Header{Name: "out/evil", Typeflag: tar.TypeReg, Mode: 0o755}), nil, "escapes"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := serve(t, c.content)
			if c.change != nil {
				c.change(&p)
			}
			cache := folder(t)
			_, err := p.fetch(t.Context(), cache, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if entries, _ := os.ReadDir(cache); len(entries) != 1 { // the lock
				t.Errorf("it left %v", entries)
			}
		})
	}
}

func TestFetchEndsWithContext(t *testing.T) {
	reached := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("some"))
		w.(http.Flusher).Flush()
		close(reached)
		<-r.Context().Done() // and never more
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	_, err := parcel{name: "postgres-test", url: server.URL}.fetch(ctx, folder(t), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
