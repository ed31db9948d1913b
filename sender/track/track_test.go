package track_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/track"
	"github.com/postrider/postrider/shards/shardtest"
)

const oneClick = "List-Unsubscribe=One-Click"

// TestOneClick has a hundred looks at a link change nothing, and one POST keep the next mail from going out.
func TestOneClick(t *testing.T) {
	w := open(t, pg.New(t, 2))
	id := w.deliver(t, 1, "Ann@example.net")
	link := w.link(1, id)
	for range 100 {
		get, head := ask(t, http.MethodGet, link, "", nil), ask(t, http.MethodHead, link, "", nil)
		if get.status != http.StatusOK || head.status != http.StatusOK || head.body != "" || !strings.Contains(get.body, `<form method="post">`) {
			t.Fatalf("GET %v, HEAD %v", get, head)
		}
	}
	if state, events := w.seen(t, 1, id); state != sender.Delivered || events != 1 {
		t.Fatalf("after looks: state %d, %d events", state, events)
	}
	if r := w.send(t, 1, "ann@example.net"); r.Status != accept.Sent {
		t.Fatalf("after looks: %v", r)
	}

	start := time.Now()
	if r := post(t, link, oneClick); r.status != http.StatusOK || !strings.Contains(r.body, "unsubscribed") {
		t.Fatalf("got %v", r)
	}
	r := w.send(t, 1, "ann@example.net")
	if took := time.Since(start); r.Status != accept.Rejected || r.Reason != sender.ReasonUnsub || took > time.Second {
		t.Errorf("the next send: %v after %s", r, took)
	}
	if state, events := w.seen(t, 1, id); state != sender.Unsubscribed || events != 2 {
		t.Errorf("state %d, %d events", state, events)
	}

	if r := post(t, link, oneClick); r.status != http.StatusOK {
		t.Errorf("again: %v", r)
	}
	if state, events := w.seen(t, 1, id); state != sender.Unsubscribed || events != 2 {
		t.Errorf("again: state %d, %d events", state, events)
	}
	if r := w.send(t, 1, "bob@example.net"); r.Status != accept.Sent {
		t.Errorf("another recipient: %v", r)
	}
	if r := w.send(t, 2, "ann@example.net"); r.Status != accept.Sent {
		t.Errorf("another account: %v", r)
	}
}

// TestWays unsubscribes in every way in which a form can come.
func TestWays(t *testing.T) {
	w := open(t, pg.New(t, 1))
	form := regexp.MustCompile(`name="([^"]*)" value="([^"]*)"`)
	for name, body := range map[string]func(t *testing.T, link string) (string, io.Reader){
		"the page's button": func(t *testing.T, link string) (string, io.Reader) {
			m := form.FindStringSubmatch(ask(t, http.MethodGet, link, "", nil).body)
			if m == nil {
				t.Fatal("no form")
			}
			return urlencoded, strings.NewReader(url.Values{m[1]: {m[2]}}.Encode())
		},
		"multipart": func(t *testing.T, _ string) (string, io.Reader) {
			var b bytes.Buffer
			m := multipart.NewWriter(&b)
			if err := errors.Join(m.WriteField("List-Unsubscribe", "One-Click"), m.Close()); err != nil {
				t.Fatal(err)
			}
			return m.FormDataContentType(), &b
		},
		"with a charset": func(*testing.T, string) (string, io.Reader) {
			return urlencoded + "; charset=UTF-8", strings.NewReader(oneClick)
		},
		"without a type": func(*testing.T, string) (string, io.Reader) { return "", strings.NewReader(oneClick) },
		"chunked": func(*testing.T, string) (string, io.Reader) {
			return urlencoded, io.MultiReader(strings.NewReader(oneClick))
		},
	} {
		t.Run(name, func(t *testing.T) {
			to := strings.ReplaceAll(name, " ", "-") + "@example.net"
			to = strings.ReplaceAll(to, "'", "")
			link := w.link(1, w.deliver(t, 1, to))
			contentType, b := body(t, link)
			if r := ask(t, http.MethodPost, link, contentType, b); r.status != http.StatusOK {
				t.Errorf("got %v", r)
			}
			if r := w.send(t, 1, to); r.Status != accept.Rejected {
				t.Errorf("the next send: %v", r)
			}
		})
	}
}

// nothing is a tracker whose ledger must not be reached.
func nothing(t *testing.T) *site {
	t.Helper()
	return serve(t, track.Config{
		Recipient: func(context.Context, int64, sender.ID) (string, error) {
			t.Error("a message was looked up")
			return "", track.ErrGone
		},
		Record: func(track.OptOut, func(error)) { t.Error("an opt-out was recorded") }})
}

