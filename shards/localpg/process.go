package localpg

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child of ours. err may be read once done is closed.
type process struct {
	pid     int
	done    chan struct{}
	err     error // how it ended, as os/exec says it
	logFrom int64 // where in the server log its lines begin
}

// spawn starts a command on a thread that stays with it to its end: the signal that Linux sends a
// child when its parent dies is in truth tied to the parent's thread (prctl(2), PR_SET_PDEATHSIG),
// and a thread that Go retires would take a healthy server with it.
func spawn(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// run runs a short command as the server's user and returns the last 64 KB of what it said on
// both outputs. It dies with ctx, and with us.
func (u osUser) run(ctx context.Context, program string, args ...string) (string, error) {
	var out tail
	cmd := exec.CommandContext(ctx, program, args...)
	u.dress(cmd, syscall.SIGKILL)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second // for children of its own that hold the outputs
	p, err := spawn(cmd)
	if err != nil {
		return "", err
	}
	<-p.done
	if p.err != nil && ctx.Err() != nil {
		return out.kept.String(), fmt.Errorf("%w: %w", ctx.Err(), p.err)
	}
	return out.kept.String(), p.err
}

// tail keeps the last 64 KB of what is written to it.
type tail struct{ kept bytes.Buffer }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	n, err := t.kept.Write(p)
	if over := t.kept.Len() - 64<<10; over > 0 {
		t.kept.Next(over)
	}
	return n, err
}
