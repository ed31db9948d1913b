package sandbox

import (
	"embed"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

//go:embed web/index.html web/app.js web/style.css
var web embed.FS

const (
	// The page uses what the inbox serves and nothing else.
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// The HTML of a mail may show pictures and styles; it may run nothing, and has an origin of its own.
	mailPolicy = "default-src 'none'; img-src http: https: data:; style-src 'unsafe-inline' http: https:; font-src http: https: data:; " +
		"form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)

func newHTTPServer(cfg Config, box *inbox) *http.Server {
	a := &api{inbox: box}
	mux := http.NewServeMux()
	a.routes(mux)
	mux.HandleFunc("GET /view/{id}", a.one(a.view))
	for path, name := range map[string]string{"/{$}": "web/index.html", "/app.js": "web/app.js", "/style.css": "web/style.css"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, web, name) })
	}
	own, _, _ := net.SplitHostPort(cfg.Inbox)
	return &http.Server{
		Handler:           guard(own, http.NewCrossOriginProtection().Handler(mux)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(peerLog{cfg.Log}, "", 0),
	}
}

// guard refuses names that a stranger's page could have pointed at this address (DNS rebinding), and sets
// what browsers are to hold to. Programs on other machines use an address or a name without dots.
func guard(own string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !trusted(r.Host, own) {
			http.Error(w, "open the inbox by its IP address or as localhost", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func trusted(hostport, own string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") || host == strings.ToLower(own)
}

// view is the HTML of a mail for the page's frame, with its inline pictures in place. Links open in a new tab.
func (a *api) view(w http.ResponseWriter, _ *http.Request, m *letter) {
	c := m.content()
	var replace []string
	for _, part := range c.inline {
		if part.ContentID != "" {
			replace = append(replace, "cid:"+part.ContentID, "/api/v1/message/"+m.id+"/part/"+part.PartID)
		}
	}
	w.Header().Set("Content-Security-Policy", mailPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = strings.NewReplacer(replace...).WriteString(w, c.html)
	w.Write([]byte(`<base target="_blank">`))
}
