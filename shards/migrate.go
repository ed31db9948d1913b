package shards

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/schema"
)

// ServerSpec names a physical server and how to reach it.
type ServerSpec struct {
	Name string
	DSN  string
}

// NewerError says that the data were written by a newer version of the program.
type NewerError struct {
	What        string
	Have, Known int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s is at schema version %d and this program knows only %d: use the program that wrote it, or a newer one", e.What, e.Have, e.Known)
}

type migration struct {
	version int
	text    string
}

// migrations reads a folder of the schema: files NNNN_name.sql.
func migrations(folder string) ([]migration, error) {
	files, err := fs.Glob(schema.Files, folder+"/*.sql")
	if err != nil {
		return nil, err
	}
	var out []migration
	for _, f := range files {
		digits, _, _ := strings.Cut(path.Base(f), "_")
		n, err := strconv.Atoi(digits)
		if err != nil {
			return nil, fmt.Errorf("schema file %s does not begin with its version", f)
		}
		text, err := fs.ReadFile(schema.Files, f)
		if err != nil {
			return nil, err
		}
		out = append(out, migration{n, string(text)})
	}
	slices.SortFunc(out, func(a, b migration) int { return a.version - b.version })
	return out, nil
}

const versionTableSQL = `create table if not exists schema_version (version int primary key, applied_at timestamptz not null default now())`

// apply brings one Postgres schema up to date, each file in a transaction of its own that also records it.
// then runs in the last transaction; it is how a new shard gets its partitions with its tables.
func apply(ctx context.Context, c *pgx.Conn, name, folder string, then func(context.Context, pgx.Tx) error) error {
	all, err := migrations(folder)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		// Two processes may start at once: the second waits here and finds all done.
		prepare := fmt.Sprintf(`set local lock_timeout = '10s'; select pg_advisory_xact_lock(hashtext('postrider %[1]s'));
			create schema if not exists %[1]s; set local search_path = %[1]s; set local client_min_messages = warning; %[2]s`, name, versionTableSQL)
		if _, err := tx.Exec(ctx, prepare); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRow(ctx, `select coalesce(max(version), 0) from schema_version`).Scan(&have); err != nil {
			return err
		}
		if known := all[len(all)-1].version; have > known {
			return &NewerError{What: name, Have: have, Known: known}
		}
		for _, m := range all {
			if m.version <= have {
				continue
			}
			if _, err := tx.Exec(ctx, m.text); err != nil {
				return fmt.Errorf("version %d: %w", m.version, err)
			}
			if _, err := tx.Exec(ctx, `insert into schema_version (version) values ($1)`, m.version); err != nil {
				return err
			}
		}
		if then != nil {
			return then(ctx, tx)
		}
		return nil
	})
}

func applyTo(ctx context.Context, dsn, name, folder string, then func(context.Context, pgx.Tx) error) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	cfg.ConnectTimeout = 5 * time.Second
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	return apply(ctx, c, name, folder, then)
}

const (
	addServerSQL = `insert into servers (name, dsn) values ($1, $2) on conflict (name) do update set dsn = excluded.dsn where servers.dsn <> excluded.dsn`
	addShardSQL  = `insert into shards (name, server) values ($1, $2)`
	addBucketSQL = `insert into buckets (bucket, shard) select b, $3 from generate_series($1::int, $2::int) b`
)

