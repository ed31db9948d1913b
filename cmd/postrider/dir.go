package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// layout is the version of the folder that postrider dev keeps everything in.
const layout = 1

// dir is that folder, locked against a second start.
type dir struct {
	path string
	lock *os.File
}

func (d *dir) config() string   { return filepath.Join(d.path, "postrider.toml") }
func (d *dir) postgres() string { return filepath.Join(d.path, "postgres") }
func (d *dir) queue() string    { return filepath.Join(d.path, "queue") }

// hasServer says that an earlier start made the i-th Postgres server.
func (d *dir) hasServer(i int) bool {
	_, err := os.Stat(filepath.Join(d.postgres(), fmt.Sprintf("pg%d", i)))
	return err == nil
}

// openDir makes the folder or checks it, and locks it. As root, Postgres runs as another user who must be able to
// pass through it; the files in it stay closed to others.
func openDir(path string) (*dir, error) {
	mode := os.FileMode(0o700)
	if os.Getuid() == 0 {
		mode = 0o711
	}
	for _, p := range []string{path, filepath.Join(path, "postgres")} {
		if err := os.MkdirAll(p, mode); err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", p, errors.Unwrap(err))
		}
		if err := os.Chmod(p, mode); err != nil {
			return nil, fmt.Errorf("cannot use %s: %w", p, errors.Unwrap(err))
		}
	}
	if err := os.MkdirAll(filepath.Join(path, "queue"), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make %s/queue: %w", path, errors.Unwrap(err))
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write to %s: %w", path, errors.Unwrap(err))
	}
	d := &dir{path: path, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		d.close()
		return nil, fmt.Errorf("%s is in use by another postrider dev: stop that one, or choose another folder with --dir", path)
	}
	if err := d.checkLayout(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *dir) close() { _ = d.lock.Close() }

func (d *dir) checkLayout() error {
	file := filepath.Join(d.path, "version")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if err := writeFile(file, []byte(strconv.Itoa(layout)+"\n")); err != nil {
			return fmt.Errorf("cannot write to %s: %w", d.path, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s does not hold a version: is %s a folder of postrider dev?", file, d.path)
	}
	if have > layout {
		return fmt.Errorf("%s was written by a newer version of Postrider (layout %d, this one knows %d): use that version, or another folder with --dir", d.path, have, layout)
	}
	return nil
}

// secrets are made at the first start and kept.
type secrets struct{ ReturnPath, Queue string }

func (d *dir) secrets() (secrets, error) {
	var s secrets
	for name, into := range map[string]*string{"return-path.secret": &s.ReturnPath, "queue.secret": &s.Queue} {
		file := filepath.Join(d.path, name)
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			var random [32]byte
			_, _ = rand.Read(random[:])
			b = []byte(hex.EncodeToString(random[:]))
			err = writeFile(file, b)
		}
		if err != nil {
			return s, fmt.Errorf("keep a secret: %w", err)
		}
		*into = strings.TrimSpace(string(b))
	}
	return s, nil
}

func (d *dir) key() (string, error) {
	b, err := os.ReadFile(filepath.Join(d.path, "key"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

func (d *dir) keepKey(key string) error {
	return writeFile(filepath.Join(d.path, "key"), []byte(key+"\n"))
}

// cacheDir is where fetched programs are kept for all folders.
func cacheDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "postrider")
}

func terminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// memory is the machine's, in bytes; 4 GiB where it cannot be read.
func memory() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		for _, line := range strings.Split(string(b), "\n") {
			if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
				if kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
					return kb << 10
				}
			}
		}
	}
	return 4 << 30
}