func TestWrongBodies(t *testing.T) {
	s := nothing(t)
	link := s.link(1, sender.NewID())
	for _, tt := range []struct {
		contentType, body, query string
		want                     int
	}{
		{urlencoded, "", "", 400}, {urlencoded, "List-Unsubscribe=one-click", "", 400}, {urlencoded, "List-Unsubscribe", "", 400}, {urlencoded, oneClick + "&" + oneClick, "", 400},
		{urlencoded, "list-unsubscribe=One-Click", "", 400}, {urlencoded, "x=%zz&" + oneClick, "", 400}, {urlencoded, "", "?" + oneClick, 400}, {"application/json", `{"List-Unsubscribe":"One-Click"}`, "", 400},
		{"text/plain", oneClick, "", 400}, {"multipart/form-data", oneClick, "", 400}, {"multipart/form-data; boundary=x", "--x\r\n", "", 400}, {";;", oneClick, "", 400},
		{urlencoded, oneClick + "&x=" + strings.Repeat("x", 4096), "", 413}, {"multipart/form-data; boundary=x", strings.Repeat("x", 1<<20), "", 413},
	} {
		if r := ask(t, http.MethodPost, link+tt.query, tt.contentType, strings.NewReader(tt.body)); r.status != tt.want || !strings.Contains(r.body, "Nothing was changed") {
			t.Errorf("%s %.60q: got %v, want %d", tt.contentType, tt.body, r, tt.want)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, "UNSUBSCRIBE"} {
		if r := ask(t, method, link, urlencoded, strings.NewReader(oneClick)); r.status != http.StatusMethodNotAllowed || r.header.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: got %v", method, r)
		}
	}
}

// TestNoLinks has everything that is no link of ours be 404 with the same words, and lead nowhere.
func TestNoLinks(t *testing.T) {
	s := nothing(t)
	id := sender.NewID()
	token := s.keys.Encode(track.Token{Kind: track.Unsubscribe, Account: 1, Message: id})
	other, err := track.NewKeys([32]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	want := ask(t, http.MethodGet, s.base+"/u/", "", nil).body
	paths := []string{"/", "/u", "/u/", "/u//" + token, "//u/" + token, "/u/" + token + "/", "/u/" + token + "/../x", "/x/../u/" + token, "/U/" + token, "/u/" + token[1:], "/u/" + token + "%0d%0aX-Canary:%201",
		"/u/%25" + fmt.Sprintf("%x", token[0]) + token[1:], "/u/" + strings.Repeat("A", 8000), "//evil.example/u/", "/u/https://evil.example", "/u/" + other.Encode(track.Token{Kind: track.Unsubscribe, Account: 1, Message: id}),
		"/u/" + s.keys.Encode(track.Token{Kind: 2, Account: 1, Message: id})}
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
			r := ask(t, method, s.base+path, urlencoded, strings.NewReader(oneClick))
			if r.status != http.StatusNotFound || r.body != want || r.header.Get("X-Canary") != "" {
				t.Errorf("%s %.120s: got %v", method, path, r)
			}
		}
	}
	if r := ask(t, http.MethodGet, s.base+"/u/"+token+"?r=//evil.example&next=https://evil.example", "", nil); r.status != http.StatusOK || strings.Contains(r.body, "evil") {
		t.Errorf("a link with a query: %v", r)
	}
	if n := s.counted(t, "bad_token"); n < 20 {
		t.Errorf("%v bad tokens were counted", n)
	}
}

