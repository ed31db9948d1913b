package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func mustOpen(t *testing.T, path string) *dir {
	t.Helper()
	d, err := openDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func TestDirInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "dir")
	d := mustOpen(t, path)
	if _, err := openDir(path); err == nil || !strings.Contains(err.Error(), path+" is in use") || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a second start: %v", err)
	}
	d.close()
	mustOpen(t, path)
}

func TestDirLayout(t *testing.T) {
	for version, says := range map[string]string{"2\n": "newer version", "999": "newer version", "one": "does not hold a version", "": "does not hold a version"} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, "version"), []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openDir(path); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("version %q: %v, want %s", version, err, says)
		}
		if err := os.WriteFile(filepath.Join(path, "version"), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, path) // the refusal has left no lock
	}
}

func TestDirCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := openDir(path); err == nil || !strings.Contains(err.Error(), file) || strings.Count(err.Error(), file) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestDirSecrets has secrets and the key be the same at every start and closed to others.
func TestDirSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir")
	d := mustOpen(t, path)
	if key, err := d.key(); err != nil || key != "" {
		t.Errorf("a key before there is one: %q, %v", key, err)
	}
	first, err := d.secrets()
	if err != nil || len(first.ReturnPath) != 64 || len(first.Queue) != 64 || first.ReturnPath == first.Queue {
		t.Errorf("%v", err)
	}
	if err := d.keepKey("pr_x"); err != nil {
		t.Fatal(err)
	}
	d.close()
	d = mustOpen(t, path)
	again, err := d.secrets()
	if err != nil || again != first {
		t.Errorf("other secrets at the second start, %v", err)
	}
	if key, err := d.key(); err != nil || key != "pr_x" {
		t.Errorf("key %q, %v", key, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		passable := e.Name() == "postgres" && os.Getuid() == 0 && st.Mode().Perm() == 0o711
		if st.Mode().Perm()&0o077 != 0 && !passable {
			t.Errorf("%s has mode %v", e.Name(), st.Mode())
		}
	}
}
