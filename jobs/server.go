package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// ServerConfig is what an embedded server needs.
type ServerConfig struct {
	Dir    string // of its data, made if absent; one server at a time
	Listen string // host:port for other processes of the operator, port 0 for any; empty: this process only
	Token  string // that other processes must show; required with Listen
	Log    *zap.Logger
	// MaxDisk is how many bytes it may store; default 4 GiB, at least 4 MiB.
	MaxDisk int64
	// SyncInterval is how often written jobs are brought to disk: what a power cut may take. Default 250 ms.
	SyncInterval time.Duration
}

// Server is an embedded JetStream server. It mends itself: when its data folder is gone or a write has failed,
// which freezes a stream until the next start, it starts again.
type Server struct {
	cfg   ServerConfig
	log   *zap.Logger
	end   context.CancelFunc
	ended chan struct{}

	mu    sync.Mutex
	inner *server.Server // nil while it is down
	lock  *os.File
}

const (
	defaultDisk = 4 << 30
	minDisk     = 4 << 20
	startWithin = 30 * time.Second // recovering a large store reads all of it
	lookEvery   = time.Second
)

// StartServer starts a server on Dir, with what is already there. It handles no signals and ends with Stop.
func StartServer(cfg ServerConfig) (*Server, error) {
	cfg.MaxDisk = cmp.Or(cfg.MaxDisk, defaultDisk)
	cfg.SyncInterval = cmp.Or(cfg.SyncInterval, 250*time.Millisecond)
	s := &Server{cfg: cfg, log: cfg.Log, ended: make(chan struct{})}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	switch {
	case cfg.Dir == "":
		return nil, errors.New("start queue server: no data folder; set Dir")
	case cfg.Listen != "" && cfg.Token == "":
		return nil, errors.New("start queue server: it would listen to everybody; set a token or leave Listen empty")
	case cfg.MaxDisk < minDisk:
		return nil, fmt.Errorf("start queue server: %d bytes of disk are too few; allow 4 MiB at least", cfg.MaxDisk)
	}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("start queue server on %s: %w", cfg.Dir, err)
	}
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	go s.keep(ctx)
	return s, nil
}

// URL is where other processes connect, token included, so it must not be logged; empty without Listen.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Listen == "" {
		return ""
	}
	return (&url.URL{Scheme: "nats", User: url.User(s.cfg.Token), Host: s.cfg.Listen}).String()
}

// Stop writes what is in memory and ends the server, waiting for as long as ctx allows. Queues connected to it
// keep looking for it until they are closed.
func (s *Server) Stop(ctx context.Context) {
	s.end()
	down := make(chan struct{})
	go func() {
		<-s.ended
		s.mu.Lock()
		defer s.mu.Unlock()
		s.shutdown()
		close(down)
	}()
	select {
	case <-down:
	case <-ctx.Done():
		s.log.Warn("queue server still stopping; what it did not write is rung for again")
	}
}

// spare is left free on the disk: a server that has run it full must start over, and needs room for that.
const spare = 4 << 20

// room says whether the disk has any, as far as we can know: nil for a server that is not ours.
func (s *Server) room() error {
	if s == nil {
		return nil
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.Dir, &disk); err == nil && disk.Bavail*uint64(disk.Bsize) < spare {
		return fmt.Errorf("%w (the disk of %s is full)", ErrFull, s.cfg.Dir)
	}
	return nil
}

// start needs that nobody else uses s, or its lock.
func (s *Server) start() error {
	opts, err := s.options()
	if err != nil {
		return err
	}
	if err := s.own(); err != nil {
		return err
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		s.disown()
		return err
	}
	log := &serverLog{log: s.log.Named("nats").WithOptions(zap.AddCallerSkip(1))}
	ns.SetLoggerV2(log, false, false, false)
	ns.Start()
	if err := log.failure(); err != nil || !ns.ReadyForConnections(startWithin) {
		ns.Shutdown()
		ns.WaitForShutdown()
		s.disown()
		return cmp.Or(err, errSlow)
	}
	if a, ok := ns.Addr().(*net.TCPAddr); ok {
		host, _, _ := net.SplitHostPort(s.cfg.Listen) // as it was given: a name may be what a certificate or a firewall knows
		s.cfg.Listen = net.JoinHostPort(host, strconv.Itoa(a.Port))
	}
	s.inner = ns
	return nil
}

