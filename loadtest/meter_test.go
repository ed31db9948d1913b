package loadtest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// startBurner starts a process that burns 150 ms and syncs once in a child at each call of step.
func startBurner(t *testing.T) (pid int, step func()) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	cmd := exec.Command(os.Args[0], "parent")
	cmd.Env = append(os.Environ(), "LOADTEST_PLAY=burner")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	return cmd.Process.Pid, func() {
		t.Helper()
		io.WriteString(in, "go\n")
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMeterSeesChildrenThatCameAndWent(t *testing.T) {
	pid, step := startBurner(t)
	step()                                                 // what ran before must not count
	x, err := Meter{PIDs: []int{pid, os.Getpid()}}.start() // the tree holds the first root: it counts once
	if err != nil {
		t.Fatal(err)
	}
	step()
	step()
	u := x.stop()
	if u.CPU == nil || *u.CPU < 290*time.Millisecond || *u.CPU > time.Second {
		t.Errorf("CPU %v of two children that burned 150 ms each", u.CPU)
	}
	if u.FSyncs != nil || len(u.Notes) != 0 {
		t.Error("counts what was not asked for")
	}
}

func TestMeterCountsCalls(t *testing.T) {
	pid, step := startBurner(t)
	x, err := Meter{PIDs: []int{pid}, Count: true}.start()
	if err != nil {
		t.Fatal(err)
	}
	if x.perf == nil {
		t.Skip(x.notes)
	}
	step()
	step()
	step()
	u := x.stop()
	if u.FSyncs == nil || *u.FSyncs != 3 || *u.Syscalls < 30 {
		t.Errorf("%v fsyncs, %v calls, %v", u.FSyncs, u.Syscalls, u.Notes)
	}
}

func TestMeterWithoutPerfSaysWhy(t *testing.T) {
	pid, _ := startBurner(t)
	for dir, want := range map[string]string{t.TempDir(): "apt install linux-perf", fakePerf(t): "perf does not start here: no permission"} {
		t.Setenv("PATH", dir)
		x, err := Meter{PIDs: []int{pid}, Count: true}.start()
		if err != nil {
			t.Fatal(err)
		}
		if u := x.stop(); u.CPU == nil || u.FSyncs != nil || len(u.Notes) != 1 || !strings.Contains(u.Notes[0], want) {
			t.Errorf("%+v", u)
		}
	}
}

func fakePerf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "perf"), []byte("#!/bin/sh\necho no permission >&2\nexit 255\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestParsePerf(t *testing.T) {
	c, err := parsePerf("1;;syscalls:sys_enter_fsync;9;100.00;;\n2;;syscalls:sys_enter_fdatasync;9;100.00;;\n40;;raw_syscalls:sys_enter;9;100.00;;\n")
	if err != nil || c.fsyncs != 3 || c.syscalls != 40 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"", "1;;syscalls:sys_enter_fsync;9\n", "<not counted>;;raw_syscalls:sys_enter;0\n"} {
		if _, err := parsePerf(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestParseStatWithAnOddName(t *testing.T) {
	p, err := parseStat([]byte("12 (a) (b c) S 7 12 12 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0"))
	if err != nil || p.parent != 7 || p.own != 300*time.Millisecond || p.children != 700*time.Millisecond {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := parseStat([]byte("12 (a) S 1")); err == nil {
		t.Error("a short line passes")
	}
}

func TestCGroupCPU(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "cpu.stat")
	if err := os.WriteFile(file, []byte("usage_usec 1500\nuser_usec 1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := cgroupCPU(dir); err != nil || d != 1500*time.Microsecond {
		t.Errorf("%v, %v", d, err)
	}
	if err := os.WriteFile(file, []byte("usage_usec"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cgroupCPU(dir); err == nil {
		t.Error("half a file passes")
	}
}
