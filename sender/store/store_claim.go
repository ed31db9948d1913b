package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
)

const (
	// Each class has its own way through an index, so that a million rows of one are not looked at for another's. In the
	// bulk classes, up to 20 accounts after a cursor get an equal part, important mail first; they are found by skipping
	// through the index from one account to the next.
	claimSQL = `
with recursive up as (
  (select account_id from messages where class > 0 and next_attempt_at is not null and account_id > $4 and $3 > 0
     and (exists (select from messages where class = 1 and next_attempt_at <= now() and claimed_by is null)
       or exists (select from messages where class = 2 and next_attempt_at <= now() and claimed_by is null))
   order by account_id limit 1)
  union all
  select (select m.account_id from messages m where m.class > 0 and m.next_attempt_at is not null and m.account_id > up.account_id order by m.account_id limit 1)
  from up where up.account_id is not null),
who as materialized (
  select up.account_id from up, lateral (
    select from (values (1), (2)) as c(class), lateral (
      select from messages m
      where m.account_id = up.account_id and m.class = c.class and m.class > 0 and m.next_attempt_at <= now() and m.claimed_by is null limit 1) x
    limit 1) y
  where up.account_id <> all($6::int8[]) limit 20),
part as materialized (select 1 + $3 / greatest(count(*), 1) as n from who),
bulk as (
  select account_id, id from (
    select d.*, row_number() over (partition by d.account_id order by d.class, d.next_attempt_at) as nth
    from who, (values (1), (2)) as c(class), lateral (
      select m.account_id, m.id, m.class, m.next_attempt_at from messages m
      where m.account_id = who.account_id and m.class = c.class and m.class > 0 and m.next_attempt_at <= now() and m.claimed_by is null
      order by m.next_attempt_at limit (select n from part) for update skip locked) d) x
  where nth <= (select n from part) order by nth limit $3),
prompt as (
  select account_id, id from messages
  where class = 0 and next_attempt_at <= now() and claimed_by is null and account_id <> all($6)
  order by next_attempt_at limit $2 for update skip locked),
suspect as (
  select account_id, id from messages
  where class = 3 and next_attempt_at <= now() and claimed_by is null and account_id <> all($6)
  order by next_attempt_at limit $5 for update skip locked),
due as (select * from prompt union all select * from bulk union all select * from suspect),
c as (
  update messages m set claimed_by = $1, state = 2, attempt = attempt + 1, next_attempt_at = now() + interval '1 hour'
  from due where m.account_id = due.account_id and m.id = due.id and m.claimed_by is null
  returning m.account_id, m.id, m.submission_id, m.attempt, m.kind, m.email, m.name, m.shown, m.expires_at, m.perishable, m.class, m.crashes, m.send_at)
select c.*, coalesce(octet_length(s.body), 0), case when octet_length(s.body) <= 65536 then s.body end
from c left join submissions s on s.account_id = c.account_id and s.id = c.submission_id`

	// By the server's clock, as claims are.
	dueSQL = `
select extract(epoch from least(
  (select min(next_attempt_at) from messages where class = 0 and next_attempt_at is not null and claimed_by is null and account_id <> all($1::int8[])),
  (select min(next_attempt_at) from messages where $3 and class = 1 and next_attempt_at is not null and claimed_by is null and account_id <> all($1)),
  (select min(next_attempt_at) from messages where $3 and class = 2 and next_attempt_at is not null and claimed_by is null and account_id <> all($1)),
  (select min(next_attempt_at) from messages where $2 and class = 3 and next_attempt_at is not null and claimed_by is null and account_id <> all($1))) - now())::float8`

	neededSQL = `
select count(*) from (
  (select from messages where class = 0 and next_attempt_at is not null and id >= $1 and id < $2 limit 1) union all
  (select from messages where class > 0 and next_attempt_at is not null and id >= $1 and id < $2 limit 1)) x`

	reviveSQL = `
with m as (
  update messages set state = 1, ver = ver + 1, class = 0, crashes = 0, claimed_by = null, next_attempt_at = now(),
    expires_at = case when perishable then expires_at else greatest(expires_at, now() + interval '1 day') end
  where id = any($1) and state = 13 returning account_id, id, ver),
s as (update search x set state = 1, ver = m.ver from m where x.account_id = m.account_id and x.id = m.id)
select count(*) from m`
)