var errSlow = errors.New("not ready after 30 s; is the disk very slow?")

func (s *Server) options() (*server.Options, error) {
	opts := &server.Options{
		ServerName: "postrider", NoSigs: true, NoLog: true, NoSystemAccount: true, DontListen: s.cfg.Listen == "",
		Authorization: s.cfg.Token, MaxPayload: maxMessage, MaxConn: 1000,
		JetStream: true, StoreDir: s.cfg.Dir, SyncInterval: s.cfg.SyncInterval, DisableJetStreamBanner: true,
		JetStreamMaxStore: s.cfg.MaxDisk, JetStreamMaxMemory: 1 << 20, // no stream is kept in memory
	}
	if s.cfg.Listen == "" {
		return opts, nil
	}
	host, port, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address: %w", err)
	}
	if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port < 0 || opts.Port > 65535 {
		return nil, fmt.Errorf("listen address %s: the port must be a number from 0 to 65535", s.cfg.Listen)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	opts.Host = host
	return opts, nil
}

// own makes the folder ours: two servers on one folder would destroy each other's files.
func (s *Server) own() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("the folder is in use by another process; stop it or choose another folder (%w)", err)
	}
	s.lock = f
	return nil
}

func (s *Server) disown() {
	if s.lock != nil {
		s.lock.Close() // gives up the lock
		s.lock = nil
	}
}

func (s *Server) shutdown() {
	if s.inner != nil {
		s.inner.Shutdown()
		s.inner.WaitForShutdown()
		s.inner = nil
	}
	s.disown()
}

// keep looks after the server until ctx ends. It takes three bad looks in a row to start over, as one may fall
// into the making or the removal of a stream.
func (s *Server) keep(ctx context.Context) {
	defer close(s.ended)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for bad := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		why := s.trouble()
		if why == "" {
			bad = 0
			continue
		}
		if bad++; bad < 3 {
			continue
		}
		s.log.Warn("queue server starts over", zap.String("dir", s.cfg.Dir), zap.String("reason", why))
		if err := s.restart(); err != nil {
			s.log.Error("queue server does not start; jobs wait in their rows", zap.Error(err))
		}
		bad = 0
	}
}

func (s *Server) trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inner == nil {
		return "not running"
	}
	if _, err := os.Stat(filepath.Join(s.cfg.Dir, "jetstream")); errors.Is(err, fs.ErrNotExist) {
		return "its data folder is gone"
	}
	return s.inner.Healthz(nil).Error
}

func (s *Server) restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shutdown()
	return s.start()
}

// flush brings the whole folder to disk. The server itself writes the description of a new stream without
// waiting for the disk, and a power cut in the next half minute would take the stream with it.
func (s *Server) flush() error {
	return filepath.WalkDir(s.cfg.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		f, err := os.Open(path)
		if err != nil {
			return ignoreGone(err)
		}
		defer f.Close()
		return f.Sync()
	})
}

// ignoreGone lets a file vanish during the walk: the server writes to temporary ones and renames them.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inProcess lets clients reach whatever server runs at the moment, without a socket.
type inProcess struct{ s *Server }

func (p inProcess) InProcessConn() (net.Conn, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.s.inner == nil {
		return nil, errAway
	}
	return p.s.inner.InProcessConn()
}

// serverLog is the server's log lines: notices at debug, warnings and errors as warnings. What the server calls
// fatal makes its start fail instead of ending the process.
type serverLog struct {
	log   *zap.Logger
	mu    sync.Mutex
	fatal string
}

func (l *serverLog) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == "" {
		return nil
	}
	return errors.New(l.fatal)
}

func (l *serverLog) line(format string, v []any) zap.Field {
	return zap.String("line", fmt.Sprintf(format, v...))
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("queue server", l.line(format, v))
}

func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("queue server", l.line(format, v))
}

func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Warn("queue server", l.line(format, v))
}

func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fatal = cmp.Or(l.fatal, fmt.Sprintf(format, v...))
}
