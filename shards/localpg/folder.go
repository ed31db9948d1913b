package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	superuser   = "postgres"
	initLimit   = 2 * time.Minute
	ourSettings = "postrider.conf"
)

// prepareFolder makes the data folder at the first start; later it checks that these binaries fit
// it, or takes installed ones that do.
func (s *Server) prepareFolder(ctx context.Context) error {
	dir := s.cfg.Dir
	made, err := folderVersion(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return s.initialise(ctx)
	case err != nil:
		return err
	case made != s.cfg.Binaries.Version:
		fitting, ok := installed(ctx, made)
		if !ok {
			return fmt.Errorf("data folder %s was made by PostgreSQL %d, and the binaries in %s are of version %d: install PostgreSQL %d, or choose another folder",
				dir, made, s.cfg.Binaries.Dir, s.cfg.Binaries.Version, made)
		}
		s.cfg.Binaries = fitting
	}
	s.password, err = readHead(s.passwordPath(), 1024)
	if err != nil {
		return fmt.Errorf("the password of data folder %s cannot be read (restore the file, or choose another folder): %w", dir, err)
	}
	return nil
}

// folderVersion is the major version that made a data folder; os.ErrNotExist when the folder is
// not there or empty.
func folderVersion(dir string) (int, error) {
	text, err := readHead(filepath.Join(dir, "PG_VERSION"), 64)
	if errors.Is(err, os.ErrNotExist) {
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			return 0, fmt.Errorf("%s is neither empty nor a Postgres data folder: choose another folder", dir)
		}
	}
	if err != nil {
		return 0, err
	}
	version, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s/PG_VERSION says %q, which is no version from 15 on: choose another folder", dir, text)
	}
	return version, nil
}

// initialise builds the data folder under another name and renames it once it is complete and on
// disk, so a crash leaves none or a whole one.
func (s *Server) initialise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, initLimit)
	defer cancel()
	var err error
	if s.password, err = keepPassword(s.passwordPath()); err != nil {
		return err
	}
	work := s.cfg.Dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	data, pwfile := filepath.Join(work, "data"), filepath.Join(work, "password")
	if err := os.WriteFile(pwfile, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := errors.Join(s.user.own(pwfile), s.user.own(work)); err != nil {
		return err
	}
	if err := s.initdb(ctx, data, pwfile); err != nil {
		return err
	}
	if err := s.includeOurs(data); err != nil {
		return err
	}
	if err := os.Remove(s.cfg.Dir); err != nil && !errors.Is(err, os.ErrNotExist) { // an empty one
		return err
	}
	if err := os.Rename(data, s.cfg.Dir); err != nil {
		return err
	}
	return syncPath(filepath.Dir(s.cfg.Dir))
}

// initdb prefers the locale C.UTF-8 (upper and lower case beyond ASCII, yet the order of bytes);
// where the system has none it takes C.
func (s *Server) initdb(ctx context.Context, data, pwfile string) error {
	for _, locale := range []string{"C.UTF-8", "C"} {
		out, err := s.user.run(ctx, filepath.Join(s.cfg.Binaries.Dir, "initdb"), "--no-instructions", "-E", "UTF8",
			"--locale="+locale, "-U", superuser, "-A", "scram-sha-256", "--pwfile="+pwfile, "-D", data)
		if err == nil {
			return nil
		}
		if !strings.Contains(out, "invalid locale") {
			return fmt.Errorf("initdb: %w", explain(out, err))
		}
	}
	return errors.New("initdb: the system has neither the locale C.UTF-8 nor C")
}

// includeOurs makes postgresql.conf read our settings last.
func (s *Server) includeOurs(data string) error {
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "\n# Written anew at every start; what stands above is overruled by it.\ninclude '%s'\n", ourSettings)
	return errors.Join(err, f.Sync(), f.Close())
}

func (s *Server) passwordPath() string { return s.cfg.Dir + ".password" }

// keepPassword reads the password file, or makes it: 0600 and ours, so nobody else on this machine
// gets in.
func keepPassword(path string) (string, error) {
	if password, err := readHead(path, 1024); err == nil && password != "" {
		return password, nil
	}
	password := newPassword()
	if err := replaceFile(path, password+"\n", osUser{}); err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	return password, nil
}

// replaceFile writes a file 0600 whole or not at all, for an owner.
func replaceFile(path, text string, owner osUser) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // in vain once it is renamed
	_, err = io.WriteString(f, text)
	if err := errors.Join(err, owner.own(f.Name()), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// readHead reads a small file, up to a limit in bytes, without the white space around it.
func readHead(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, limit))
	return strings.TrimSpace(string(text)), err
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

var errLocked = errors.New("locked by another process")

// lockFile takes a lock that the kernel gives back when we die.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
