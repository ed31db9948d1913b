package track

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
)

// The one field of the body, and its value (RFC 8058 §3.1). The page's button sends the same.
const (
	oneClickField = "List-Unsubscribe"
	oneClickValue = "One-Click"
)

// unsubscribe takes a POST: from the page's button, or from a mailbox provider whose reader pressed its own.
func (t *Tracker) unsubscribe(w http.ResponseWriter, r *http.Request, token Token) answer {
	if bad := readBody(w, r); bad.status != 0 {
		return bad
	}
	if !t.turns.take(token.Message, time.Now()) {
		return tooOften
	}
	select {
	case t.places <- struct{}{}:
	default:
		return tryLater
	}
	// The place is given back when the fact is durable, not when we stop waiting: so the queue has a bound. Who hangs up
	// has still said what he wants.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordTimeout)
	defer cancel()
	email, err := t.cfg.Recipient(ctx, token.Account, token.Message)
	if err != nil {
		<-t.places
		if errors.Is(err, ErrGone) {
			return gone
		}
		t.cfg.Log.Warn("opt-out not recorded: its message cannot be read", zap.Stringer("message", token.Message), zap.Error(err))
		return tryLater
	}
	done := make(chan error, 1)
	t.cfg.Record(OptOut{Account: token.Account, Message: token.Message, Email: email, At: time.Now()}, func(err error) {
		<-t.places
		done <- err
	})
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		t.cfg.Log.Warn("opt-out not known to be durable", zap.Stringer("message", token.Message), zap.Error(err))
		return tryLater
	}
	return unsubscribed
}

// readBody holds the body against the one that is wanted, and gives no answer if it is that. The query does not count: it
// is in the link, which programs follow.
func readBody(w http.ResponseWriter, r *http.Request) answer {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // where a server cannot, its own holds
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &large):
		return tooLarge
	case errors.As(err, &slow) && slow.Timeout():
		return tooSlow
	case err != nil:
		return badBody
	}
	values, err := parseForm(r.Header.Get("Content-Type"), body)
	if v := values[oneClickField]; err != nil || len(v) != 1 || v[0] != oneClickValue {
		return badBody
	}
	return answer{}
}

var errForm = errors.New("is no form")

// parseForm reads a form of either kind that RFC 8058 §3.2 knows. Some providers do not say which it is.
func parseForm(contentType string, body []byte) (map[string][]string, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "", err == nil && kind == "application/x-www-form-urlencoded":
		return url.ParseQuery(string(body))
	case err == nil && kind == "multipart/form-data":
		form, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(maxBody)
		if err != nil {
			return nil, err
		}
		return form.Value, form.RemoveAll()
	}
	return nil, errForm
}

const (
	turnEvery = time.Second // between opt-outs by one token, in the long run
	turnBurst = 10
)

// turns keep one token from being used over and over: each has a place in a fixed table by its message, which
// it shares with one in a thousand others.
type turns struct {
	next [1024]atomic.Int64 // when the bucket would be full again, in ns of Unix time
}

// take counts an opt-out, unless there were too many in this place (the generic cell rate algorithm).
func (t *turns) take(id sender.ID, now time.Time) bool {
	place := &t.next[binary.BigEndian.Uint16(id[14:])%uint16(len(t.next))] // the end of an id is random, RFC 9562 §5.7
	for {
		was := place.Load()
		next := max(was, now.UnixNano()) + int64(turnEvery)
		if next > now.UnixNano()+turnBurst*int64(turnEvery) {
			return false
		}
		if place.CompareAndSwap(was, next) {
			return true
		}
	}
}
