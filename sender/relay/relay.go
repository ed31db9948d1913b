// Package relay takes mail in over SMTP. For now it is the listener for what comes back: bounces and complaints
// that other hosts send to the return paths of our messages. go-smtp speaks the protocol; the guard in front of it
// covers what it leaves open.
package relay

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postrider/postrider/sender/bounce"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/store"
)

// Config is what the listener needs.
type Config struct {
	Hostname string
	Key      bounce.Key // of the return paths
	Store    *store.Store
	Ledger   *ledger.Ledger
	Log      *zap.Logger
	Metrics  prometheus.Registerer
}

// The limits of a session.
const (
	maxReport   = 10 << 20 // bytes; a bounce may carry the whole original
	maxParsed   = 512 << 10
	maxLine     = 4096 // bytes of a command or of a line of data
	maxRcpts    = 10
	idle        = 60 * time.Second
	session     = 3 * time.Minute // from connect to the end
	maxSessions = 200
	recorded    = 10 * time.Second // longest wait for the ledger
)

// Relay is the SMTP door.
type Relay struct {
	cfg     Config
	server  *smtp.Server
	reports *prometheus.CounterVec
}

// New makes the door; Run opens it.
func New(cfg Config) *Relay {
	r := &Relay{cfg: cfg, reports: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_reports_total",
		Help: "Mails to return paths by what they were."}, []string{"kind"})}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(r.reports)
	}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &reportSession{r: r}, nil }))
	s.Domain, s.MaxMessageBytes, s.MaxRecipients, s.MaxLineLength = cfg.Hostname, maxReport, maxRcpts, maxLine
	s.ReadTimeout, s.WriteTimeout, s.EnableSMTPUTF8 = idle, idle, true
	s.ErrorLog = zap.NewStdLog(cfg.Log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel)))
	r.server = s
	return r
}

// Run serves on a listener until ctx ends; a session under way then has a second.
func (r *Relay) Run(ctx context.Context, l net.Listener) error {
	g := newGuard(l, maxSessions, session)
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if r.server.Shutdown(limit) != nil {
			g.drop() // Close of a server that was shut down does nothing
		}
		_ = g.Close() // Shutdown does not know of a Serve that has only begun
	})
	err := r.server.Serve(g)
	if !stop() {
		<-drained
		return nil
	}
	return err
}

// reportSession takes mail for return paths only, and from the null sender only: that is what reports are sent
// from (RFC 5321 §4.5.5), and nothing that bounces may be answered by a bounce.
type reportSession struct {
	r     *Relay
	paths []bounce.ReturnPath
}

func (s *reportSession) Mail(from string, _ *smtp.MailOptions) error {
	if from != "" {
		return reply(550, 5, 7, 1, "This host takes reports from the null sender only")
	}
	return nil
}

func (s *reportSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	local, _, _ := strings.Cut(to, "@")
	p, err := s.r.cfg.Key.Decode(local)
	if err != nil {
		return reply(550, 5, 1, 1, "No such return path")
	}
	s.paths = append(s.paths, p)
	return nil
}

func (s *reportSession) Data(body io.Reader) error {
	raw, err := io.ReadAll(io.LimitReader(body, maxParsed)) // the report comes first, the original after it
	if err == nil {
		_, err = io.Copy(io.Discard, body)
	}
	if err != nil {
		return err
	}
	report := bounce.Parse(raw)
	for _, p := range s.paths {
		if err := s.r.take(p, report); err != nil {
			s.r.cfg.Log.Warn("report not recorded, its sender tries again", zap.Stringer("message", p.Message), zap.Error(err))
			return reply(451, 4, 3, 0, "Not stored now, try again")
		}
	}
	return nil
}

func (s *reportSession) Reset()        { s.paths = nil }
func (s *reportSession) Logout() error { return nil }

func reply(code, a, b, c int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{a, b, c}, Message: text}
}
