package shards

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Statement is one SQL text that a Group runs once a shard. It must be safe to run twice with the same
// items: a commit whose answer was lost is tried again.
type Statement[T any] struct {
	Name   string // of the prepared statements and in metrics
	SQL    string // "@" stands for the shard's schema and a dot
	Encode func(p *Params, items []T)
	// Scan reads the statement's rows, if it returns any; it must copy what it keeps.
	Scan func(items []T, row [][]byte) error
}

// GroupConfig are a group's limits.
type GroupConfig struct {
	Committers int           // connections a server that commit side by side
	Max        int           // items in one commit
	MaxBytes   int           // bytes in one commit
	Linger     time.Duration // longest wait for company
	Patient    bool          // wait also when alone: nobody is waiting for the answer
	Queue      int           // items waiting for a server; more are refused
}

// Group commits items of all shards of a server in one transaction. If that fails, each shard's part is
// tried alone, so that a bad shard hurts only its own callers; and a shard that was locked, fenced or
// slow stays out of the groups for a second.
type Group[T any] struct {
	s   *Shards
	st  Statement[T]
	cfg GroupConfig

	mu     sync.Mutex
	queues map[string]*queue[T]   // by server
	sick   map[string]*sickbay[T] // by shard
	ctx    context.Context        // of Run; items are refused after it
	work   sync.WaitGroup
}

type entry[T any] struct {
	account int64
	item    T
	bytes   int
	done    func(error)
	expires time.Time
}

// NewGroup makes a group. It starts with its first item and ends with Run.
func NewGroup[T any](s *Shards, st Statement[T], cfg GroupConfig) *Group[T] {
	return &Group[T]{s: s, st: st, cfg: cfg, queues: map[string]*queue[T]{}, sick: map[string]*sickbay[T]{}, ctx: context.Background()}
}

// Run commits until ctx ends, and then what had been taken in.
func (g *Group[T]) Run(ctx context.Context) error {
	g.mu.Lock()
	g.ctx = ctx
	g.mu.Unlock()
	<-ctx.Done()
	g.mu.Lock()
	for _, q := range g.queues {
		q.close()
	}
	g.mu.Unlock()
	g.work.Wait()
	return nil
}

// Do commits one item of an account with whatever else is waiting, and returns after the commit. bytes
// is about what it adds to the statement. It returns within parking time and a commit's.
func (g *Group[T]) Do(account int64, item T, bytes int) error {
	answer := make(chan error, 1)
	g.Go(account, item, bytes, func(err error) { answer <- err })
	return <-answer
}

// Go is Do without the wait; done is called once, from another goroutine, and must not block.
func (g *Group[T]) Go(account int64, item T, bytes int, done func(error)) {
	g.submit(&entry[T]{account: account, item: item, bytes: bytes, done: done, expires: time.Now().Add(parking)})
}

func (g *Group[T]) submit(e *entry[T]) {
	sh := g.s.Of(e.account)
	if !sh.Server.Up() {
		e.done(fmt.Errorf("%w: %s does not answer", ErrUnavailable, sh.Server.Name))
		return
	}
	g.mu.Lock()
	if g.ctx.Err() != nil {
		g.mu.Unlock()
		e.done(fmt.Errorf("%w: stopping", ErrUnavailable))
		return
	}
	if bay := g.sick[sh.Name]; bay != nil {
		g.mu.Unlock()
		bay.add(e)
		return
	}
	q := g.queues[sh.Server.Name]
	if q == nil {
		q = newQueue[T](g.cfg)
		g.queues[sh.Server.Name] = q
		for range g.cfg.Committers {
			g.work.Go(func() { g.committer(q) })
		}
	}
	g.mu.Unlock()
	if !q.add(e) {
		e.done(fmt.Errorf("%w: too many are waiting for %s", ErrUnavailable, sh.Server.Name))
	}
}

func (g *Group[T]) committer(q *queue[T]) {
	for {
		batch := q.take()
		if batch == nil {
			return
		}
		g.commit(batch)
		q.finished()
	}
}

// part is one shard's share of a batch.
type part[T any] struct {
	shard   *Shard
	entries []*entry[T]
}

func (p part[T]) done(err error) {
	for _, e := range p.entries {
		e.done(err)
	}
}

func (p part[T]) items() []T {
	items := make([]T, len(p.entries))
	for i, e := range p.entries {
		items[i] = e.item
	}
	return items
}

