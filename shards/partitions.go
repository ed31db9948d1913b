package shards

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// ahead is how many periods beyond the present one have partitions: an id from a clock that runs ahead, or
// a month without this process, finds its partition all the same.
const ahead = 4

// partitioned lists a shard's partitioned tables with the storage option in their comment, and for each
// the end of its newest partition (” when there is none).
const partitionedSQL = `
select c.relname, coalesce(obj_description(c.oid, 'pg_class'), ''),
       coalesce((select max(substring(pg_get_expr(p.relpartbound, p.oid) from 'TO \(''([0-9a-f-]{36})''\)'))
                 from pg_inherits i join pg_class p on p.oid = i.inhrelid where i.inhparent = c.oid), '')
from pg_class c where c.relnamespace = $1::regnamespace and c.relkind = 'p' order by 1`

type partitionedTable struct {
	Name, Options, End string
}

// addPartitions makes what is missing, by LIKE and ATTACH: that takes no lock that a writer would wait for.
func addPartitions(ctx context.Context, tx pgx.Tx, schemaName string, days int, now time.Time) error {
	rows, err := tx.Query(ctx, partitionedSQL, schemaName)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[partitionedTable])
	if err != nil {
		return err
	}
	period := time.Duration(days) * 24 * time.Hour
	until := now.Truncate(period).Add((ahead + 1) * period)
	var sql strings.Builder
	for _, t := range tables {
		from := now.Truncate(period).Add(-period) // one back, for a clock that lags
		if t.End != "" {
			if from, err = boundTime(t.End); err != nil {
				return err
			}
		}
		for ; from.Before(until); from = from.Add(period) {
			name := t.Name + "_" + from.UTC().Format("20060102")
			with := ""
			if t.Options != "" {
				with = " with (" + t.Options + ")"
			}
			fmt.Fprintf(&sql, "create table %[1]s.%[2]s (like %[1]s.%[3]s including all)%[4]s;\nalter table %[1]s.%[3]s attach partition %[1]s.%[2]s for values from ('%[5]s') to ('%[6]s');\n",
				schemaName, name, t.Name, with, bound(from), bound(from.Add(period)))
		}
	}
	if sql.Len() == 0 {
		return nil
	}
	_, err = tx.Exec(ctx, sql.String())
	return err
}

// bound is the smallest UUIDv7 of a time, in Postgres's spelling.
func bound(t time.Time) string {
	h := fmt.Sprintf("%012x", t.UnixMilli())
	return h[:8] + "-" + h[8:] + "-0000-0000-000000000000"
}

func boundTime(uuid string) (time.Time, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", "")[:12])
	if err != nil {
		return time.Time{}, fmt.Errorf("partition bound %q: %w", uuid, err)
	}
	var ms int64
	for _, x := range b {
		ms = ms<<8 | int64(x)
	}
	return time.UnixMilli(ms).UTC(), nil
}

// keepPartitions adds and drops partitions of every shard, at the start and each hour.
func (s *Shards) keepPartitions(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		for _, sh := range s.Map().Shards() {
			if ctx.Err() != nil {
				return nil
			}
			if err := s.maintain(ctx, sh); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("partitions not maintained", zap.String("shard", sh.Name), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Shards) maintain(ctx context.Context, sh *Shard) error {
	if sh.Fenced || !sh.Server.Up() {
		return nil
	}
	err := s.WriteShard(ctx, sh.Name, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local lock_timeout = '2s'"); err != nil {
			return err
		}
		var mine bool // one process is enough
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock(hashtext($1))", "partitions "+sh.Name).Scan(&mine); err != nil || !mine {
			return err
		}
		return addPartitions(ctx, tx, sh.Name, sh.Days, time.Now())
	})
	if err != nil {
		return err
	}
	return s.expire(ctx, sh, time.Now().Add(-s.cfg.Retention))
}

