// Package track is what the recipients of mail reach: links with signed tokens, and the handler behind them. For now
// a link takes its recipient off the sender's list (RFC 8058). The handler knows nobody: no cookie, no key, no redirect.
package track

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
)

// OptOut is a recipient's word that he wants no more mail.
type OptOut struct {
	Account int64
	Message sender.ID
	Email   string // the message's recipient
	At      time.Time
}

// Config is what the tracker needs.
type Config struct {
	Keys *Keys
	// Recipient is the address that a message was sent to; ErrGone if the message is not kept any more.
	Recipient func(ctx context.Context, account int64, id sender.ID) (string, error)
	// Record has the ledger enter an opt-out and calls done once, with nil when it is durable. It may come again.
	Record  func(o OptOut, done func(error))
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// ErrGone says that a message is older than what is kept.
var ErrGone = errors.New("the message is not kept any more")

// The limits of a request. A busy mailbox provider sends many opt-outs from few addresses, so none is counted by
// where it comes from.
const (
	maxBody       = 4 << 10 // bytes; what is wanted takes 26, as multipart some 200
	bodyTimeout   = 5 * time.Second
	recordTimeout = 5 * time.Second // until an opt-out is durable
	maxRecording  = 256             // opt-outs on their way into the ledger
	headerTimeout = 10 * time.Second
	readTimeout   = 20 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 60 * time.Second
	drainTimeout  = 3 * time.Second
)

// Tracker serves the links.
type Tracker struct {
	cfg      Config
	places   chan struct{} // one for each opt-out on its way
	turns    turns
	requests *prometheus.CounterVec
	server   *http.Server
}

// New makes a tracker. It is an http.Handler for a server that is there; or Run serves it on a listener of its own.
func New(cfg Config) *Tracker {
	t := &Tracker{cfg: cfg, places: make(chan struct{}, maxRecording)}
	t.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_track_requests_total",
		Help: "Requests for links in mail, by how they were answered."}, []string{"answer"})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(t.requests)
	}
	t.server = &http.Server{Handler: t, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: 16 << 10, ErrorLog: zap.NewStdLog(cfg.Log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel)))}
	return t
}

// Run serves on a listener until ctx ends, and then what had been begun, for drainTimeout at most.
func (t *Tracker) Run(ctx context.Context, l net.Listener) error {
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if t.server.Shutdown(limit) != nil {
			_ = t.server.Close()
		}
	})
	err := t.server.Serve(l)
	if !stop() { // Serve returns at once, Shutdown when all is answered
		<-drained
		return nil
	}
	return err
}

// Link is where the page of a token stands below base, such as https://mail.example.com.
func Link(base, token string) string { return strings.TrimRight(base, "/") + linkPath + token }

const linkPath = "/u/"

// ServeHTTP answers for every path; what is no link of ours is 404, and is not redirected to where it might be meant.
func (t *Tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := t.answer(w, r)
	t.requests.WithLabelValues(answer.name).Inc()
	answer.write(w)
}

func (t *Tracker) answer(w http.ResponseWriter, r *http.Request) answer {
	text, ok := strings.CutPrefix(r.URL.Path, linkPath)
	if !ok {
		return noLink
	}
	token, err := t.cfg.Keys.Decode(text)
	if err != nil || token.Kind != Unsubscribe {
		return badToken
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return asked // and nothing else: programs that look for bad links open them all
	case http.MethodPost:
		return t.unsubscribe(w, r, token)
	}
	return wrongMethod
}
