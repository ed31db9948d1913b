// Package localpg finds or fetches PostgreSQL binaries and runs servers with them on loopback, so
// that the whole system can be tried on a machine with nothing installed. It works as an ordinary
// user and as root; as root the servers run as an unprivileged user, because Postgres refuses root.
//
// A server keeps its data in one folder, and beside it DIR.password (of the superuser "postgres"),
// DIR.log and DIR.log.1 (what the server says, 10 MB each) and DIR.lock (held while it is in use).
//
// Servers do not outlive their parent: on Linux the kernel sends them a fast shutdown when it dies,
// however it dies. Fast rather than immediate, because the checkpoint it writes costs a second or
// two that nobody waits for, and spares the next start a crash recovery. What still runs at the
// next start on the same folder is stopped first.
package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Limits of a start and a stop.
const (
	startLimit  = 10 * time.Minute // crash recovery included; a nearer deadline of the caller's counts
	defaultStop = 5 * time.Second
)

// Config says which server to start.
type Config struct {
	Name     string            // in log lines, errors and the process list; "postgres" when empty
	Dir      string            // data folder, made at the first start
	Binaries Binaries          // from Find
	Port     int               // 0: the one of the last start if it is free, otherwise any free one
	Settings map[string]string // of postgresql.conf; see DefaultSettings
	Log      *zap.Logger       // nil for none
	Stop     time.Duration     // how long a fast shutdown may take before it becomes an immediate one; 0 for 5 s
}

// Server is a running Postgres. Its methods may be called from several goroutines.
type Server struct {
	cfg      Config
	user     osUser
	password string
	port     int
	lock     *os.File
	stopped  chan struct{} // closed by Stop

	mu   sync.Mutex // guards proc, and that none is begun after stopped
	proc *process
}

var (
	errStopped = errors.New("the server was stopped")
	errPort    = errors.New("its port is taken by another program: stop that one, or choose another port")
)

// Start makes the data folder if there is none, stops what an earlier run left in it, starts the
// server and waits until it answers, through crash recovery too, for as long as ctx allows and at
// most ten minutes. An *UnreachableError says that the folder or the binaries lie where the
// unprivileged user cannot go; every other error is one line that says what is wrong.
func Start(ctx context.Context, c Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if c.Name == "" {
		c.Name = "postgres"
	}
	s, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("postgres %s: %w", c.Name, err)
	}
	if err := s.start(ctx); err != nil {
		if left := s.Stop(context.Background()); left != nil {
			err = fmt.Errorf("%w; then %w", err, left)
		}
		return nil, fmt.Errorf("postgres %s: %w", c.Name, err)
	}
	return s, nil
}

// open completes the configuration and takes the folder for this process alone.
func open(c Config) (*Server, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Stop <= 0 {
		c.Stop = defaultStop
	}
	c.Log = c.Log.With(zap.String("server", c.Name))
	if c.Dir == "" {
		return nil, errors.New("no data folder was given")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	s := &Server{cfg: c, stopped: make(chan struct{})}
	if s.user, err = userFor(dir); err != nil {
		return nil, err
	}
	if err := s.user.reach(dir); err != nil {
		return nil, err
	}
	if err := s.user.reach(filepath.Join(c.Binaries.Dir, "postgres")); err != nil {
		return nil, err
	}
	if err := makeFolders(filepath.Dir(dir), s.user.parentMode()); err != nil {
		return nil, err
	}
	if s.lock, err = lockFile(dir + ".lock"); errors.Is(err, errLocked) {
		return nil, fmt.Errorf("data folder %s is in use by another process: stop that one first", dir)
	}
	return s, err
}

func (s *Server) start(ctx context.Context) error {
	if err := s.prepareFolder(ctx); err != nil {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	s.port = s.cfg.Port
	if s.port == 0 {
		s.port = rememberedPort(s.cfg.Dir)
	}
	for try := 0; ; try++ {
		if s.port == 0 || !portFree(s.port) && s.cfg.Port == 0 {
			s.port = freePort()
		}
		err := s.startOnPort(ctx)
		if !errors.Is(err, errPort) || s.cfg.Port != 0 || try == 2 {
			return err
		}
	}
}

func (s *Server) startOnPort(ctx context.Context) error {
	if !portFree(s.port) {
		return fmt.Errorf("127.0.0.1:%d: %w", s.port, errPort)
	}
	if err := s.applySettings(ctx); err != nil {
		return err
	}
	return s.launch(ctx)
}

// DSN is the address of a database as superuser. It holds the password: do not log it.
func (s *Server) DSN(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// PID is the process id of the postmaster: the last one's, while none runs; 0 if none ever did.
func (s *Server) PID() int {
	if p := s.current(); p != nil {
		return p.pid
	}
	return 0
}

func (s *Server) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// newPassword is 130 random bits in letters and digits, so it needs no quoting anywhere.
func newPassword() string { return rand.Text() }