func (s *site) counted(t *testing.T, answer string) float64 {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == answer {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func found(context.Context, int64, sender.ID) (string, error) { return "ann@example.net", nil }

// TestOneTokenManyTimes keeps a token from being used over and over; others are not held up.
func TestOneTokenManyTimes(t *testing.T) {
	var recorded atomic.Int64
	s := serve(t, track.Config{Recipient: found, Record: func(_ track.OptOut, done func(error)) { recorded.Add(1); done(nil) }})
	link, refused := s.link(1, sender.NewID()), 0
	for range 40 {
		switch r := post(t, link, oneClick); {
		case r.status == http.StatusTooManyRequests && r.header.Get("Retry-After") != "":
			refused++
		case r.status != http.StatusOK:
			t.Fatalf("got %v", r)
		}
	}
	if refused < 20 || recorded.Load() != int64(40-refused) {
		t.Errorf("%d of 40 were refused, %d recorded", refused, recorded.Load())
	}
	others := 0
	for range 40 {
		if post(t, s.link(1, sender.NewID()), oneClick).status == http.StatusOK {
			others++
		}
	}
	if others < 38 { // one may share its place
		t.Errorf("%d of 40 others went through", others)
	}
}

// TestLedgerHangs fills every place on the way into the ledger: the next is told to come later, at once, and so are
// those that wait; when the ledger is back there is room again.
func TestLedgerHangs(t *testing.T) {
	t.Parallel()
	const places = 256
	held := make(chan func(error), places+1)
	s := serve(t, track.Config{Recipient: found, Record: func(_ track.OptOut, done func(error)) { held <- done }})
	answers := make(chan reply, places)
	for range places {
		go func() { answers <- post(t, s.link(1, sender.NewID()), oneClick) }()
	}
	shardtest.Within(t, 10*time.Second, "all places to be taken", func() bool { return len(held) == places })
	start := time.Now()
	if r := post(t, s.link(1, sender.NewID()), oneClick); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || time.Since(start) > 2*time.Second {
		t.Errorf("got %v after %s", r, time.Since(start))
	}
	for range places {
		if r := <-answers; r.status != http.StatusServiceUnavailable {
			t.Fatalf("got %v for what is not durable", r)
		}
	}
	if r := post(t, s.link(1, sender.NewID()), oneClick); r.status != http.StatusServiceUnavailable {
		t.Errorf("got %v while the ledger still has all of them", r)
	}
	for range places {
		(<-held)(nil)
	}
	go func() { (<-held)(nil) }()
	if r := post(t, s.link(1, sender.NewID()), oneClick); r.status != http.StatusOK {
		t.Errorf("got %v after the ledger is back", r)
	}
}

func TestNotRecorded(t *testing.T) {
	fails := func(_ track.OptOut, done func(error)) { done(errors.New("stopped")) }
	away := func(context.Context, int64, sender.ID) (string, error) { return "", errors.New("no server") }
	old := func(context.Context, int64, sender.ID) (string, error) {
		return "", fmt.Errorf("read: %w", track.ErrGone)
	}
	for name, tt := range map[string]struct {
		cfg  track.Config
		want int
	}{
		"the ledger stops": {track.Config{Recipient: found, Record: fails}, http.StatusServiceUnavailable},
		"no server":        {track.Config{Recipient: away, Record: fails}, http.StatusServiceUnavailable},
		"too old":          {track.Config{Recipient: old, Record: fails}, http.StatusGone},
	} {
		s := serve(t, tt.cfg)
		for range 300 { // more than there are places: each is given back
			if r := post(t, s.link(1, sender.NewID()), oneClick); r.status != tt.want {
				t.Fatalf("%s: got %v", name, r)
			}
		}
	}
}

// TestSlowBody sends half a body and waits: it is cut off, and nothing was recorded.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	s := nothing(t)
	link, err := url.Parse(s.link(1, sender.NewID()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", link.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\nList-", link.Path, urlencoded, len(oneClick))
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 408 ") {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestHangsUp has a caller who does not wait for the answer be heard all the same.
func TestHangsUp(t *testing.T) {
	asked, recorded := make(chan struct{}), make(chan track.OptOut, 1)
	hungUp := make(chan struct{})
	s := serve(t, track.Config{
		Recipient: func(ctx context.Context, _ int64, _ sender.ID) (string, error) {
			close(asked)
			<-hungUp
			return "ann@example.net", ctx.Err()
		},
		Record: func(o track.OptOut, done func(error)) { recorded <- o; done(nil) }})
	id := sender.NewID()
	ctx, hangUp := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.link(7, id), strings.NewReader(oneClick))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-asked
		hangUp()
	}()
	if res, err := http.DefaultClient.Do(r); err == nil {
		_ = res.Body.Close()
		t.Error("there was an answer")
	}
	close(hungUp)
	select {
	case o := <-recorded:
		if o.Account != 7 || o.Message != id || o.Email != "ann@example.net" || time.Since(o.At) > time.Minute {
			t.Errorf("recorded %v", o)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was recorded")
	}
}

// TestServerDown has the shard's server go away and come back.
func TestServerDown(t *testing.T) {
	e, stop, start := shardtest.Own(t, 1)
	w := open(t, e)
	link := w.link(1, w.deliver(t, 1, "ann@example.net"))
	stop()
	if r := post(t, link, oneClick); r.status != http.StatusServiceUnavailable {
		t.Errorf("without a server: %v", r)
	}
	start()
	shardtest.Within(t, 20*time.Second, "a POST to count", func() bool { return post(t, link, oneClick).status == http.StatusOK })
	if r := w.send(t, 1, "ann@example.net"); r.Status != accept.Rejected || r.Reason != sender.ReasonUnsub {
		t.Errorf("the next send: %v", r)
	}
}
