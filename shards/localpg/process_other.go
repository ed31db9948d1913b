//go:build !linux

package localpg

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// childAttributes keep a child out of the terminal's process group. No signal tells it that we
// died: what is left is stopped at the next start.
func childAttributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// processesOf finds the postmaster of a data folder by its command line; its children follow it.
func processesOf(dir string) []int {
	out, err := exec.Command("ps", "-axww", "-o", "pid=,command=").Output()
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		number, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasSuffix(strings.TrimSpace(command), "/postgres -D "+dir) {
			continue
		}
		if pid, err := strconv.Atoi(number); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func worksIn(pid int, dir string) bool { return slices.Contains(processesOf(dir), pid) }