// Setup makes the directory, or brings it up to date, and names the servers. On an empty directory it
// spreads count shards evenly over them and the buckets evenly over those; later count is ignored.
func Setup(ctx context.Context, directory string, servers []ServerSpec, count int) error {
	if count < 1 || count > Buckets {
		return fmt.Errorf("%d shards: there must be 1 to %d", count, Buckets)
	}
	return applyTo(ctx, directory, "public", "directory", func(ctx context.Context, tx pgx.Tx) error {
		for _, v := range servers {
			if _, err := tx.Exec(ctx, addServerSQL, v.Name, v.DSN); err != nil {
				return err
			}
		}
		var have int
		if err := tx.QueryRow(ctx, `select count(*) from shards`).Scan(&have); err != nil || have > 0 {
			return err
		}
		for i := range count {
			name := fmt.Sprintf("shard_%04d", i)
			if _, err := tx.Exec(ctx, addShardSQL, name, servers[i%len(servers)].Name); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, addBucketSQL, i*Buckets/count, (i+1)*Buckets/count-1, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// Progress is told how many shards are done, of how many.
type Progress func(done, total int)

const (
	migratedSQL = `select shard from shard_migrations where version = $1 and state = 'done'`
	recordSQL   = `insert into shard_migrations (shard, version, state, finished_at, error) values ($1, $2, $3, case when $3 = 'running' then null else now() end, nullif($4, ''))
		on conflict (shard, version) do update set state = excluded.state, finished_at = excluded.finished_at, error = excluded.error`
)

// Migrate brings every shard to this program's version: one canary first, then two at once on each server.
// Shards recorded as done are skipped, so that an interrupted run goes on where it stopped.
func (s *Shards) Migrate(ctx context.Context, progress Progress) error {
	all, err := migrations("shard")
	if err != nil {
		return err
	}
	version := all[len(all)-1].version
	rows, err := s.directory.Query(ctx, migratedSQL, version)
	if err != nil {
		return fmt.Errorf("read the migration state: %w", err)
	}
	done, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	todo := slices.DeleteFunc(slices.Clone(s.Map().Shards()), func(sh *Shard) bool { return slices.Contains(done, sh.Name) })
	for _, v := range s.Map().Servers() {
		err := applyTo(ctx, v.dsn, "postrider", "server", nil)
		if err == nil {
			continue
		}
		var newer *NewerError
		if errors.As(err, &newer) || slices.ContainsFunc(todo, func(sh *Shard) bool { return sh.Server == v }) {
			return fmt.Errorf("migrate server %s: %w", v.Name, err)
		}
		s.cfg.Log.Warn("server not looked at, all its shards are up to date", zap.String("server", v.Name), zap.Error(err))
		v.failed(err)
	}
	if len(todo) == 0 {
		return nil
	}
	if err := s.migrateOne(ctx, todo[0], version); err != nil {
		return err
	}
	return s.migrateRest(ctx, todo[1:], version, progress)
}

func (s *Shards) migrateRest(ctx context.Context, todo []*Shard, version int, progress Progress) error {
	finished := make(chan struct{}, len(todo))
	perServer := map[*Server]*errgroup.Group{}
	var all errgroup.Group
	for _, sh := range todo {
		g := perServer[sh.Server]
		if g == nil {
			g = &errgroup.Group{}
			g.SetLimit(2)
			perServer[sh.Server] = g
		}
	}
	for v, g := range perServer {
		all.Go(func() error {
			for _, sh := range todo {
				if sh.Server == v {
					g.Go(func() error {
						defer func() { finished <- struct{}{} }()
						return s.migrateOne(ctx, sh, version)
					})
				}
			}
			return g.Wait()
		})
	}
	for i := range todo {
		<-finished
		if progress != nil {
			progress(i+2, len(todo)+1)
		}
	}
	return all.Wait()
}

func (s *Shards) migrateOne(ctx context.Context, sh *Shard, version int) error {
	if _, err := s.directory.Exec(ctx, recordSQL, sh.Name, version, "running", ""); err != nil {
		return fmt.Errorf("record the migration of %s: %w", sh.Name, err)
	}
	err := applyTo(ctx, sh.Server.dsn, sh.Name, "shard", func(ctx context.Context, tx pgx.Tx) error {
		return addPartitions(ctx, tx, sh.Name, sh.Days, time.Now())
	})
	state, text := "done", ""
	if err != nil {
		state, text = "failed", err.Error()
	}
	if _, rec := s.directory.Exec(ctx, recordSQL, sh.Name, version, state, text); rec != nil && err == nil {
		err = rec
	}
	if err != nil {
		return fmt.Errorf("migrate %s: %w", sh.Name, err)
	}
	return nil
}
