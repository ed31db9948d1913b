package api

import (
	"net/http"
	"strings"
)

// crossOrigin lets programs in browsers call both APIs from any site, and read refusals as well as successes. No cookie
// counts here, only a key that the caller must know, so another site can do no more than anybody.
func crossOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/api/") && !ours(r) {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "Retry-After")
		if r.Method == http.MethodOptions { // the preflight: there is no other use of OPTIONS here
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "*, Authorization") // which "*" leaves out, by the Fetch standard
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
