package ledger_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestQueueDown records 300 facts while the queue is away: they are durable, in few transactions, and wait in the
// outbox; when the queue is back all of them are told, once, and the outbox is empty.
func TestQueueDown(t *testing.T) {
	var cfg jobs.ServerConfig
	u, stop := queueServer(t, &cfg)
	b := open(t, pg.New(t, 1), connect(t, u))
	stop()
	ids := b.sending(t, 1, 300)
	var waiting []<-chan error
	for _, id := range ids {
		waiting = append(waiting, b.record(delivered(1, id)))
	}
	for _, done := range waiting {
		if err := receive(t, done, "a fact to be recorded"); err != nil {
			t.Fatal(err)
		}
	}
	rows := b.outbox(t, "shard_0000")
	listed := 0
	for _, r := range rows {
		listed += len(r.IDs)
	}
	if listed != len(ids) || len(rows) > 10 {
		t.Errorf("%d ids of %d in %d transactions, want few", listed, len(ids), len(rows))
	}
	if s := b.state(t, 1, ids[299]); s != sender.Delivered {
		t.Errorf("state %d", s)
	}
	queueServer(t, &cfg)
	shardtest.Within(t, 20*time.Second, "the outbox to be drained", func() bool { return len(b.outbox(t, "shard_0000")) == 0 })
	events := told(t, u, "shard_0000")
	for _, id := range ids {
		if events[id] != 1 {
			t.Errorf("%s was told %d times", id, events[id])
		}
	}
	if len(events) != len(ids) {
		t.Errorf("%d messages told of %d", len(events), len(ids))
	}
}

// TestShardsApart has the events of a shard go to that shard's part of the stream.
func TestShardsApart(t *testing.T) {
	var cfg jobs.ServerConfig
	u, _ := queueServer(t, &cfg)
	b := open(t, pg.New(t, 8), connect(t, u))
	byShard := map[string]sender.ID{}
	for account := int64(1); len(byShard) < 4; account++ {
		shard := b.Shards.Of(account).Name
		if _, ok := byShard[shard]; ok {
			continue
		}
		id := b.sending(t, account, 1)[0]
		byShard[shard] = id
		if err := receive(t, b.record(delivered(account, id)), "a fact"); err != nil {
			t.Fatal(err)
		}
	}
	for shard, id := range byShard {
		shardtest.Within(t, 10*time.Second, "the outbox to be drained", func() bool { return len(b.outbox(t, shard)) == 0 })
		if events := told(t, u, shard); len(events) != 1 || events[id] != 1 {
			t.Errorf("%s: %v, want %s alone", shard, events, id)
		}
	}
}

// TestToldTwice has a relay publish what an earlier one published before it died: the stream holds it once.
func TestToldTwice(t *testing.T) {
	var cfg jobs.ServerConfig
	u, stop := queueServer(t, &cfg)
	b := open(t, pg.New(t, 1), connect(t, u))
	stop()
	id := b.sending(t, 1, 1)[0]
	if err := receive(t, b.record(delivered(1, id)), "a fact"); err != nil {
		t.Fatal(err)
	}
	b.stop()
	row := b.outbox(t, "shard_0000")[0]
	u, _ = queueServer(t, &cfg)
	queue := connect(t, u)
	entry := append([]byte{1}, id[:]...)
	shardtest.Within(t, 10*time.Second, "the queue to be ready", func() bool {
		return queue.PublishEvents(context.Background(), "shard_0000", entry, string(row.ID[:])) == nil
	})
	next := open(t, b.Env, queue) // by the same instance, so that it may record what makes it look
	other := next.sending(t, 1, 1)[0]
	if err := receive(t, next.record(delivered(1, other)), "a fact"); err != nil {
		t.Fatal(err)
	}
	shardtest.Within(t, 10*time.Second, "the outbox to be drained", func() bool { return len(next.outbox(t, "shard_0000")) == 0 })
	if events := told(t, u, "shard_0000"); len(events) != 2 || events[id] != 1 || events[other] != 1 {
		t.Errorf("told %v", events)
	}
}

