package shards

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Listed is a shard as an operator sees it.
type Listed struct {
	Shard    string `json:"shard"`
	Server   string `json:"server"`
	State    string `json:"state"`
	Accounts int    `json:"accounts"`
	Bytes    *int64 `json:"bytes"` // nil when its server does not answer
}

const (
	listSQL = `
select s.name, s.server, s.state, count(a.id)
from shards s left join buckets b on b.shard = s.name
  left join accounts a on a.bucket = b.bucket and not exists (select 1 from overrides o where o.account = a.id)
group by 1, 2, 3 order by 1`
	overriddenSQL = `select shard, count(*) from overrides group by 1`
	sizesSQL      = `
select n.nspname, coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
from pg_namespace n left join pg_class c on c.relnamespace = n.oid and c.relkind = 'r' where n.nspname like 'shard\_%' group by 1`
)

// List shows every shard; sizes are asked of the servers side by side, at most 5 s.
func (s *Shards) List(ctx context.Context) ([]Listed, error) {
	rows, err := s.directory.Query(ctx, listSQL)
	if err != nil {
		return nil, fmt.Errorf("list shards: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (Listed, error) {
		var l Listed
		err := r.Scan(&l.Shard, &l.Server, &l.State, &l.Accounts)
		return l, err
	})
	if err != nil {
		return nil, err
	}
	byName := map[string]*Listed{}
	for i := range list {
		byName[list[i].Shard] = &list[i]
	}
	if rows, err = s.directory.Query(ctx, overriddenSQL); err != nil {
		return nil, err
	}
	var name string
	var n int
	if _, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error {
		byName[name].Accounts += n
		return nil
	}); err != nil {
		return nil, err
	}
	s.sizes(ctx, byName)
	return list, nil
}

func (s *Shards) sizes(ctx context.Context, byName map[string]*Listed) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var all errgroup.Group
	for _, v := range s.Map().Servers() {
		all.Go(func() error {
			rows, _ := v.pool.Query(ctx, sizesSQL) // an error shows in the rows: the server is shown as away
			var name string
			var bytes int64
			_, _ = pgx.ForEachRow(rows, []any{&name, &bytes}, func() error {
				if l := byName[name]; l != nil && l.Server == v.Name {
					n := bytes
					l.Bytes = &n
				}
				return nil
			})
			return nil
		})
	}
	_ = all.Wait()
}
