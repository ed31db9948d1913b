// Package store holds all SQL of the sender's tables. Each text stands beside the function that runs it;
// a test prepares every one of them in a migrated shard.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/shards"
)

// Store reads and writes the sender's rows through the shards.
type Store struct {
	shards *shards.Shards
}

// New makes a store.
func New(s *shards.Shards) *Store { return &Store{shards: s} }

// ErrNotFound says that the account has no such row.
var ErrNotFound = errors.New("not found")

const (
	// Claims made by rows are due in an hour; the classes are named so that the indexes of what is due can be used.
	heldColumns = `
select account_id, id from messages where claimed_by = $1 and id >= $2
union select account_id, id from messages where claimed_by = $1 and class = 0 and next_attempt_at <= now() + interval '1 hour'
union select account_id, id from messages where claimed_by = $1 and class > 0 and next_attempt_at <= now() + interval '1 hour'`

	freeSQL = `
with lost as materialized (` + heldColumns + `)
update messages m set claimed_by = null, state = case when attempt > 1 then 3 else 1 end, next_attempt_at = now(),
  crashes = crashes + 1, class = case when crashes > 0 then 3 else class end
from lost where m.account_id = lost.account_id and m.id = lost.id and m.claimed_by = $1`

	heldSQL = `select account_id, id from (` + heldColumns + `) x where id < $3 limit 10000`

	releaseSQL = `
update messages m set claimed_by = null, state = case when attempt - $4::smallint > 0 then 3 else 1 end,
  attempt = attempt - $4::smallint, next_attempt_at = now() + make_interval(secs => $5)
from unnest($2::uuid[], $6::int8[]) as u(id, account_id)
where m.account_id = u.account_id and m.id = u.id and m.claimed_by = $1 and m.id >= $3`
)

// Free gives back everything that a dead instance held in a shard, and says how many. One of those messages may be why the
// instance ended: each is noted to have crashed, and at the second time it is taken one at a time.
func (s *Store) Free(ctx context.Context, shard string, dead shards.Instance) (int64, error) {
	var n int64
	err := s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, freeSQL, dead.ID, dead.Floor)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// Ref names a message.
type Ref struct {
	Account int64
	ID      sender.ID
}

// Lowest is the smallest id of some messages.
func Lowest(refs []Ref) sender.ID {
	low, _ := span(refs, func(r Ref) sender.ID { return r.ID })
	return low
}

// span is the smallest and the largest id of some items, the bounds by which a statement leaves out partitions.
func span[T any](items []T, id func(T) sender.ID) (low, high sender.ID) {
	low, high = id(items[0]), id(items[0])
	for _, x := range items[1:] {
		switch at := id(x); {
		case at.Before(low):
			low = at
		case high.Before(at):
			high = at
		}
	}
	return low, high
}

// MaxHeld is how many messages Held lists at once.
const MaxHeld = 10_000

// Held lists what this instance holds in a shard by its rows, made before a time: a claim whose commit was
// never confirmed is here and in nobody's memory.
func (s *Store) Held(ctx context.Context, shard string, floor sender.ID, before time.Time) ([]Ref, error) {
	var out []Ref
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, heldSQL, s.shards.Instance(), [16]byte(floor), [16]byte(sender.IDAt(before)))
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (Ref, error) {
			var ref Ref
			err := r.Scan(&ref.Account, (*[16]byte)(&ref.ID))
			return ref, err
		})
		return err
	})
	return out, err
}

// Release gives back some of this instance's own claims, to be due after a while. made says that the attempt they
// were claimed for may have been made, and so stays counted.
func (s *Store) Release(ctx context.Context, shard string, refs []Ref, after time.Duration, made bool) error {
	if len(refs) == 0 {
		return nil
	}
	unmade := int16(1)
	if made {
		unmade = 0
	}
	ids, accounts := make([][16]byte, len(refs)), make([]int64, len(refs))
	for i, r := range refs {
		ids[i], accounts[i] = r.ID, r.Account
	}
	return s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, releaseSQL, s.shards.Instance(), ids, [16]byte(Lowest(refs)), unmade, after.Seconds(), accounts)
		return err
	})
}
