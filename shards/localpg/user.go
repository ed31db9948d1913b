package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// osUser is the user of this machine that a server runs as.
type osUser struct {
	name     string
	uid, gid uint32
	drop     bool // we are root: children change to this user, without supplementary groups
}

// UnreachableError says that the unprivileged user that Postgres runs as cannot get to Path,
// because it may not pass through Folder. Put Path elsewhere, or let the user pass.
type UnreachableError struct {
	Path   string
	Folder string
	User   string
	Mode   fs.FileMode // of Folder
}

// Error is one line that says what to do.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s is out of reach for user %q, whom Postgres runs as because it refuses root: "+
		"%s has mode %#o; choose a folder elsewhere (such as one below /var/lib), or run: chmod o+x %s",
		e.Path, e.User, e.Folder, e.Mode.Perm(), e.Folder)
}

// Reachable says whether a server with this data folder could run: nil, an *UnreachableError, or
// why not otherwise. The folder need not exist.
func Reachable(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	u, err := userFor(dir)
	if err != nil {
		return err
	}
	return u.reach(dir)
}

// userFor chooses whom the server of a data folder runs as: ourselves, unless we are root; then the
// folder's owner, or for a new folder "postgres" or "nobody".
func userFor(dir string) (osUser, error) {
	owner, err := ownerOf(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return unprivileged()
	}
	if err != nil {
		return osUser{}, err
	}
	self := uint32(os.Geteuid()) //nolint:gosec // a uid is 32 bits
	switch {
	case self != 0 && owner.uid == self:
		return unprivileged()
	case self != 0:
		return osUser{}, fmt.Errorf("data folder %s belongs to user %q: run as that user, or choose another folder", dir, owner.name)
	case owner.uid == 0:
		return osUser{}, fmt.Errorf("data folder %s belongs to root, whom Postgres refuses: run chown -R postgres %s, or choose another folder", dir, dir)
	}
	owner.drop = true
	return owner, nil
}

// unprivileged is whom a new server runs as.
func unprivileged() (osUser, error) {
	if uid := os.Geteuid(); uid != 0 {
		return osUser{uid: uint32(uid), gid: uint32(os.Getegid())}, nil //nolint:gosec // ids are 32 bits
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := lookup(user.Lookup(name)); err == nil {
			return u, nil
		}
	}
	return osUser{}, errors.New(`there is no user "postgres" or "nobody" to run Postgres as, which refuses root: make one (useradd --system postgres)`)
}

func lookup(u *user.User, err error) (osUser, error) {
	if err != nil {
		return osUser{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return osUser{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return osUser{name: u.Username, uid: uint32(uid), gid: uint32(gid), drop: true}, err
}

// ownerOf says who owns a data folder: fs.ErrNotExist if there is none, or an empty one, which may
// have been made for us.
func ownerOf(dir string) (osUser, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return osUser{}, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		return osUser{}, fs.ErrNotExist
	}
	stat := info.Sys().(*syscall.Stat_t)
	owner := osUser{uid: stat.Uid, gid: stat.Gid, name: strconv.Itoa(int(stat.Uid))}
	if u, err := user.LookupId(owner.name); err == nil {
		owner.name = u.Username
	}
	return owner, nil
}

// reach holds the search bit of every folder above path against the user, along the path as it is
// written and along the one that its symbolic links lead to.
func (u osUser) reach(path string) error {
	if !u.drop {
		return nil // the kernel says it better, and at once
	}
	for _, way := range []string{path, resolved(path)} {
		for _, folder := range foldersAbove(way) {
			info, err := os.Stat(folder)
			if err != nil {
				break // from here on there is nothing yet
			}
			if !u.mayEnter(info) {
				return &UnreachableError{Path: path, Folder: folder, User: u.name, Mode: info.Mode()}
			}
		}
	}
	return nil
}

func (u osUser) mayEnter(info fs.FileInfo) bool {
	stat := info.Sys().(*syscall.Stat_t)
	switch {
	case stat.Uid == u.uid:
		return info.Mode()&0o100 != 0
	case stat.Gid == u.gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}

// foldersAbove lists the parents of an absolute path, outermost first.
func foldersAbove(path string) []string {
	var all []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		all = append(all, dir)
		if dir == filepath.Dir(dir) {
			slices.Reverse(all)
			return all
		}
	}
}

// resolved follows the symbolic links of as much of a path as exists.
func resolved(path string) string {
	for _, folder := range slices.Backward(append(foldersAbove(path), path)) {
		if real, err := filepath.EvalSymlinks(folder); err == nil {
			return filepath.Join(real, strings.TrimPrefix(path, folder))
		}
	}
	return path
}

// parentMode is for folders made above the data folder: the server's user must pass through.
func (u osUser) parentMode() fs.FileMode {
	if u.drop {
		return 0o711
	}
	return 0o700
}

// makeFolders makes what is missing of a path, with this mode whatever the umask says.
func makeFolders(path string, mode fs.FileMode) error {
	for _, folder := range append(foldersAbove(path), path) {
		err := os.Mkdir(folder, mode)
		if err == nil {
			err = os.Chmod(folder, mode)
		}
		if info, there := os.Stat(folder); err != nil && (there != nil || !info.IsDir()) {
			return err
		}
	}
	return nil
}

// own gives a file or folder to the server's user.
func (u osUser) own(path string) error {
	if !u.drop {
		return nil
	}
	return os.Lchown(path, int(u.uid), int(u.gid))
}

// dress makes a command run as the user, away from our terminal, folder and environment, and has
// the kernel send it a signal if we die.
func (u osUser) dress(cmd *exec.Cmd, death syscall.Signal) {
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"} // no PG… of ours; TZ spares initdb a search
	cmd.SysProcAttr = childAttributes(death)
	if u.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.uid, Gid: u.gid}
	}
}
