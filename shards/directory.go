package shards

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

func openPool(ctx context.Context, dsn string, conns int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = conns
	cfg.ConnConfig.ConnectTimeout = 3 * time.Second
	cfg.ConnConfig.RuntimeParams["application_name"] = "postrider"
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = "10000"
	return pgxpool.NewWithConfig(ctx, cfg)
}

const (
	mapVersionSQL = `select version from versions where name = 'map'`
	mapServersSQL = `select name, dsn from servers order by name`
	mapShardsSQL  = `select name, server, epoch, state = 'fenced', partition_days from shards order by name`
	mapBucketsSQL = `select bucket, shard from buckets`
	mapOverSQL    = `select account, shard from overrides`
	mapPausesSQL  = `select kind, coalesce(shard, ''), coalesce(account, 0) from pauses`
)

// load reads the whole map in one snapshot and puts it in place if it is newer.
func (s *Shards) load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m := &Map{byName: map[string]*Shard{}, overrides: map[int64]*Shard{}}
	var pauses []Pause
	err := pgx.BeginTxFunc(ctx, s.directory, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := s.read(ctx, tx, m); err != nil {
			return err
		}
		var p Pause
		return each(ctx, tx, mapPausesSQL, []any{&p.Kind, &p.Shard, &p.Account}, func() error {
			pauses = append(pauses, p)
			return nil
		})
	})
	if code(err) == "42P01" {
		return fmt.Errorf("the directory is not set up, or not up to date: start postrider serve of this version once: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%w: read the map: %w", ErrNoDirectory, err)
	}
	for b, sh := range m.buckets {
		if sh == nil {
			return fmt.Errorf("bucket %d has no shard: was the directory set up to the end?", b)
		}
	}
	m.pause(pauses)
	if old := s.current.Load(); old == nil || m.Version > old.Version {
		s.current.Store(m)
	}
	return nil
}

func (s *Shards) read(ctx context.Context, tx pgx.Tx, m *Map) error {
	if err := tx.QueryRow(ctx, mapVersionSQL).Scan(&m.Version); err != nil {
		return err
	}
	var name, other string
	err := each(ctx, tx, mapServersSQL, []any{&name, &other}, func() error {
		return s.server(name, other)
	})
	if err != nil {
		return err
	}
	var sh Shard
	err = each(ctx, tx, mapShardsSQL, []any{&sh.Name, &other, &sh.Epoch, &sh.Fenced, &sh.Days}, func() error {
		one := sh
		one.Server = s.servers[other]
		m.shards = append(m.shards, &one)
		m.byName[one.Name] = &one
		return nil
	})
	if err != nil {
		return err
	}
	var bucket int
	if err = each(ctx, tx, mapBucketsSQL, []any{&bucket, &name}, func() error {
		m.buckets[bucket] = m.byName[name]
		return nil
	}); err != nil {
		return err
	}
	var account int64
	return each(ctx, tx, mapOverSQL, []any{&account, &name}, func() error {
		m.overrides[account] = m.byName[name]
		return nil
	})
}

func each(ctx context.Context, tx pgx.Tx, sql string, into []any, row func() error) error {
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, into, row)
	return err
}

// server makes or re-points a server; the caller holds mu.
func (s *Shards) server(name, dsn string) error {
	if old := s.servers[name]; old != nil && old.dsn == dsn {
		return nil
	}
	v, err := newServer(name, dsn, s.cfg, s.metrics)
	if err != nil {
		return fmt.Errorf("server %s: %w", name, err)
	}
	if old := s.servers[name]; old != nil {
		old.close()
	}
	s.servers[name] = v
	return nil
}

const versionsSQL = `select (select version from versions where name = 'map'), (select version from versions where name = 'keys')`

// watch reloads what has changed: every second, at a NOTIFY, and when a shard said that our map is old.
// While the directory is away the last map and the known keys go on being used.
func (s *Shards) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.reload:
		}
		err := s.refresh(ctx)
		if (err != nil) != away && ctx.Err() == nil {
			away = err != nil
			if away {
				s.cfg.Log.Warn("directory cannot be asked, going on with the last map", zap.Error(err))
			} else {
				s.cfg.Log.Info("directory answers again")
			}
		}
	}
}

func (s *Shards) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var mapVersion, keyVersion int64
	if err := s.directory.QueryRow(ctx, versionsSQL).Scan(&mapVersion, &keyVersion); err != nil {
		return err
	}
	s.keys.seen(keyVersion)
	if mapVersion > s.current.Load().Version {
		return s.load(ctx)
	}
	return nil
}

// listen wakes watch by NOTIFY. Losing the connection costs nothing but the second that a poll takes.
func (s *Shards) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.listenOnce(ctx); err != nil && !errors.Is(err, context.Canceled) {
			s.cfg.Log.Debug("listening to the directory ended", zap.Error(err))
		}
		pause(ctx, time.Second)
	}
	return nil
}

func (s *Shards) listenOnce(ctx context.Context) error {
	c, err := pgx.Connect(ctx, s.cfg.Directory)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if _, err := c.Exec(ctx, "listen postrider"); err != nil {
		return err
	}
	for {
		if _, err := c.WaitForNotification(ctx); err != nil {
			return err
		}
		s.nudge()
	}
}

func (s *Shards) nudge() {
	select {
	case s.reload <- struct{}{}:
	default:
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
