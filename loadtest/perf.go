package loadtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// perfPatience is how long perf may take to begin and to end.
const perfPatience = 10 * time.Second

// perf is a running `perf stat` on the system's processes and the children they make.
type perf struct {
	cmd     *exec.Cmd
	output  bytes.Buffer
	control *os.File // commands to perf
	ack     *os.File // its answers
	done    chan error
}

type perfCounts struct{ fsyncs, syscalls int64 }

// startPerf returns when perf counts. It counts until stop, in a process group of its own: Ctrl-C
// at the terminal must not end it before it has told.
func startPerf(pids []int) (*perf, error) {
	path, err := exec.LookPath("perf")
	if err != nil {
		return nil, errors.New("perf is not installed (Debian: apt install linux-perf)")
	}
	words := make([]string, len(pids))
	for i, pid := range pids {
		words[i] = strconv.Itoa(pid)
	}
	p := &perf{done: make(chan error, 1)}
	p.cmd = exec.Command(path, "stat", "-x;", "--delay=-1", "--control=fd:3,4", "-p", strings.Join(words, ","),
		"-e", "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync,raw_syscalls:sys_enter")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = &p.output
	if err := p.launch(); err != nil {
		return nil, err
	}
	if err := p.tell("enable"); err != nil {
		p.cmd.Process.Kill()
		<-p.done
		p.hangUp()
		why, _, _ := strings.Cut(strings.TrimSpace(p.output.String()), "\n")
		return nil, fmt.Errorf("perf does not start here: %s", why)
	}
	return p, nil
}

func (p *perf) launch() error {
	theirs, control, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	ack, answers, err := os.Pipe()
	if err != nil {
		control.Close()
		return err
	}
	defer answers.Close()
	p.control, p.ack = control, ack
	p.cmd.ExtraFiles = []*os.File{theirs, answers}
	if err := p.cmd.Start(); err != nil {
		p.hangUp()
		return err
	}
	go func() { p.done <- p.cmd.Wait() }()
	return nil
}

// tell gives a command and waits for the acknowledgement.
func (p *perf) tell(command string) error {
	if _, err := p.control.WriteString(command + "\n"); err != nil {
		return err
	}
	if err := p.ack.SetReadDeadline(time.Now().Add(perfPatience)); err != nil {
		return err
	}
	_, err := p.ack.Read(make([]byte, 16))
	return err
}

func (p *perf) hangUp() { p.control.Close(); p.ack.Close() }

func (p *perf) stop() (perfCounts, error) {
	defer p.hangUp()
	told := p.tell("disable")
	p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done: // it reports the signal; what counts is its output
	case <-time.After(perfPatience):
		p.cmd.Process.Kill()
		<-p.done
		return perfCounts{}, errors.New("perf did not end")
	}
	if told != nil {
		return perfCounts{}, fmt.Errorf("perf did not stop counting: %w", told)
	}
	return parsePerf(p.output.String())
}

// parsePerf reads lines of "value;unit;event;…".
func parsePerf(text string) (perfCounts, error) {
	var c perfCounts
	found := 0
	for line := range strings.Lines(text) {
		f := strings.Split(line, ";")
		if len(f) < 3 {
			continue
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return c, fmt.Errorf("perf says %s for %s", f[0], f[2])
		}
		found++
		if strings.HasPrefix(f[2], "raw_syscalls") {
			c.syscalls += n
		} else {
			c.fsyncs += n
		}
	}
	if found != 3 {
		return c, fmt.Errorf("perf gave %d of 3 counts", found)
	}
	return c, nil
}
