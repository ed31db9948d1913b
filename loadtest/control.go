package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxWait bounds one call of /wait.
const maxWait = 10 * time.Minute

// ServeControl lets scripts ask the sink over HTTP, until ctx ends:
//
//	POST /reset               forget everything
//	GET  /stats               {"runs":[Arrived…],"other":n}
//	GET  /wait?n=N&timeout=S  200 and the same as /stats once N messages of the latest run (or of
//	                          &run=NAME) have arrived; 504 with the same after S seconds (default 30)
func (s *Sink) ServeControl(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		s.tally.reset()
		s.writeStats(w, http.StatusOK)
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { s.writeStats(w, http.StatusOK) })
	mux.HandleFunc("GET /wait", s.handleWait)
	server := &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: maxWait + time.Minute, MaxHeaderBytes: 8 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Sink) handleWait(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 1 {
		http.Error(w, "n must be a number above 0", http.StatusBadRequest)
		return
	}
	timeout := 30 * time.Second
	if text := r.FormValue("timeout"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 1 || seconds > int(maxWait.Seconds()) {
			http.Error(w, "timeout must be seconds from 1 to 600", http.StatusBadRequest)
			return
		}
		timeout = time.Duration(seconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	for s.arrived(r.FormValue("run")) < n {
		if !pause(ctx, 20*time.Millisecond) {
			s.writeStats(w, http.StatusGatewayTimeout)
			return
		}
	}
	s.writeStats(w, http.StatusOK)
}

// arrived counts the messages of the named run, or of the latest.
func (s *Sink) arrived(run string) int {
	runs, _ := s.tally.all()
	for i := len(runs) - 1; i >= 0; i-- {
		if run == "" || runs[i].run == run {
			return runs[i].count()
		}
	}
	return 0
}

func (s *Sink) writeStats(w http.ResponseWriter, status int) {
	runs, other := s.tally.all()
	stats := make([]Arrived, 0, len(runs))
	for _, a := range runs {
		stats = append(stats, a.stats())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"runs": stats, "other": other})
}
