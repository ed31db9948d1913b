package shards

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// sickbay commits what belongs to one shard alone, one part at a time, on a pool connection, until the
// shard has been well for a second.
type sickbay[T any] struct {
	limit   int
	mu      sync.Mutex
	entries []*entry[T]
	shut    bool
	wake    chan struct{}
}

func (b *sickbay[T]) add(entries ...*entry[T]) {
	b.mu.Lock()
	var refused []*entry[T]
	if b.shut || len(b.entries)+len(entries) > b.limit {
		refused = entries
	} else {
		b.entries = append(b.entries, entries...)
	}
	b.mu.Unlock()
	for _, e := range refused {
		e.done(fmt.Errorf("%w: the shard is busy", ErrUnavailable))
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *sickbay[T]) take() []*entry[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.entries
	b.entries = nil
	return out
}

// leave closes the bay if nobody is in it.
func (b *sickbay[T]) leave() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = len(b.entries) == 0
	return b.shut
}

// isolate takes a shard out of the groups, with the part that failed.
func (g *Group[T]) isolate(p part[T], cause error) {
	g.s.metrics.solo.WithLabelValues(g.st.Name).Inc()
	if movedAway(cause) {
		g.s.nudge()
	}
	g.mu.Lock()
	bay := g.sick[p.shard.Name]
	if bay == nil {
		bay = &sickbay[T]{limit: g.cfg.Queue, wake: make(chan struct{}, 1)}
		g.sick[p.shard.Name] = bay
		g.work.Go(func() { g.nurse(p.shard.Name, bay) })
	}
	g.mu.Unlock()
	bay.add(p.entries...)
}

func (g *Group[T]) nurse(shard string, bay *sickbay[T]) {
	well := time.NewTimer(time.Second)
	defer well.Stop()
	for {
		if entries := bay.take(); len(entries) > 0 {
			g.alone(shard, entries)
			well.Reset(time.Second)
			continue
		}
		select {
		case <-bay.wake:
			continue
		case <-well.C:
		case <-g.ctx.Done():
		}
		g.mu.Lock()
		gone := bay.leave()
		if gone {
			delete(g.sick, shard)
		}
		g.mu.Unlock()
		if gone {
			return
		}
	}
}

// alone commits a part by itself, with the ordinary retries of Write. If one of several items is at fault,
// each is tried by itself, so that the others pass.
func (g *Group[T]) alone(shard string, entries []*entry[T]) {
	for n := cut(g.cfg, entries); n < len(entries); n = cut(g.cfg, entries) {
		g.alone(shard, entries[:n])
		entries = entries[n:]
	}
	entries = current(entries)
	if len(entries) == 0 {
		return
	}
	p := part[T]{entries: entries}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(g.ctx), entries[len(entries)-1].expires)
	defer cancel()
	err := g.s.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return g.exec(ctx, tx, p)
	})
	if err == nil || errors.Is(err, ErrUnavailable) || len(entries) == 1 {
		p.done(err)
		return
	}
	for _, e := range entries {
		g.alone(shard, []*entry[T]{e})
	}
}

func (g *Group[T]) exec(ctx context.Context, tx pgx.Tx, p part[T]) error {
	if _, err := tx.Exec(ctx, "set local lock_timeout = 1000"); err != nil {
		return err
	}
	return Exec(ctx, tx, g.st, p.items())
}

// Exec runs a group's statement for one shard inside a transaction of that shard.
func Exec[T any](ctx context.Context, tx pgx.Tx, st Statement[T], items []T) error {
	params := &Params{}
	st.Encode(params, items)
	r := tx.Conn().PgConn().ExecParams(ctx, strings.ReplaceAll(st.SQL, "@", ""), params.values, params.oids, params.format, []int16{1})
	var scan error
	for r.NextRow() {
		if st.Scan != nil && scan == nil {
			scan = st.Scan(items, r.Values())
		}
	}
	if _, err := r.Close(); err != nil {
		return err
	}
	return scan
}
