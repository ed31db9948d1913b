package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopPatience is how long a child may take to stop before it is killed.
const stopPatience = 20 * time.Second

// child is a program that a benchmark starts and stops.
type child struct {
	cmd  *exec.Cmd
	name string
	log  string // file with its output
	done chan struct{}
	err  error // how it ended, once done
}

// startChild starts a program in a process group of its own, so that Ctrl-C at the terminal
// reaches it through us alone, in order.
func startChild(name, log, path string, args ...string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c := &child{cmd: exec.Command(path, args...), name: name, log: log, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// until polls for what the child is to bring about; an error when it ended, or did not in time.
func (c *child) until(ctx context.Context, patience time.Duration, there func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !there() {
		select {
		case <-c.done:
			return fmt.Errorf("%s ended at its start (%v); the end of its log:\n%s", c.name, c.err, c.tail())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%s was not ready after %v; the end of its log:\n%s", c.name, patience, c.tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func (c *child) tail() []byte {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(text[max(0, len(text)-2000):])
}

// stop sends SIGTERM to pid (the child, or the one of its children that minds the rest), waits
// for the child's end and returns; it kills the child when that takes too long.
func (c *child) stop(pid int) {
	select {
	case <-c.done: // its pid may be somebody else's by now
		return
	default:
	}
	syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(stopPatience):
		syscall.Kill(pid, syscall.SIGKILL)
		c.cmd.Process.Kill()
		<-c.done
	}
}
