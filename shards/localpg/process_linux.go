package localpg

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// childAttributes keep a child out of the terminal's process group (Ctrl-C is ours to pass on) and
// send it a signal when the thread that started it dies. Go asks for that signal after it has
// changed the user, so the change does not clear it.
func childAttributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
}

// processesOf lists the Postgres processes that work in a data folder: the postmaster and its
// children, orphans too. Zombies, who hold nothing any more, do not count.
func processesOf(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && worksIn(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// worksIn says whether a process is Postgres and its folder is dir. Every process of a server has
// the data folder as its working folder. Where /proc does not show that (root in a container
// without CAP_SYS_PTRACE), the command line still betrays the postmaster.
func worksIn(pid int, dir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil || string(comm) != "postgres\n" {
		return false
	}
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	if err == nil {
		data, err := os.Stat(dir)
		// A postmaster that has only begun is not there yet, so a difference proves nothing.
		if err == nil && os.SameFile(cwd, data) {
			return true
		}
	}
	command, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	return err == nil && slices.ContainsFunc(bytes.Split(command, []byte{0}), func(arg []byte) bool {
		return string(arg) == dir
	})
}
