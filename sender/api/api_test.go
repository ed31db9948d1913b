package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

func bare() *API { return New(Config{Log: zap.NewNop(), Ready: func() error { return nil }}) }

// TestErrorTable walks all kinds of error: each has a row, and each row is an answer that a client can tell from success.
func TestErrorTable(t *testing.T) {
	for k := sender.KindInternal; k <= sender.KindUnavailable; k++ {
		w, ok := errorTable[k]
		if !ok || w.status < 400 || w.status > 599 || w.code == 0 || w.name == "" || (w.status >= 500) != (k == sender.KindInternal || k == sender.KindUnavailable) {
			t.Errorf("kind %d: %+v", k, w)
		}
	}
	if n := int(sender.KindUnavailable); len(errorTable) != n {
		t.Errorf("%d rows for %d kinds", len(errorTable), n)
	}
}

func failed(err error) (*http.Response, errorBody) {
	rec := httptest.NewRecorder()
	c := echo.New().NewContext(httptest.NewRequest(http.MethodPost, "/", nil), rec)
	_ = bare().fail(c, err)
	var body errorBody
	_ = json.Unmarshal(rec.Body.Bytes(), &body)
	return rec.Result(), body
}

func TestFail(t *testing.T) {
	const secret = "password at 10.0.0.1"
	for _, err := range []error{errors.New(secret), &sender.Error{Kind: sender.KindInternal, Message: secret}, &sender.Error{Kind: 99, Message: secret}} {
		if res, body := failed(err); res.StatusCode != 500 || body.Status != "error" || body.Code != -100 || body.Name != "GeneralError" || strings.Contains(body.Message, secret) {
			t.Errorf("%v: %d %+v", err, res.StatusCode, body)
		}
	}
	res, body := failed(fmt.Errorf("accept: %w", sender.Unavailable(errors.New(secret))))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" || strings.Contains(body.Message, secret) {
		t.Errorf("unavailable: %d %v %+v", res.StatusCode, res.Header, body)
	}
	res, body = failed(sender.Invalid("message.to[0].email", `is "odd"`))
	if want := `Validation error: {"message.to[0].email":"is \"odd\""}`; res.StatusCode != 422 || body.Code != -2 || body.Message != want {
		t.Errorf("validation: %d %+v", res.StatusCode, body)
	}
	if _, body = failed(&sender.Error{Kind: sender.KindValidation, Message: "You must specify a key value"}); body.Message != "You must specify a key value" {
		t.Errorf("validation without a field: %+v", body)
	}
}

// TestNames has every state and event be called by a name of the Mandrill API.
func TestNames(t *testing.T) {
	for s := sender.Queued; s <= sender.Dead; s++ {
		name := wireMessage(&store.Found{Message: sender.Message{State: s}}).State
		if s.Name() == "unknown" {
			t.Errorf("state %d has no name under /v1", s)
		}
		if waits := s == sender.Queued || s == sender.Sending || s == sender.Deferred; waits != (name == "queued") || name == "" {
			t.Errorf("state %d is called %q", s, name)
		}
	}
	for k := sender.EventDelivered; k <= sender.EventUnsubscribed; k++ {
		if eventNames[k] == "" || k.Name() == "unknown" {
			t.Errorf("event %d has no name", k)
		}
	}
}