// Take says how many messages of which classes a claim takes at most.
type Take struct {
	Prompt, Bulk, Suspect int
	After                 int64   // accounts take turns in bulk; this one was the last
	Without               []int64 // accounts whose mail stays
}

// Claimed is a message that this instance has in hand. Body is the encoded content, nil when it is over
// 64 KiB and has to be fetched when its turn comes; Size is its length either way.
type Claimed struct {
	sender.Message
	Body []byte
	Size int
	// Rejected says why the message must not be sent any more: its recipient came onto the do-not-send list after it
	// was accepted. Empty when it may be.
	Rejected sender.RejectReason
}

// Claim takes messages that are due in a shard and in nobody's hands, counting an attempt. It looks at the do-not-send
// list again: hours or days may have gone by since accept did.
func (s *Store) Claim(ctx context.Context, shard string, take Take) ([]Claimed, error) {
	var out []Claimed
	err := s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, claimSQL, s.shards.Instance(), take.Prompt, take.Bulk, take.After, take.Suspect, notNil(take.Without))
		if err != nil {
			return err
		}
		if out, err = pgx.CollectRows(rows, scanClaimed); err != nil {
			return err
		}
		return lookAgain(ctx, tx, out)
	})
	return out, err
}

func scanClaimed(r pgx.CollectableRow) (Claimed, error) {
	c := Claimed{Message: sender.Message{State: sender.Sending}}
	m := &c.Message
	var shown *string
	var sendAt *time.Time
	err := r.Scan(&m.Account, (*[16]byte)(&m.ID), (*[16]byte)(&m.Submission), &m.Attempt, &m.Recipient.Kind, &m.Recipient.Email,
		&m.Recipient.Name, &shown, &m.Expires, &m.Perishable, &m.Class, &m.Crashes, &sendAt, &c.Size, &c.Body)
	m.Recipient.Shown = decodeShown(shown)
	if sendAt != nil {
		m.SendAt = *sendAt
	}
	return c, err
}

// notNil is for a comparison with all elements of an array, which with NULL holds for nothing.
func notNil(list []int64) []int64 {
	if list == nil {
		return []int64{}
	}
	return list
}

// Wanted says which messages are asked for beside the prompt ones.
type Wanted struct {
	Bulk, Suspect bool
	Without       []int64 // accounts whose mail does not count
}

// Never is what Due answers when nothing waits.
const Never = 1<<63 - 1

// Due is how long it takes, by the server's clock, until the first of a shard's messages that are in nobody's hands is due;
// negative when it is already, Never when there is none. Only what is wanted counts.
func (s *Store) Due(ctx context.Context, shard string, w Wanted) (time.Duration, error) {
	var seconds *float64
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, dueSQL, notNil(w.Without), w.Suspect, w.Bulk).Scan(&seconds)
	})
	if seconds == nil {
		return Never, err
	}
	return time.Duration(*seconds * float64(time.Second)), err
}

// Revive has dead messages tried again, and says how many there were. One that had outlived its life gets a day.
func (s *Store) Revive(ctx context.Context, shard string, ids [][16]byte) (int, error) {
	var n int
	err := s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, reviveSQL, ids).Scan(&n)
	})
	return n, err
}

// Needed says whether a shard holds messages made between two ids that are still to be sent: 0 when not. A schedule may be
// older than what is kept otherwise.
func (s *Store) Needed(ctx context.Context, shard string, from, to [16]byte) (int, error) {
	var n int
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, neededSQL, from, to).Scan(&n)
	})
	return n, err
}
