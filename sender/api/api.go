// Package api serves HTTP: Mandrill's API under /api, which reads requests leniently, as the SDKs in use need, and
// speaks Mandrill's words; and our own under /v1, which names what it does not know and speaks ours. Both read bodies
// under the same limits, know the same keys and scopes, and come through the same door.
package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/domains"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// Config is what the API needs.
type Config struct {
	Shards  *shards.Shards
	Store   *store.Store
	Door    *accept.Door
	Domains *domains.Domains
	Log     *zap.Logger
	Ready   func() error                     // nil when a send can be accepted
	Track   http.Handler                     // answers under /u/, for links in mail; may be nil
	Warn    func() []string                  // a line for each thing that is degraded though sends are accepted; may be nil
	At      func(shard string, at time.Time) // says that a message was moved to a time

	Addresses func() []Address // that mail is sent from, in the order of the configuration; may be nil, for none
	Resolver  *net.Resolver    // for the names of addresses; nil for the system's
}

// The limits of a request.
const (
	maxBody       = 25 << 20  // bytes
	maxBodiesHeld = 128 << 20 // bytes of bodies beyond their first smallBody, in all requests; work multiplies it by five
	smallBody     = 64 << 10  // bytes
	bodyWait      = 4 * time.Second
	headerTimeout = 10 * time.Second
	readTimeout   = 60 * time.Second // of a whole request: a byte a second ends here
	writeTimeout  = 120 * time.Second
	idleTimeout   = 120 * time.Second
	drainTimeout  = 3 * time.Second
)

// API is the HTTP door.
type API struct {
	cfg    Config
	bodies *semaphore.Weighted
	server *http.Server
	began  time.Time
}

// call is one authenticated request.
type call struct {
	key    shards.Key
	id     string // in the path, under /v1
	body   object
	raw    []byte
	header http.Header
}

type handler func(ctx context.Context, c *call) (any, error)

// method is an API call and the scopes that may use it.
type method struct {
	do     handler
	scopes []shards.Scope // besides full
}

// New makes the API; Run serves it.
func New(cfg Config) *API {
	a := &API{cfg: cfg, bodies: semaphore.NewWeighted(maxBodiesHeld), began: time.Now()}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if !c.Response().Committed {
			_ = a.fail(c, routeError(c, err))
		}
	}
	e.GET("/healthz", func(c echo.Context) error { return c.String(http.StatusOK, "ok\n") })
	e.GET("/readyz", a.ready)
	e.GET("/openapi.json", serveOpenAPI)
	if cfg.Track != nil {
		e.Any("/u/*", echo.WrapHandler(cfg.Track))
	}
	e.GET(domains.MailboxPath+":token", a.askDomain)
	e.POST(domains.MailboxPath+":token", a.confirmDomain)
	methods := a.methods()
	for _, version := range []string{"1.0", "1.1", "1.2", "1.3", "1.4"} {
		for name, m := range methods {
			h := a.serve(m)
			e.POST("/api/"+version+"/"+name, h)
			e.POST("/api/"+version+"/"+name+".json", h)
		}
	}
	e.GET(problemPath+":name", explain)
	for _, r := range a.routes() {
		e.Add(r.verb, r.path, a.serveOurs(r.method))
	}
	a.server = &http.Server{Handler: tidyPath(crossOrigin(e)), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10, ErrorLog: zap.NewStdLog(cfg.Log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel)))}
	return a
}

// Run serves on a listener until ctx ends, and then what had been begun, for drainTimeout at most.
func (a *API) Run(ctx context.Context, l net.Listener) error {
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if a.server.Shutdown(limit) != nil {
			_ = a.server.Close()
		}
	})
	err := a.server.Serve(l)
	if !stop() { // Serve returns at once, Shutdown when all is answered
		<-drained
		return nil
	}
	return err
}