// split sorts a batch by shard, in shard order so that two groups never lock crosswise, and by server
// in case the map has changed since.
func (g *Group[T]) split(batch []*entry[T]) [][]part[T] {
	m := g.s.Map()
	byShard := map[*Shard]*part[T]{}
	for _, e := range batch {
		sh := m.Of(e.account)
		p := byShard[sh]
		if p == nil {
			p = &part[T]{shard: sh}
			byShard[sh] = p
		}
		p.entries = append(p.entries, e)
	}
	byServer := map[*Server][]part[T]{}
	for _, p := range byShard {
		byServer[p.shard.Server] = append(byServer[p.shard.Server], *p)
	}
	out := make([][]part[T], 0, len(byServer))
	for _, parts := range byServer {
		slices.SortFunc(parts, func(a, b part[T]) int { return strings.Compare(a.shard.Name, b.shard.Name) })
		out = append(out, parts)
	}
	return out
}

// current answers the entries that have waited too long and returns the others.
func current[T any](entries []*entry[T]) []*entry[T] {
	now := time.Now()
	return slices.DeleteFunc(entries, func(e *entry[T]) bool {
		late := now.After(e.expires)
		if late {
			e.done(fmt.Errorf("%w: waited too long", ErrUnavailable))
		}
		return late
	})
}

func (g *Group[T]) commit(batch []*entry[T]) {
	servers := g.split(current(batch))
	if len(servers) == 1 {
		g.commitServer(servers[0])
		return
	}
	var all errgroup.Group // after a map change
	for _, parts := range servers {
		all.Go(func() error { g.commitServer(parts); return nil })
	}
	_ = all.Wait()
}

// commitServer commits the parts of one server together. A part that is at fault leaves the group for
// the sickbay and the others go again.
func (g *Group[T]) commitServer(parts []part[T]) {
	for again := false; len(parts) > 0; again = true {
		bad, err := g.transact(parts)
		if err == nil {
			for _, p := range parts {
				p.done(nil)
			}
			return
		}
		v := parts[0].shard.Server
		switch {
		case lostServer(err), noRoom(err):
			v.failed(err)
			if !again && v.Up() && lostServer(err) && !pgconn.Timeout(err) {
				continue // a connection that died while idle is no news; the statement is safe to repeat
			}
			for _, p := range parts {
				p.done(fmt.Errorf("%w: %s: %w", ErrUnavailable, v.Name, err))
			}
			return
		case bad >= 0:
			g.isolate(parts[bad], err)
			parts = slices.Delete(parts, bad, bad+1)
		default: // the whole statement timed out: each alone
			for _, p := range parts {
				g.isolate(p, err)
			}
			return
		}
	}
}

// transact runs begin, one prepared statement a part, and commit in one round trip. bad is the index of
// the part whose statement failed, -1 when it was none of them.
func (g *Group[T]) transact(parts []part[T]) (bad int, err error) {
	v := parts[0].shard.Server
	ctx, cancel := context.WithTimeout(v.ctx, commitTimeout)
	defer cancel()
	w, err := v.acquireWriter(ctx)
	if err != nil {
		return -1, err
	}
	defer v.releaseWriter(w)
	start, items := time.Now(), 0
	b := &pgconn.Batch{}
	b.ExecParams("begin", nil, nil, nil, nil)
	for i, p := range parts {
		params := &Params{}
		g.st.Encode(params, p.items())
		name := g.st.Name + "_" + p.shard.Name
		if !w.prepared[name] {
			if _, err := w.conn.Prepare(ctx, name, strings.ReplaceAll(g.st.SQL, "@", p.shard.Name+"."), params.oids); err != nil {
				return i, err
			}
			w.prepared[name] = true
		}
		b.ExecPrepared(name, params.values, params.format, []int16{1})
		items += len(p.entries)
	}
	b.ExecParams("commit", nil, nil, nil, nil)
	bad, err = g.results(w.conn.ExecBatch(ctx, b), parts)
	if err != nil {
		if w.conn.TxStatus() != 'I' && !w.conn.IsClosed() {
			_, _ = w.conn.Exec(ctx, "rollback").ReadAll()
		}
		return bad, err
	}
	g.s.metrics.batch.WithLabelValues(g.st.Name).Observe(float64(items))
	g.s.metrics.commit.WithLabelValues(g.st.Name, v.Name).Observe(time.Since(start).Seconds())
	return -1, nil
}

func (g *Group[T]) results(r *pgconn.MultiResultReader, parts []part[T]) (bad int, err error) {
	bad, at := -1, -1 // at: -1 begin, then the parts, then commit
	for r.NextResult() {
		rr := r.ResultReader()
		for at >= 0 && at < len(parts) && g.st.Scan != nil && rr.NextRow() {
			if err == nil {
				err = g.st.Scan(parts[at].items(), rr.Values())
			}
		}
		if _, closed := rr.Close(); closed != nil {
			break
		}
		at++
	}
	if closed := r.Close(); closed != nil {
		if at >= 0 && at < len(parts) && !lostServer(closed) {
			bad = at
		}
		return bad, closed
	}
	return -1, err
}
