package track_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/sender/track"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// site is a tracker on a socket.
type site struct {
	base    string
	keys    *track.Keys
	metrics *prometheus.Registry
}

func serve(t *testing.T, cfg track.Config) *site {
	t.Helper()
	keys, err := track.NewKeys([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{keys: keys, metrics: prometheus.NewRegistry()}
	cfg.Keys, cfg.Log, cfg.Metrics = keys, zap.NewNop(), s.metrics
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.base = "http://" + l.Addr().String()
	run(t, func(ctx context.Context) error { return track.New(cfg).Run(ctx, l) })
	return s
}

func run(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (s *site) link(account int64, id sender.ID) string {
	return track.Link(s.base, s.keys.Encode(track.Token{Kind: track.Unsubscribe, Account: account, Message: id}))
}

type reply struct {
	status int
	header http.Header
	body   string
}

const urlencoded = "application/x-www-form-urlencoded"

// ask sends a request and holds the answer against what is true of every answer.
func ask(t *testing.T, method, url, contentType string, body io.Reader) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Set-Cookie", "Location", "Refresh", "Access-Control-Allow-Origin"} {
		if v, ok := res.Header[name]; ok {
			t.Errorf("%s %s answers with %s: %s", method, url, name, v)
		}
	}
	if h := res.Header; h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s %s: header %v", method, url, h)
	}
	if strings.Contains(string(b), "@") {
		t.Errorf("%s %s answers with an address: %s", method, url, b)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

func post(t *testing.T, url, body string) reply {
	t.Helper()
	return ask(t, http.MethodPost, url, urlencoded, strings.NewReader(body))
}

// world is a tracker before a real ledger, with the door through which the next send comes.
type world struct {
	*site
	*shardtest.Env
	store  *store.Store
	ledger *ledger.Ledger
	door   *accept.Door
}

func open(t *testing.T, e *shardtest.Env) *world {
	t.Helper()
	w := &world{Env: e, store: store.New(e.Shards)}
	w.ledger = ledger.New(ledger.Config{Shards: e.Shards, Store: w.store, Queue: jobstest.Start(t), Log: zap.NewNop()})
	w.door = accept.New(accept.Config{Shards: e.Shards, Store: w.store, Life: time.Hour, Log: zap.NewNop(),
		Reserve: func([]sender.Message, int) bool { return true }, Hand: func(*sender.Submission, []sender.Message) {},
		Drop: func(int64, []sender.ID, bool) {}, Ring: func(string) {}})
	run(t, w.ledger.Run)
	run(t, w.door.Run)
	w.site = serve(t, track.Config{Recipient: w.recipient, Record: w.record})
	return w
}

func (w *world) recipient(ctx context.Context, account int64, id sender.ID) (string, error) {
	f, _, err := w.store.Info(ctx, account, id)
	if errors.Is(err, store.ErrNotFound) {
		err = track.ErrGone
	}
	return f.Recipient.Email, err
}

func (w *world) record(o track.OptOut, done func(error)) {
	w.ledger.Record(&store.Fact{Account: o.Account, Message: o.Message, State: sender.Unsubscribed, Kind: eventUnsubscribed, At: o.At,
		Reply: sender.Reply{Stage: "report"}, Reject: o.Email, Reason: sender.ReasonUnsub, RejectFor: 365 * 24 * time.Hour}, done)
}

// eventUnsubscribed is the kind that stands behind the others.
const eventUnsubscribed = sender.EventUnsubscribed

func (w *world) send(t *testing.T, account int64, to string) accept.Result {
	t.Helper()
	results, err := w.door.Accept(context.Background(), &sender.Submission{Account: account,
		Content:    sender.Content{From: sender.Address{Email: "from@example.com"}, Subject: "s", Text: "t"},
		Recipients: []sender.Recipient{{Address: sender.Address{Email: to}}}})
	if err != nil {
		t.Fatal(err)
	}
	return results[0]
}

// deliver sends a mail and records that it arrived.
func (w *world) deliver(t *testing.T, account int64, to string) sender.ID {
	t.Helper()
	r := w.send(t, account, to)
	id, err := sender.ParseID(r.ID)
	if err != nil || r.Status != accept.Sent {
		t.Fatalf("%v, %v", r, err)
	}
	done := make(chan error, 1)
	w.ledger.Record(&store.Fact{Account: account, Message: id, Attempt: 1, State: sender.Delivered, Kind: sender.EventDelivered, At: time.Now(),
		Reply: sender.Reply{Code: 250, Stage: "dot"}}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return id
}

// seen is a message's state and how many events it has.
func (w *world) seen(t *testing.T, account int64, id sender.ID) (sender.State, int) {
	t.Helper()
	f, events, err := w.store.Info(context.Background(), account, id)
	if err != nil {
		t.Fatal(err)
	}
	return f.State, len(events)
}