// TestWireMessage has what is empty be [], {} or absent, never null where clients loop over it.
func TestWireMessage(t *testing.T) {
	b, err := json.Marshal(wireMessage(&store.Found{Message: sender.Message{ID: sender.NewID(), State: sender.Delivered}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"tags":[]`, `"metadata":{}`, `"smtp_events":[]`, `"opens_detail":[]`, `"clicks_detail":[]`, `"resends":[]`, `"reject":null`, `"subaccount":null`, `"state":"sent"`} {
		if !strings.Contains(string(b), part) {
			t.Errorf("no %s in %s", part, b)
		}
	}
	f := &store.Found{Message: sender.Message{State: sender.Bounced}, Reply: sender.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}, Reason: "hard-bounce", Subaccount: "s"}
	if m := wireMessage(f); m.Diag != "smtp; 550 5.1.1 no such user" || m.Description != "bad_mailbox" || m.Reject.Reason != "hard-bounce" || *m.Subaccount != "s" {
		t.Errorf("%+v", m)
	}
	f.Reply = sender.Reply{Enhanced: "5.7.1", Text: "policy"}
	if m := wireMessage(f); m.Diag != "5.7.1 policy" || m.Description != "general" {
		t.Errorf("%+v", m)
	}
}

func do(a *API, method, path, body string) (*http.Response, string) {
	rec := httptest.NewRecorder()
	a.server.Handler.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec.Result(), rec.Body.String()
}

func TestRoutes(t *testing.T) {
	a := bare()
	for _, path := range []string{"/api/1.0/users/ping", "/api/1.0/users/ping.json", "/api/1.4/users/ping.json", "//api//1.0/users/ping/", "/api/1.0/users/ping.json/"} {
		if res, body := do(a, http.MethodPost, path, "{}"); res.StatusCode != 422 || !strings.Contains(body, "You must specify a key value") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	for path, method := range map[string]string{"/api/1.0/users/nothing": http.MethodPost, "/api/2.0/users/ping": http.MethodPost, "/": http.MethodPost, "/api/1.0/users/ping": http.MethodGet, "/api/1.0/messages/send.json": http.MethodPut} {
		if res, body := do(a, method, path, "{}"); res.StatusCode != 404 || !strings.Contains(body, "Unknown_Method") {
			t.Errorf("%s %s: %d %s", method, path, res.StatusCode, body)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if res, body := do(a, http.MethodGet, path, ""); res.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	a.cfg.Ready = func() error { return errors.New("no Postgres server answers") }
	if res, body := do(a, http.MethodGet, "/readyz", ""); res.StatusCode != 503 || body != "no Postgres server answers\n" {
		t.Errorf("not ready: %d %s", res.StatusCode, body)
	}
}

// TestReadyWarns has what is degraded be said without turning anybody away.
func TestReadyWarns(t *testing.T) {
	a := bare()
	var lines []string
	a.cfg.Warn = func() []string { return lines }
	if res, body := do(a, http.MethodGet, "/readyz", ""); res.StatusCode != 200 || body != "ready\n" {
		t.Errorf("nothing to say: %d %q", res.StatusCode, body)
	}
	lines = []string{"queue: away", "pg2: away"}
	if res, body := do(a, http.MethodGet, "/readyz", ""); res.StatusCode != 200 || body != "ready\nqueue: away\npg2: away\n" {
		t.Errorf("two lines: %d %q", res.StatusCode, body)
	}
}

// TestCrossOrigin asks as a browser does: first whether it may, then in earnest; refusals can be read too.
func TestCrossOrigin(t *testing.T) {
	a := bare()
	for _, path := range []string{"/api/1.0/messages/send.json", "/v1/messages", "/v1/messages/" + strings.Repeat("0", 32), "//v1/messages/"} {
		res, body := do(a, http.MethodOptions, path, "")
		h := res.Header
		if res.StatusCode != 204 || body != "" || h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") ||
			h.Get("Access-Control-Allow-Headers") != "*, Authorization" || h.Get("Access-Control-Max-Age") == "" {
			t.Errorf("preflight of %s: %d %v %s", path, res.StatusCode, h, body)
		}
		if res, _ := do(a, http.MethodPost, path, "{}"); res.StatusCode < 400 || res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Access-Control-Expose-Headers") != "Retry-After" {
			t.Errorf("refusal at %s: %d %v", path, res.StatusCode, res.Header)
		}
	}
	if res, _ := do(a, http.MethodGet, "/openapi.json", ""); res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("the description: %d %v", res.StatusCode, res.Header)
	}
	for _, path := range []string{"/readyz", "/v1x"} { // no API
		if res, _ := do(a, http.MethodOptions, path, ""); res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", path, res.StatusCode, res.Header)
		}
	}
}

// endless is a body that goes on for ever and counts what was read of it.
type endless struct{ read int64 }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	e.read += int64(len(b))
	return len(b), nil
}

func TestBodyLimits(t *testing.T) {
	a := bare()
	body := &endless{}
	r := httptest.NewRequest(http.MethodPost, "/api/1.0/users/ping", body) // of unknown length
	rec := httptest.NewRecorder()
	a.server.Handler.ServeHTTP(rec, r)
	if rec.Code != 413 || body.read > maxBody+smallBody {
		t.Errorf("an endless body: %d after %d bytes", rec.Code, body.read)
	}
	body = &endless{}
	r = httptest.NewRequest(http.MethodPost, "/api/1.0/users/ping", body)
	r.ContentLength = maxBody + 1
	rec = httptest.NewRecorder()
	if a.server.Handler.ServeHTTP(rec, r); rec.Code != 413 || body.read != 0 {
		t.Errorf("a body that says it is too large: %d after %d bytes", rec.Code, body.read)
	}
	if res, text := do(a, http.MethodPost, "/api/1.0/users/ping", strings.Repeat(" ", maxBody)); res.StatusCode != 400 || !strings.Contains(text, "ends too early") {
		t.Errorf("a body at the limit: %d %s", res.StatusCode, text)
	}
	if !a.bodies.TryAcquire(maxBodiesHeld) {
		t.Error("a body's share of the memory was not given back")
	}
	impatient, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	rec = httptest.NewRecorder()
	a.server.Handler.ServeHTTP(rec, httptest.NewRequestWithContext(impatient, http.MethodPost, "/api/1.0/users/ping", strings.NewReader(strings.Repeat(" ", smallBody+1))))
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("a large body beyond the memory for them: %d", rec.Code)
	}
	if res, _ := do(a, http.MethodPost, "/api/1.0/users/ping", strings.Repeat(" ", smallBody-1)); res.StatusCode != 400 {
		t.Errorf("a small body then: %d", res.StatusCode)
	}
}

// TestRunDrains stops while a request is under way: it is answered before Run returns.
func TestRunDrains(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- bare().Run(ctx, l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "POST /api/1.0/users/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // now it is being read
		t.Fatal(line, err)
	}
	cancel()
	for { // until the listener is gone
		extra, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		_ = extra.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("stopped with a request under way: %v", err)
	default:
	}
	_, _ = io.WriteString(c, "{}")
	_, _ = in.ReadString('\n')
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 422 {
		t.Fatalf("the answer: %v, %v", res, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
