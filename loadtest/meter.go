package loadtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Meter says which processes are the system under test. The zero Meter measures nothing.
type Meter struct {
	PIDs   []int  // roots of process trees; a tree that is asked for must be there at the start
	CGroup string // a cgroup v2 folder, read instead of the trees
	Count  bool   // count fsyncs and system calls with perf, which slows each system call a little
}

// Usage is what the system used during a run.
type Usage struct {
	CPU      *time.Duration // user and kernel, all processes; nil when not known
	FSyncs   *int64         // fsync and fdatasync calls
	Syscalls *int64
	Own      time.Duration // CPU of this process: the load, and the sink when it runs here
	Notes    []string      // why something is not known
}

// measurement is a Meter at work.
type measurement struct {
	meter  Meter
	before time.Duration
	own    time.Duration
	perf   *perf
	notes  []string
}

func (m Meter) start() (*measurement, error) {
	x := &measurement{meter: m}
	if m.measures() {
		before, err := m.cpu()
		if err != nil {
			return nil, fmt.Errorf("read the CPU time of the system: %w", err)
		}
		x.before = before
		if m.Count {
			if x.perf, err = startPerf(m.processes()); err != nil {
				x.notes = append(x.notes, "fsyncs and system calls are not counted: "+err.Error())
			}
			if x.before, err = m.cpu(); err != nil {
				return nil, err
			}
		}
	}
	x.own = ownCPU()
	return x, nil
}

func (x *measurement) stop() Usage {
	u := Usage{Own: ownCPU() - x.own, Notes: x.notes}
	if !x.meter.measures() {
		return u
	}
	if after, err := x.meter.cpu(); err != nil {
		u.Notes = append(u.Notes, "CPU is not known: "+err.Error())
	} else {
		used := after - x.before
		u.CPU = &used
	}
	if x.perf != nil {
		counts, err := x.perf.stop()
		if err != nil {
			u.Notes = append(u.Notes, "fsyncs and system calls are not known: "+err.Error())
		} else {
			u.FSyncs, u.Syscalls = &counts.fsyncs, &counts.syscalls
		}
	}
	return u
}

func (m Meter) measures() bool { return m.CGroup != "" || len(m.PIDs) > 0 }

func (m Meter) cpu() (time.Duration, error) {
	if m.CGroup != "" {
		return cgroupCPU(m.CGroup)
	}
	all, err := processTable()
	if err != nil {
		return 0, err
	}
	for _, pid := range m.PIDs {
		if _, ok := all[pid]; !ok {
			return 0, fmt.Errorf("there is no process %d", pid)
		}
	}
	var sum time.Duration
	for _, pid := range descendants(all, m.PIDs) {
		sum += all[pid].cpu(pid)
	}
	return sum, nil
}

// processes lists the system's processes, for perf.
func (m Meter) processes() []int {
	if m.CGroup != "" {
		var pids []int
		text, _ := os.ReadFile(filepath.Join(m.CGroup, "cgroup.procs"))
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	all, err := processTable()
	if err != nil {
		return nil
	}
	return descendants(all, m.PIDs)
}

func cgroupCPU(dir string) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	for i, f := range fields[:max(0, len(fields)-1)] {
		if f == "usage_usec" {
			us, err := strconv.ParseInt(fields[i+1], 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec: is it a cgroup v2 folder?", dir)
}

// process is a line of /proc/PID/stat (proc_pid_stat(5)).
//
// The sum of own and children over all processes of a tree never loses anything: what a child
// used goes over into its parent's children when it ends. So the difference of two sums is what
// was used in between, also by processes that came and went.
type process struct {
	parent   int
	own      time.Duration // user and kernel time of all its threads, in steps of 10 ms
	children time.Duration // of the children that ended, and theirs
}

func (p process) cpu(pid int) time.Duration {
	if exact, err := processClock(pid); err == nil {
		return exact + p.children
	}
	return p.own + p.children
}

func processTable() (map[int]process, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err == nil && len(names) == 0 {
		err = errors.New("there is no /proc; CPU time is read on Linux only")
	}
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(names))
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil { // it ended meanwhile
			continue
		}
		pid, err := strconv.Atoi(strings.Split(name, "/")[2])
		if err != nil {
			continue
		}
		if p, err := parseStat(text); err == nil {
			all[pid] = p
		}
	}
	return all, nil
}

func parseStat(text []byte) (process, error) {
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // the name may hold anything
	if len(f) < 15 {
		return process{}, errors.New("too short")
	}
	var n [5]int64 // ppid, then utime, stime, cutime and cstime, fields 14 to 17 of the line
	for i, at := range []int{1, 11, 12, 13, 14} {
		v, err := strconv.ParseInt(f[at], 10, 64)
		if err != nil {
			return process{}, err
		}
		n[i] = v
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	return process{parent: int(n[0]), own: time.Duration(n[1]+n[2]) * tick, children: time.Duration(n[3]+n[4]) * tick}, nil
}

// descendants lists the roots and all their children's children, each once.
func descendants(all map[int]process, roots []int) []int {
	children := map[int][]int{}
	for pid, p := range all {
		children[p.parent] = append(children[p.parent], pid)
	}
	seen := map[int]bool{}
	var list []int
	var walk func(pid int)
	walk = func(pid int) {
		if _, alive := all[pid]; !alive || seen[pid] {
			return
		}
		seen[pid] = true
		list = append(list, pid)
		for _, c := range children[pid] {
			walk(c)
		}
	}
	for _, pid := range roots {
		walk(pid)
	}
	return list
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