const expiredSQL = `
select c.relname, p.relname, i.inhdetachpending, substring(pg_get_expr(p.relpartbound, p.oid) from 'FROM \(''([0-9a-f-]{36})''\)')::uuid,
  substring(pg_get_expr(p.relpartbound, p.oid) from 'TO \(''([0-9a-f-]{36})''\)')::uuid
from pg_inherits i join pg_class p on p.oid = i.inhrelid join pg_class c on c.oid = i.inhparent
where c.relnamespace = $1::regnamespace and c.relkind = 'p'
  and (i.inhdetachpending or substring(pg_get_expr(p.relpartbound, p.oid) from 'TO \(''([0-9a-f-]{36})''\)') <= $2)
  and abs(extract(epoch from now()) - $3) < 3600
union all
select '', p.relname, false, null, null
from pg_class p
where p.relnamespace = $1::regnamespace and p.relkind = 'r' and p.relname ~ '_[0-9]{8}$' and to_date(right(p.relname, 8), 'YYYYMMDD') < to_timestamp($4)
  and not exists (select 1 from pg_inherits i where i.inhrelid = p.oid)
  and abs(extract(epoch from now()) - $3) < 3600
order by 2`

// expireLimit is for all that expires of a shard in one round. What it cuts off is finished in the next.
const expireLimit = time.Minute

type expiredPartition struct {
	Parent, Name string // no parent: detached by an earlier run that was cut off before the drop
	Pending      bool   // an earlier detach was cut off half-way
	From, To     *[16]byte
}

// expire detaches and drops the partitions that end before a time. Detaching CONCURRENTLY waits for
// readers but lets writers pass; what a crash cut off is finished at the next run.
// Nothing expires while the server's clock and ours disagree by an hour: one of them would drop what is young.
func (s *Shards) expire(ctx context.Context, sh *Shard, before time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, expireLimit)
	defer cancel()
	conn, err := sh.Server.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	rows, err := conn.Query(ctx, expiredSQL, sh.Name, bound(before), float64(time.Now().Unix()), float64(before.Unix()))
	if err != nil {
		return err
	}
	old, err := pgx.CollectRows(rows, pgx.RowToStructByPos[expiredPartition])
	if err != nil {
		return err
	}
	for _, p := range old {
		if needed, err := s.needed(ctx, sh, &p); err != nil {
			return fmt.Errorf("expire %s.%s: %w", sh.Name, p.Name, err)
		} else if needed > 0 {
			s.cfg.Log.Debug("old partition still needed", zap.String("shard", sh.Name), zap.String("partition", p.Name), zap.Int("rows", needed))
			continue
		}
		how := "concurrently"
		if p.Pending {
			how = "finalize"
		}
		steps := []string{fmt.Sprintf("drop table if exists %s.%s", sh.Name, p.Name)}
		if p.Parent != "" {
			steps = append([]string{fmt.Sprintf("alter table %s.%s detach partition %s.%s %s", sh.Name, p.Parent, sh.Name, p.Name, how)}, steps...)
		}
		for _, sql := range steps {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("expire %s.%s: %w", sh.Name, p.Name, err)
			}
		}
		s.cfg.Log.Info("partition expired", zap.String("shard", sh.Name), zap.String("partition", p.Name))
	}
	return nil
}

// needed counts the rows that keep a partition. What belongs together, a submission and its messages, has ids made within
// a minute, so the neighbours count too.
func (s *Shards) needed(ctx context.Context, sh *Shard, p *expiredPartition) (int, error) {
	if s.cfg.Needed == nil || p.From == nil || p.To == nil || p.Pending {
		return 0, nil
	}
	return s.cfg.Needed(ctx, sh.Name, shifted(*p.From, -time.Minute), shifted(*p.To, time.Minute))
}

// shifted is the first id made a while after, or before, a bound of a partition.
func shifted(id [16]byte, by time.Duration) [16]byte {
	var ms [8]byte
	copy(ms[2:], id[:6])
	t := max(int64(binary.BigEndian.Uint64(ms[:]))+by.Milliseconds(), 0)
	var out [16]byte
	binary.BigEndian.PutUint64(ms[:], uint64(t))
	copy(out[:6], ms[2:])
	return out
}
