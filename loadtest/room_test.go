package loadtest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryOfATree(t *testing.T) {
	pid, _ := startBurner(t)
	r, err := treeMemory(pid)
	if err != nil {
		t.Fatal(err)
	}
	if r.own < 1<<20 || r.all < r.own || r.cache != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := treeMemory(1 << 30); err == nil {
		t.Error("knows the memory of a process that is not there")
	}
}

func TestRollup(t *testing.T) {
	rss, pss, shared := parseRollup([]byte("5649-7ffd ---p 00000000 00:00 0   [rollup]\nRss:      1616 kB\nPss:       246 kB\nPss_Anon:  112 kB\nPss_Shmem:   8 kB\n"))
	if rss != 1616<<10 || pss != 246<<10 || shared != 8<<10 {
		t.Error(rss, pss, shared)
	}
}

func TestDiskUseCountsBlocks(t *testing.T) {
	dir := t.TempDir()
	empty, err := diskUse(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "b", "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := diskUse(dir); err != nil || n-empty < 1<<20 || n-empty > 1<<20+64<<10 {
		t.Errorf("%d, before %d, %v", n, empty, err)
	}
	if _, err := diskUse(filepath.Join(dir, "missing")); err == nil {
		t.Error("a folder that is not there takes no room")
	}
}

func TestResidentMemory(t *testing.T) {
	text := "x 1\nprocess_resident_memory_bytes 1.5e+06\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }))
	defer server.Close()
	if n, err := residentOf(t.Context(), server.URL); err != nil || n == nil || *n != 1_500_000 {
		t.Error(n, err)
	}
	text = "x 1\n"
	if n, err := residentOf(t.Context(), server.URL); err != nil || n != nil {
		t.Error(n, err)
	}
	if _, err := residentOf(t.Context(), "http://127.0.0.1:1"); err == nil {
		t.Error("nobody answers, and that passes")
	}
}
