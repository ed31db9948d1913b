// Package ledger is the one way a fact enters: the state moves and the event, the search row, the
// do-not-send list and the outbox are written in one transaction, and only then the bell rings.
package ledger

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// Config is what the ledger needs.
type Config struct {
	Shards  *shards.Shards
	Store   *store.Store
	Queue   *jobs.Queue
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Ledger records facts in groups and tells them to the event stream.
type Ledger struct {
	cfg   Config
	group *shards.Group[*store.Fact]
	words *shards.Group[*store.Fact] // of recipients, which count whatever became of the message
	facts *prometheus.CounterVec

	mu    sync.Mutex
	dirty map[string]bool // shards whose outbox has news
	ctx   context.Context
}

// New makes a ledger; Run starts it.
func New(cfg Config) *Ledger {
	l := &Ledger{cfg: cfg, dirty: map[string]bool{}, ctx: context.Background()}
	// 20 ms and 500 facts: an outcome lost in a crash means one more attempt, never a lost message, so it may
	// wait for company; on the normal path this is 0.02 fsync a message.
	limits := shards.GroupConfig{Committers: 1, Max: 500, MaxBytes: 8 << 20, Linger: 20 * time.Millisecond, Patient: true, Queue: 50_000}
	l.group = shards.NewGroup(cfg.Shards, cfg.Store.LedgerStatement(), limits)
	l.words = shards.NewGroup(cfg.Shards, cfg.Store.WordStatement(), limits)
	l.facts = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_facts_total",
		Help: "Facts recorded, by the state they led to."}, []string{"state"})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(l.facts)
	}
	return l
}

// Run records until ctx ends, and then what had been taken in.
func (l *Ledger) Run(ctx context.Context) error {
	l.mu.Lock()
	l.ctx = ctx
	l.mu.Unlock()
	var g errgroup.Group
	g.Go(func() error { return l.group.Run(ctx) })
	g.Go(func() error { return l.words.Run(ctx) })
	g.Go(func() error { return l.relay(ctx) })
	return g.Wait()
}

const again = 500 * time.Millisecond

// Record enters a fact. While its server is away it is tried again until the ledger stops; done is called
// once, with nil when the fact is durable, and must not block.
func (l *Ledger) Record(f *store.Fact, done func(error)) {
	group := l.group
	if f.State == sender.Unsubscribed {
		group = l.words
	}
	group.Go(f.Account, f, 300+len(f.Reply.Text), func(err error) {
		if err == nil {
			l.facts.WithLabelValues(stateName(f.State)).Inc()
			l.news(l.cfg.Shards.Of(f.Account).Name)
			done(nil)
			return
		}
		l.mu.Lock()
		ctx := l.ctx
		l.mu.Unlock()
		if ctx.Err() != nil {
			done(err)
			return
		}
		l.cfg.Log.Debug("fact not recorded yet", zap.Stringer("message", f.Message), zap.Error(err))
		time.AfterFunc(again, func() { l.Record(f, done) })
	})
}

func (l *Ledger) news(shard string) {
	l.mu.Lock()
	l.dirty[shard] = true
	l.mu.Unlock()
}

func (l *Ledger) takeNews() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]string, 0, len(l.dirty))
	for s := range l.dirty {
		out = append(out, s)
	}
	clear(l.dirty)
	return out
}

// relay empties the outboxes into the event stream: a quarter of a second after news, and all of them each
// minute, for what a crash left behind.
func (l *Ledger) relay(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	sweep := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if now.Sub(sweep) >= time.Minute {
				sweep = now
				for _, sh := range l.cfg.Shards.Map().Shards() {
					l.news(sh.Name)
				}
			}
		}
		for _, shard := range l.takeNews() {
			if ctx.Err() != nil {
				return nil
			}
			if err := l.drain(ctx, shard); err != nil && ctx.Err() == nil {
				l.cfg.Log.Debug("outbox not drained yet", zap.String("shard", shard), zap.Error(err))
				l.news(shard)
			}
		}
	}
}

const drainRows = 500

// drain publishes a shard's outbox rows and then deletes them; between the two a crash repeats them, with the
// same id for the stream's own check of doubles.
func (l *Ledger) drain(ctx context.Context, shard string) error {
	for {
		rows, err := l.cfg.Store.Outbox(ctx, shard, drainRows)
		if err != nil || len(rows) == 0 {
			return err
		}
		told := make([][16]byte, 0, len(rows))
		for _, r := range rows {
			if err = l.cfg.Queue.PublishEvents(ctx, shard, encodeIDs(r.IDs), string(r.ID[:])); err != nil {
				break
			}
			told = append(told, r.ID)
		}
		if len(told) > 0 {
			if err := l.cfg.Store.Told(ctx, shard, told); err != nil {
				return err
			}
		}
		if err != nil || len(rows) < drainRows {
			return err
		}
	}
}

// encodeIDs is an entry of the event stream: how many, and the ids of the messages to which something happened.
func encodeIDs(ids [][16]byte) []byte {
	b := binary.AppendUvarint(make([]byte, 0, 4+16*len(ids)), uint64(len(ids)))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}
