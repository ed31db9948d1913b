package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	poll         = 10 * time.Millisecond // between looks at the pid file and the process list
	slowStart    = 5 * time.Second       // from here on a start is worth a log line
	firstPause   = 100 * time.Millisecond
	longestPause = 4 * time.Second // between tries to start again: well under the 10 s that are promised
	logInterval  = time.Minute     // between looks at the size of the log
)

// Run watches the server and starts it again whenever it ends by itself, until ctx ends or Stop is
// called; then it returns nil. A server that cannot start is tried again every few seconds, each
// failure logged with its reason. Run never stops the server: Stop does.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(logInterval)
	defer ticker.Stop()
	for {
		p := s.current()
		select {
		case <-ctx.Done():
			return nil
		case <-s.stopped:
			return nil
		case <-ticker.C:
			if err := trimLog(s.logPath()); err != nil {
				s.cfg.Log.Warn("postgres log could not be trimmed", zap.Error(err))
			}
		case <-p.done:
			select {
			case <-s.stopped: // both were ready: it ended because it was told to
				return nil
			default:
			}
			s.cfg.Log.Error("postgres ended by itself and is started again", zap.Int("pid", p.pid), zap.Error(s.reason(p)))
			s.revive(ctx)
		}
	}
}

// revive tries until the server runs, ctx ends or Stop is called.
func (s *Server) revive(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := s.clear(ctx)
		if err == nil {
			err = s.launch(ctx)
		}
		switch {
		case err == nil:
			s.cfg.Log.Info("postgres runs again", zap.Int("pid", s.PID()))
			return
		case ctx.Err() != nil, errors.Is(err, errStopped):
			return
		}
		s.cfg.Log.Error("postgres could not be started again", zap.Error(err))
		select {
		case <-ctx.Done():
			return
		case <-s.stopped:
			return
		case <-time.After(pause):
		}
	}
}

// launch begins the postmaster and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	p, err := s.begin()
	if err != nil {
		return err
	}
	slow := time.After(slowStart)
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not answer in time (it may be recovering from a crash; see %s): %w", s.logPath(), ctx.Err())
		case <-p.done:
			return s.reason(p)
		case <-slow:
			s.cfg.Log.Info("postgres takes its time, probably recovering from a crash", zap.String("log", s.logPath()))
		case <-ticker.C:
			if readPIDFile(s.cfg.Dir) == (pidFile{p.pid, "ready"}) {
				return nil
			}
		}
	}
}

// begin starts the postmaster, unless Stop was called.
func (s *Server) begin() (*process, error) {
	if err := trimLog(s.logPath()); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("server log: %w", err)
	}
	defer func() { _ = log.Close() }() // the server has its own handle
	info, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("server log: %w", err)
	}
	cmd := exec.Command(filepath.Join(s.cfg.Binaries.Dir, "postgres"), "-D", s.cfg.Dir)
	s.user.dress(cmd, syscall.SIGINT)
	cmd.Stdout, cmd.Stderr = log, log

	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopped:
		return nil, errStopped
	default:
	}
	p, err := spawn(cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p.logFrom = info.Size()
	s.proc = p
	return p, nil
}

// Stop shuts the server down: fast (SIGINT); after Config.Stop, or when ctx ends, immediate
// (SIGQUIT); two seconds later by SIGKILL, all its processes. None is left, whatever it returns
// short of "cannot be ended"; an error otherwise says that the next start will recover from a crash.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	select {
	case <-s.stopped:
		s.mu.Unlock()
		return nil
	default:
		close(s.stopped)
	}
	p := s.proc
	s.mu.Unlock()
	defer func() { _ = s.lock.Close() }()
	if p == nil {
		return nil
	}
	sig, err := end(ctx, s.cfg.Dir, p.pid, s.cfg.Stop)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(defaultStop):
		return fmt.Errorf("postgres %s (process %d) cannot be ended", s.cfg.Name, p.pid)
	}
	if sig == syscall.SIGQUIT || sig == syscall.SIGKILL {
		return fmt.Errorf("postgres %s did not shut down in time and was ended by %s: its next start recovers from that", s.cfg.Name, sig)
	}
	return nil
}

// clear stops the processes of an earlier run and removes a pid file that names none of them: the
// number may by now belong to a stranger, before whom Postgres would refuse to start.
func (s *Server) clear(ctx context.Context) error {
	if pids := processesOf(s.cfg.Dir); len(pids) > 0 {
		s.cfg.Log.Warn("stopping the postgres processes that an earlier run left", zap.Ints("pids", pids))
		if _, err := end(ctx, s.cfg.Dir, readPIDFile(s.cfg.Dir).pid, defaultStop); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(s.cfg.Dir, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// end stops the postmaster and everything else that works in dir, harder step by step, and returns
// the last signal that it took: 0 if nothing ran.
func end(ctx context.Context, dir string, postmaster int, grace time.Duration) (last syscall.Signal, err error) {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, grace}, {syscall.SIGQUIT, 2 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		pids := processesOf(dir)
		switch {
		case len(pids) == 0:
			return last, nil
		case step.signal == syscall.SIGKILL:
			ctx = context.Background() // nothing harder follows: give the kernel its time
		case slices.Contains(pids, postmaster):
			pids = []int{postmaster} // it tells its children
		case step.signal == syscall.SIGINT:
			continue // orphans: to them it means "cancel the query"
		}
		last = step.signal
		for _, pid := range pids {
			signalServer(pid, dir, step.signal)
		}
		if gone(ctx, dir, step.wait) {
			return last, nil
		}
	}
	return last, fmt.Errorf("the postgres processes %v of %s cannot be ended", processesOf(dir), dir)
}

// signalServer sends to a process of dir, and wakes it if it was stopped. The process is held by a
// handle before it is checked (a pidfd on Linux), so a reused number hits nobody.
func signalServer(pid int, dir string, sig syscall.Signal) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if !worksIn(pid, dir) {
		return
	}
	_ = p.Signal(sig) // it may have ended just now; end looks
	_ = p.Signal(syscall.SIGCONT)
}

func gone(ctx context.Context, dir string, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for pids := processesOf(dir); len(pids) > 0; {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
			pids = slices.DeleteFunc(pids, func(pid int) bool { return !worksIn(pid, dir) })
			if len(pids) == 0 { // those; the whole process list is dear to read
				pids = processesOf(dir)
			}
		}
	}
	return true
}

// pidFile is what a postmaster says of itself in its data folder.
type pidFile struct {
	pid    int
	status string // "starting", "stopping", "ready" or "standby"; empty early in a start
}

// readPIDFile reads postmaster.pid: the pid is its first line, the status its eighth
// (src/include/utils/pidfile.h). The zero value stands for a file that is not there.
func readPIDFile(dir string) pidFile {
	text, err := readHead(filepath.Join(dir, "postmaster.pid"), 4096)
	if err != nil {
		return pidFile{}
	}
	lines := strings.Split(text, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 { // single-user mode writes a negative one
		return pidFile{}
	}
	f := pidFile{pid: pid}
	if len(lines) > 7 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f
}
