package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
)

// Scheduled is a message whose time has not come.
type Scheduled struct {
	ID      sender.ID
	SendAt  time.Time
	Email   string
	Sender  string
	Subject string
}

const (
	// The range of send_at leaves out what was sent long ago; what is overdue because a server was away is in it.
	scheduledSQL = `
select m.id, m.send_at, m.email, s.sender, s.subject
from messages m join search s on s.account_id = m.account_id and s.id = m.id
where m.account_id = $1 and m.send_at > now() - interval '1 day' and m.state = 4 and ($2 = '' or lower(m.email) = lower($2))
order by m.send_at, m.id limit $3`

	scheduledOneSQL = `
select m.id, m.send_at, m.email, s.sender, s.subject
from messages m join search s on s.account_id = m.account_id and s.id = m.id
where m.account_id = $1 and m.id = $2 and s.account_id = $1 and s.id = $2 and m.state = 4 and m.claimed_by is null
for update of m`

	rescheduleSQL = `
update messages set send_at = $3, next_attempt_at = $3, ver = ver + 1,
  expires_at = case when perishable then expires_at else expires_at + ($3 - send_at) end
where account_id = $1 and id = $2 and (not perishable or $3 < expires_at)`
)

func scanScheduled(r pgx.CollectableRow) (Scheduled, error) {
	var m Scheduled
	err := r.Scan((*[16]byte)(&m.ID), &m.SendAt, &m.Email, &m.Sender, &m.Subject)
	return m, err
}

// Scheduled lists an account's messages whose time has not come, the next first; to an address only, if one is given.
func (s *Store) Scheduled(ctx context.Context, account int64, to string, limit int) ([]Scheduled, error) {
	var out []Scheduled
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, scheduledSQL, account, to, limit)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, scanScheduled)
		return err
	})
	return out, err
}

// Reschedule moves a scheduled message to another time, under the same conditions as a cancel.
func (s *Store) Reschedule(ctx context.Context, account int64, id sender.ID, at time.Time) (Scheduled, error) {
	return s.change(ctx, account, id, func(ctx context.Context, tx pgx.Tx, m *Scheduled) error {
		m.SendAt = at
		tag, err := tx.Exec(ctx, rescheduleSQL, account, [16]byte(id), at)
		if err == nil && tag.RowsAffected() == 0 { // the row is there and locked
			return sender.Invalid("send_at", "is not before the time at which the message expires")
		}
		return err
	})
}

// change runs fn on a scheduled message under its row lock: a claim that comes meanwhile passes it by, and one that came
// before makes it not found.
func (s *Store) change(ctx context.Context, account int64, id sender.ID, fn func(context.Context, pgx.Tx, *Scheduled) error) (Scheduled, error) {
	var m Scheduled
	err := s.shards.Write(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, scheduledOneSQL, account, [16]byte(id))
		if err != nil {
			return err
		}
		if m, err = pgx.CollectExactlyOneRow(rows, scanScheduled); err != nil {
			return err
		}
		return fn(ctx, tx, &m)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return m, err
}

// Backlog counts a shard's messages that are in nobody's hands.
type Backlog struct {
	Scheduled int // their time has not come
	Retrying  int // they were tried and will be again
	Due       int // they could be sent now
}

const backlogSQL = `
select count(*) filter (where state = 4 and next_attempt_at > now()), count(*) filter (where state <> 4 and next_attempt_at > now()),
       count(*) filter (where next_attempt_at <= now())
from messages where next_attempt_at is not null and claimed_by is null`

// Backlog reads a shard's index of what is due. It is for people: it reads all of it.
func (s *Store) Backlog(ctx context.Context, shard string) (Backlog, error) {
	var b Backlog
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, backlogSQL).Scan(&b.Scheduled, &b.Retrying, &b.Due)
	})
	return b, err
}