// TestServerDown records while the shard's server is away: the fact is durable when the server is back, and done is
// called once, then.
func TestServerDown(t *testing.T) {
	e, stop, start := shardtest.Own(t, 1)
	b := open(t, e, jobstest.Start(t))
	ids := b.sending(t, 1, 2)
	stop()
	done := b.record(delivered(1, ids[0]))
	shardtest.Within(t, 10*time.Second, "the breaker to open", func() bool { return !b.Shards.Of(1).Server.Up() })
	also := b.record(delivered(1, ids[1]))
	select {
	case err := <-done:
		t.Fatalf("done without a server: %v", err)
	default:
	}
	start()
	for i, d := range []<-chan error{done, also} {
		if err := receive(t, d, "the fact"); err != nil {
			t.Error(err)
		}
		shardtest.Within(t, 10*time.Second, "the state to be read", func() bool { // a connection of before may be dead
			f, _, err := b.store.Info(context.Background(), 1, ids[i])
			return err == nil && f.State == sender.Delivered
		})
		if len(d) > 0 {
			t.Error("done was called again")
		}
	}
}

// TestStopWithServerDown stops while a fact cannot be recorded: its caller is told so, soon.
func TestStopWithServerDown(t *testing.T) {
	e, stop, _ := shardtest.Own(t, 1)
	b := open(t, e, jobstest.Start(t))
	id := b.sending(t, 1, 1)[0]
	stop()
	done := b.record(delivered(1, id))
	shardtest.Within(t, 10*time.Second, "the breaker to open", func() bool { return !b.Shards.Of(1).Server.Up() })
	b.stop()
	if err := receive(t, done, "the caller to be told"); err == nil {
		t.Error("the fact is called durable")
	}
}

// TestStopRecords has what was taken in before the stop be recorded by its end.
func TestStopRecords(t *testing.T) {
	b := open(t, pg.New(t, 1), jobstest.Start(t))
	ids := b.sending(t, 1, 50)
	var waiting []<-chan error
	for _, id := range ids {
		waiting = append(waiting, b.record(delivered(1, id)))
	}
	b.stop()
	for i, done := range waiting {
		select {
		case err := <-done:
			if s := b.state(t, 1, ids[i]); err != nil || s != sender.Delivered {
				t.Errorf("state %d, %v", s, err)
			}
		default:
			t.Error("stopped before its caller was told")
		}
	}
}

// TestNothingChanged has a fact that no longer holds be done and change nothing.
func TestNothingChanged(t *testing.T) {
	b := open(t, pg.New(t, 1), jobstest.Start(t))
	id := b.sending(t, 1, 1)[0]
	for _, f := range []*store.Fact{delivered(1, id), delivered(1, id), delivered(1, sender.NewID()), delivered(2, id)} {
		if err := receive(t, b.record(f), "a fact"); err != nil {
			t.Error(err)
		}
	}
	b.state(t, 1, id) // one event
}

// TestMetrics has every state that a fact can lead to be counted by a name of its own.
func TestMetrics(t *testing.T) {
	e, r := pg.New(t, 1), prometheus.NewRegistry()
	b := &book{Env: e, store: store.New(e.Shards)}
	b.ledger = ledger.New(ledger.Config{Shards: e.Shards, Store: b.store, Queue: jobstest.Start(t), Log: zap.NewNop(), Metrics: r})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.ledger.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for _, s := range []sender.State{sender.Delivered, sender.Deferred, sender.Bounced, sender.SoftBounced, sender.Spam} {
		f := delivered(1, b.sending(t, 1, 1)[0])
		f.State = s
		if err := receive(t, b.record(f), "a fact"); err != nil {
			t.Fatal(err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	for _, name := range []string{"delivered", "deferred", "bounced", "soft-bounced", "spam"} {
		if counted[name] != 1 {
			t.Errorf("%s is counted %v times: %v", name, counted[name], counted)
		}
	}
}
