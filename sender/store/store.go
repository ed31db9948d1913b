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
	claimSQL = `
with due as (
  select account_id, id from messages
  where next_attempt_at <= now() and claimed_by is null
  order by next_attempt_at limit $2 for update skip locked),
c as (
  update messages m set claimed_by = $1, state = 2, attempt = attempt + 1, next_attempt_at = now() + interval '1 hour'
  from due where m.account_id = due.account_id and m.id = due.id and m.claimed_by is null
  returning m.account_id, m.id, m.submission_id, m.attempt, m.kind, m.email, m.name, m.shown, m.expires_at)
select c.*, coalesce(octet_length(s.body), 0), case when octet_length(s.body) <= 65536 then s.body end
from c left join submissions s on s.account_id = c.account_id and s.id = c.submission_id`

	freeSQL = `
update messages set claimed_by = null, state = case when attempt > 1 then 3 else 1 end, next_attempt_at = now()
where claimed_by = $1 and (id >= $2 or next_attempt_at is not null)`

	heldSQL = `
select account_id, id from messages where claimed_by = $1 and (id >= $2 or next_attempt_at is not null) and id < $3 limit 10000`

	releaseSQL = `
update messages m set claimed_by = null, state = case when attempt - $4::smallint > 0 then 3 else 1 end,
  attempt = attempt - $4::smallint, next_attempt_at = now() + make_interval(secs => $5)
from unnest($2::uuid[], $6::int8[]) as u(id, account_id)
where m.account_id = u.account_id and m.id = u.id and m.claimed_by = $1 and m.id >= $3`

	dueSQL = `
select min(next_attempt_at) from messages where next_attempt_at is not null and claimed_by is null`
)

// Claimed is a message that this instance has in hand. Body is the encoded content, nil when it is over
// 64 KiB and has to be fetched when its turn comes; Size is its length either way.
type Claimed struct {
	sender.Message
	Body []byte
	Size int
}

// Claim takes up to limit messages that are due in a shard and in nobody's hands, counting an attempt.
func (s *Store) Claim(ctx context.Context, shard string, limit int) ([]Claimed, error) {
	var out []Claimed
	err := s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, claimSQL, s.shards.Instance(), limit)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (Claimed, error) {
			c := Claimed{Message: sender.Message{State: sender.Sending}}
			m := &c.Message
			var shown *string
			err := r.Scan(&m.Account, (*[16]byte)(&m.ID), (*[16]byte)(&m.Submission), &m.Attempt, &m.Recipient.Kind,
				&m.Recipient.Email, &m.Recipient.Name, &shown, &m.Expires, &c.Size, &c.Body)
			m.Recipient.Shown = decodeShown(shown)
			return c, err
		})
		return err
	})
	return out, err
}

// Free gives back everything that a dead instance held in a shard, and says how many.
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
	lowest, ids, accounts := refs[0].ID, make([][16]byte, len(refs)), make([]int64, len(refs))
	for i, r := range refs {
		ids[i], accounts[i] = r.ID, r.Account
		if string(r.ID[:]) < string(lowest[:]) {
			lowest = r.ID
		}
	}
	return s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, releaseSQL, s.shards.Instance(), ids, [16]byte(lowest), unmade, after.Seconds(), accounts)
		return err
	})
}

// Due is when the first of a shard's messages that are in nobody's hands is due, or was; the zero time when there is none.
func (s *Store) Due(ctx context.Context, shard string) (time.Time, error) {
	var at *time.Time
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, dueSQL).Scan(&at)
	})
	if at == nil {
		return time.Time{}, err
	}
	return *at, err
}