func (a *API) methods() map[string]method {
	send := []shards.Scope{shards.ScopeSend}
	read := []shards.Scope{shards.ScopeRead}
	both := []shards.Scope{shards.ScopeSend, shards.ScopeRead, shards.ScopeTest}
	return map[string]method{
		"users/ping":       {a.ping, both},
		"users/ping2":      {a.ping2, both},
		"users/info":       {a.usersInfo, read},
		"messages/send":    {a.send, send},
		"messages/info":    {a.info, read},
		"messages/content": {a.content, read},
		"messages/search":  {a.search, read},

		"messages/list-scheduled":   {a.listScheduled, read},
		"messages/cancel-scheduled": {a.cancelScheduled, nil},
		"messages/reschedule":       {a.reschedule, nil},

		"senders/domains":       {a.sendersDomains, read},
		"senders/add-domain":    {a.addDomain, nil},
		"senders/check-domain":  {a.checkDomain, nil},
		"senders/verify-domain": {a.verifyDomain, nil},

		"rejects/add":       {a.rejectsAdd, nil},
		"rejects/list":      {a.rejectsList, read},
		"rejects/delete":    {a.rejectsDelete, nil},
		"allowlists/add":    {a.allowlistsAdd, nil},
		"allowlists/list":   {a.allowlistsList, read},
		"allowlists/delete": {a.allowlistsDelete, nil},
		"whitelists/add":    {a.allowlistsAdd, nil}, // their older names
		"whitelists/list":   {a.allowlistsList, read},
		"whitelists/delete": {a.allowlistsDelete, nil},

		"ips/list":             {a.ipsList, read},
		"ips/info":             {a.ipsInfo, read},
		"ips/list-pools":       {a.ipsPools, read},
		"ips/pool-info":        {a.ipsPool, read},
		"ips/check-custom-dns": {a.ipsCheckDNS, read},
		"ips/provision":        {a.ipsChange, nil},
		"ips/start-warmup":     {a.ipsChangeIP, nil},
		"ips/cancel-warmup":    {a.ipsChangeIP, nil},
		"ips/set-pool":         {a.ipsChangeIP, nil},
		"ips/set-custom-dns":   {a.ipsChangeIP, nil},
		"ips/delete":           {a.ipsChangeIP, nil},
		"ips/create-pool":      {a.ipsCreatePool, nil},
		"ips/delete-pool":      {a.ipsDeletePool, nil},
	}
}

// tidyPath makes doubled and trailing slashes single and none: clients join base and path in both ways, and an
// http.ServeMux-like redirect would turn their POST into a GET.
func tidyPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		for strings.Contains(p, "//") {
			p = strings.ReplaceAll(p, "//", "/")
		}
		if len(p) > 1 {
			p = strings.TrimSuffix(p, "/")
		}
		r.URL.Path, r.URL.RawPath = p, ""
		next.ServeHTTP(w, r)
	})
}

func routeError(c echo.Context, err error) error {
	var h *echo.HTTPError
	if !errors.As(err, &h) {
		return err
	}
	switch h.Code {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		r := c.Request()
		message := "Unknown method \"" + r.URL.Path + "\""
		switch {
		case ours(r):
			message = "there is no call " + r.Method + " " + r.URL.Path + ": /openapi.json describes all there are"
		case r.Method != http.MethodPost:
			message = "API calls are made by POST with a JSON body; this was " + r.Method
		}
		return &sender.Error{Kind: sender.KindUnknownMethod, Message: message}
	}
	return err
}

// ready is for load balancers, which look at the status, and for people, who read what is degraded.
func (a *API) ready(c echo.Context) error {
	if err := a.cfg.Ready(); err != nil {
		return c.String(http.StatusServiceUnavailable, err.Error()+"\n")
	}
	lines := []string{"ready"}
	if a.cfg.Warn != nil {
		lines = append(lines, a.cfg.Warn()...)
	}
	return c.String(http.StatusOK, strings.Join(lines, "\n")+"\n")
}

// serve runs one call of Mandrill's API. The key stands in the body, so that is read before the caller is known.
func (a *API) serve(m method) echo.HandlerFunc {
	return func(c echo.Context) error {
		in, release, err := a.take(c.Request(), decode)
		defer release()
		if err != nil {
			return a.fail(c, err)
		}
		secret, err := bodyKey(in.body)
		if err != nil {
			return a.fail(c, err)
		}
		if in.key, err = a.authenticate(c.Request().Context(), secret, m); err != nil {
			return a.fail(c, err)
		}
		answer, err := m.do(c.Request().Context(), in)
		if err != nil {
			return a.fail(c, err)
		}
		return c.JSON(http.StatusOK, answer)
	}
}

func bodyKey(body object) (string, error) {
	secret, err := body.text("key")
	if err == nil && secret == "" {
		err = &sender.Error{Kind: sender.KindValidation, Message: "You must specify a key value"}
	}
	return secret, err
}

// authenticate finds the key and holds its scope against the call.
func (a *API) authenticate(ctx context.Context, secret string, m method) (shards.Key, error) {
	key, err := a.cfg.Shards.FindKey(ctx, secret)
	switch {
	case errors.Is(err, shards.ErrNoKey):
		return key, &sender.Error{Kind: sender.KindInvalidKey, Message: "Invalid API key"}
	case err != nil:
		return key, sender.Unavailable(err)
	}
	if key.Scope == shards.ScopeFull || slices.Contains(m.scopes, key.Scope) {
		return key, nil
	}
	return key, &sender.Error{Kind: sender.KindForbidden, Message: "this key's scope (" + string(key.Scope) + ") does not allow the call"}
}
