package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/deliver"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/sandbox"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// stack is one process's send path on real parts, delivering to a sandbox.
type stack struct {
	shards  *shards.Shards
	store   *store.Store
	door    *accept.Door
	sandbox *sandbox.Sandbox
	queue   *jobs.Queue
	deliver jobs.Handler
	stop    func()
}

func world(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	sb, err := sandbox.New(sandbox.Config{SMTP: "127.0.0.1:0", Inbox: "127.0.0.1:0"})
	if err == nil {
		err = sb.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, sb.Run)
	return sb
}

// run runs a part until the test ends, or until the function it returns is called.
func run(t *testing.T, part func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func returnPath(_ int64, id sender.ID, _, _ string) string {
	return "b." + id.String() + "@bounces.example.com"
}

func build(t *testing.T, s *shards.Shards, sb *sandbox.Sandbox, cfg dispatch.Config) *stack {
	t.Helper()
	log := zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
	st := store.New(s)
	queue := jobstest.Start(t)
	l := ledger.New(ledger.Config{Shards: s, Store: st, Queue: queue, Log: log})
	client, err := deliver.New(deliver.Config{Hostname: "test.example", Route: sb.SMTPAddr(), PerSite: 1000, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Shards, cfg.Store, cfg.Ledger, cfg.Deliver, cfg.Queue, cfg.Log = s, st, l, client, queue, log
	if cfg.ReturnPath == nil {
		cfg.ReturnPath = returnPath
	}
	if cfg.Retry == nil {
		cfg.Retry = []time.Duration{200 * time.Millisecond}
	}
	if cfg.SweepEvery == 0 {
		cfg.SweepEvery = time.Hour
	}
	d := dispatch.New(cfg)
	door := accept.New(accept.Config{Shards: s, Store: st, Life: time.Hour, Reserve: d.Reserve, Hand: d.Hand, Drop: d.Drop, Ring: d.Ring, At: d.At, Log: log})
	run(t, client.Run)
	stopLedger := run(t, l.Run)
	stopDispatch := run(t, d.Run)
	stopDoor := run(t, door.Run)
	return &stack{shards: s, store: st, door: door, sandbox: sb, queue: queue, deliver: d.Handlers()[dispatch.JobDeliver], stop: func() { stopDoor(); stopDispatch(); stopLedger() }}
}

func (s *stack) send(t *testing.T, to ...string) []sender.ID {
	t.Helper()
	return s.sendAs(t, 1, to...)
}

func (s *stack) sendAs(t *testing.T, account int64, to ...string) []sender.ID {
	t.Helper()
	return s.submit(t, &sender.Submission{Account: account}, to...)
}

func (s *stack) submit(t *testing.T, sub *sender.Submission, to ...string) []sender.ID {
	t.Helper()
	sub.Content = sender.Content{From: sender.Address{Email: "from@example.com"}, Subject: "s", Text: "t"}
	for _, email := range to {
		sub.Recipients = append(sub.Recipients, sender.Recipient{Address: sender.Address{Email: email}})
	}
	results, err := s.door.Accept(context.Background(), sub)
	if err != nil {
		t.Fatal(err)
	}
	var out []sender.ID
	for _, r := range results {
		id, err := sender.ParseID(r.ID)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
	return out
}

func (s *stack) waitFor(t *testing.T, id sender.ID, want sender.State) store.Found {
	t.Helper()
	var f store.Found
	shardtest.Within(t, 20*time.Second, fmt.Sprintf("message in state %d", want), func() bool {
		var err error
		f, _, err = s.store.Info(context.Background(), 1, id)
		if err != nil {
			t.Fatal(err)
		}
		return f.State == want
	})
	return f
}

func (s *stack) arrived(t *testing.T) int {
	t.Helper()
	return s.inbox(t, "messages?limit=1")
}

// inbox asks the inbox how many mails it has.
func (s *stack) inbox(t *testing.T, query string) int {
	t.Helper()
	res, err := http.Get("http://" + s.sandbox.InboxAddr() + "/api/v1/" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var list struct {
		Matched int `json:"messages_count"`
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list.Matched
}

func TestBornClaimed(t *testing.T) {
	s := build(t, pg.New(t, 4).Shards, world(t), dispatch.Config{})
	for _, id := range s.send(t, "a@example.net", "b@example.net") {
		if f := s.waitFor(t, id, sender.Delivered); f.Attempt != 1 {
			t.Errorf("attempt %d", f.Attempt)
		}
	}
	if n := s.arrived(t); n != 2 {
		t.Errorf("%d mails of 2", n)
	}
}

// TestWithoutRoom sends more than the dispatcher may have in hand: the rest waits in the shard and is rung for.
func TestWithoutRoom(t *testing.T) {
	s := build(t, pg.New(t, 2).Shards, world(t), dispatch.Config{Room: 3})
	var ids []sender.ID
	for i := range 20 {
		ids = append(ids, s.send(t, fmt.Sprintf("a%d@example.net", i), fmt.Sprintf("b%d@example.net", i))...)
	}
	for _, id := range ids {
		s.waitFor(t, id, sender.Delivered)
	}
	if n := s.arrived(t); n != len(ids) {
		t.Errorf("%d mails of %d", n, len(ids))
	}
}

func TestRetriesThenDelivered(t *testing.T) {
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{})
	id := s.send(t, "defer-2@example.net")[0]
	f := s.waitFor(t, id, sender.Delivered)
	if f.Attempt != 3 {
		t.Errorf("delivered at attempt %d, want 3", f.Attempt)
	}
	_, events, err := s.store.Info(context.Background(), 1, id)
	if err != nil || len(events) != 3 || events[0].Kind != sender.EventDeferred || events[0].Reply.Code != 451 || events[2].Kind != sender.EventDelivered {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestLifeOver(t *testing.T) {
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{Retry: []time.Duration{2 * time.Hour}})
	s.waitFor(t, s.send(t, "defer-9@example.net")[0], sender.SoftBounced) // the next attempt would be after the hour it lives
}

func TestHardBounceSuppresses(t *testing.T) {
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{})
	s.waitFor(t, s.send(t, "bounce@example.net")[0], sender.Bounced)
	f := s.waitFor(t, s.send(t, "BOUNCE@example.net")[0], sender.Rejected)
	if f.Reason != sender.ReasonHardBounce || f.Attempt != 0 {
		t.Errorf("rejected: %+v", f)
	}
}

// TestHangingDomain fills a domain's lane with recipients that never answer: another domain does not notice.
func TestHangingDomain(t *testing.T) {
	s := build(t, pg.New(t, 2).Shards, world(t), dispatch.Config{PerDomain: 5})
	for range 10 {
		s.send(t, "hang@slow.example")
	}
	for _, id := range s.send(t, "a@example.net", "b@example.org") {
		s.waitFor(t, id, sender.Delivered)
	}
}

// TestCrowdedDomain sends more to a hanging domain than may be in hand for it: the rest goes back to its row and leaves
// the room to others.
func TestCrowdedDomain(t *testing.T) {
	s := build(t, pg.New(t, 2).Shards, world(t), dispatch.Config{PerDomain: 2, Room: 50, Waiting: 5})
	var hanging []sender.ID
	for range 60 {
		hanging = append(hanging, s.send(t, "hang@slow.example")...)
	}
	for range 5 {
		for _, id := range s.send(t, "a@example.net", "b@example.org") {
			s.waitFor(t, id, sender.Delivered)
		}
	}
	out := func() (n int) {
		for _, id := range hanging {
			f, _, err := s.store.Info(context.Background(), 1, id)
			if err != nil {
				t.Fatal(err)
			}
			if f.State == sender.Queued && f.Attempt == 0 && f.Next.After(time.Now()) {
				n++
			}
		}
		return n
	}
	shardtest.Within(t, 5*time.Second, "all of 60 but 2 under way and 4 waiting to be out of hand", func() bool { return out() == 54 })
}

// TestFairLane has one account fill a domain's lane, waiting places and all: another's mail to the same domain comes
// through in its turn, and one to a recipient that hangs keeps only its own places.
func TestFairLane(t *testing.T) {
	s := build(t, pg.New(t, 2).Shards, world(t), dispatch.Config{PerDomain: 4, Room: 400, Waiting: 40})
	for range 60 {
		s.sendAs(t, 1, "hang@big.example")
	}
	for range 60 {
		s.sendAs(t, 2, "slow-300@big.example")
	}
	begin := time.Now()
	id := s.sendAs(t, 3, "a@big.example")[0]
	shardtest.Within(t, 5*time.Second, "the third account's mail", func() bool {
		f, _, err := s.store.Info(context.Background(), 3, id)
		return err == nil && f.State == sender.Delivered
	})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v: more than its turn", took)
	}
}

// TestDeadInstance has a process end with messages in hand: the next one's sweeper finds and delivers them.
func TestDeadInstance(t *testing.T) {
	e, sb := pg.New(t, 2), world(t)
	dead := e.Open(t, shards.Config{})
	dead.Beat(context.Background())
	lost := store.New(dead)
	s := &sender.Submission{ID: sender.NewID(), Account: 1, Content: sender.Content{From: sender.Address{Email: "f@example.com"}, Text: "t"}}
	m := sender.Message{ID: sender.NewID(), Account: 1, Submission: s.ID, Expires: time.Now().Add(time.Hour), Recipient: sender.Recipient{Address: sender.Address{Email: "a@example.net"}}}
	body, err := store.EncodeContent(&s.Content)
	if err != nil {
		t.Fatal(err)
	}
	a := &store.Accepted{Submission: s, Messages: []sender.Message{m}, Metadata: []string{""}, Body: body, Claimed: true}
	err = dead.Write(context.Background(), 1, func(ctx context.Context, tx pgx.Tx) error {
		return shards.Exec(ctx, tx, lost.AcceptStatement(), []*store.Accepted{a})
	})
	if err != nil {
		t.Fatal(err)
	}
	sole := e.Open(t, shards.Config{Sole: true})
	sole.Beat(context.Background())
	next := build(t, sole, sb, dispatch.Config{SweepEvery: 200 * time.Millisecond})
	if f := next.waitFor(t, m.ID, sender.Delivered); f.Attempt != 2 {
		t.Errorf("attempt %d, want the second: the first was begun by the dead", f.Attempt)
	}
}

// TestStopGivesBack stops with messages in hand: those that wait are due at once for whoever comes next.
func TestStopGivesBack(t *testing.T) {
	e, sb := pg.New(t, 1), world(t)
	s := build(t, e.Shards, sb, dispatch.Config{PerDomain: 1})
	var ids []sender.ID
	for range 3 {
		ids = append(ids, s.send(t, "hang@slow.example")...)
	}
	begin := time.Now()
	s.stop()
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("stopping took %v", took)
	}
	free := 0
	for _, id := range ids {
		if f, _, err := s.store.Info(context.Background(), 1, id); err == nil && f.State == sender.Queued && !f.Next.IsZero() {
			free++
		}
	}
	if free != 2 {
		t.Errorf("%d of the 2 that waited were given back", free)
	}
}
