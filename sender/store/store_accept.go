package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/shards"
)

// Accepted is a submission on its way into its shard, with the messages made of it.
type Accepted struct {
	Submission *sender.Submission
	Messages   []sender.Message
	Metadata   []string // of each message, as JSON; "" for none
	Body       []byte   // the content's stored form
	Claimed    bool     // the messages are born in this instance's hands
	// Rejected is filled by the commit: why a message will not be sent, by id.
	Rejected map[sender.ID]sender.RejectReason
}

// acceptSQL stores submissions, messages and search rows in one statement. The do-not-send list is looked up
// in the same breath: what it holds, and the allowlist does not, is born rejected. The allowlist and subaccounts
// are looked at only for an address that is on the list. It may run twice: ids decide.
const acceptSQL = `
with s as (
  insert into @submissions (account_id, id, body)
  select * from unnest($1::int8[], $2::uuid[], $3::bytea[]) on conflict do nothing),
u as materialized (
  select t.*, r.reason
  from unnest($4::int8[], $5::uuid[], $6::uuid[], $7::int2[], $8::int2[], $9::timestamptz[], $10::text[], $11::text[],
              $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::timestamptz[],
              $20::int2[], $21::text[])
    as t(a, id, sub, kind, held, expires, email, name, shown, sender, subject, tags, metadata, subaccount, send_at, traits, key)
  left join lateral (
    select reason from @rejects x
    where x.account_id = t.a and x.email = t.key and (x.subaccount = '' or x.subaccount = t.subaccount)
      and (x.expires_at is null or x.expires_at > now())
      and not exists (select from @allowlist w where w.account_id = x.account_id and w.email = x.email)
    limit 1) r on true),
m as (
  insert into @messages (account_id, id, submission_id, state, attempt, kind, claimed_by, next_attempt_at, expires_at, email, name, shown, reason, send_at,
    class, perishable)
  select a, id, sub, case when reason is not null then 8 when send_at is not null then 4 when held = 1 then 2 else 1 end,
         case when reason is null then held else 0 end, kind, case when reason is null and held = 1 then $19::uuid end,
         case when reason is null and held = 0 then coalesce(send_at, now()) end, expires, email, name, nullif(shown, ''), reason, send_at,
         traits >> 1, traits & 1 = 1 from u on conflict do nothing),
x as (
  insert into @search (account_id, id, state, email, sender, subject, tags, metadata, subaccount)
  select a, id, case when reason is not null then 8 when send_at is not null then 4 when held = 1 then 2 else 1 end, email, sender, subject,
         string_to_array(nullif(tags, ''), chr(31)), nullif(metadata, '')::jsonb, nullif(subaccount, '') from u on conflict do nothing)
select id, reason from u where reason is not null`

// AcceptStatement is how the accept group stores submissions.
func (s *Store) AcceptStatement() shards.Statement[*Accepted] {
	me := s.shards.Instance()
	return shards.Statement[*Accepted]{Name: "accept", SQL: acceptSQL, Scan: scanRejected,
		Encode: func(p *shards.Params, items []*Accepted) { encodeAccepted(p, items, me) }}
}

type acceptRow struct {
	in *Accepted
	m  *sender.Message
	i  int
}

func encodeAccepted(p *shards.Params, items []*Accepted, me [16]byte) {
	n, bytes := 0, 0
	for _, it := range items {
		it.Rejected = nil // of an earlier try
		n += len(it.Messages)
		bytes += len(it.Body)
	}
	rows := make([]acceptRow, 0, n)
	for _, it := range items {
		for i := range it.Messages {
			rows = append(rows, acceptRow{it, &it.Messages[i], i})
		}
	}
	k := len(items)
	p.Int8s(k, func(i int) int64 { return items[i].Submission.Account })
	p.UUIDs(k, func(i int) [16]byte { return items[i].Submission.ID })
	p.Byteas(k, bytes, func(i int) []byte { return items[i].Body })
	p.Int8s(n, func(i int) int64 { return rows[i].m.Account })
	p.UUIDs(n, func(i int) [16]byte { return rows[i].m.ID })
	p.UUIDs(n, func(i int) [16]byte { return rows[i].m.Submission })
	p.Int2s(n, func(i int) int16 { return int16(rows[i].m.Recipient.Kind) })
	p.Int2s(n, func(i int) int16 {
		if rows[i].in.Claimed {
			return 1
		}
		return 0
	})
	p.Times(n, func(i int) time.Time { return rows[i].m.Expires })
	p.Texts(n, func(i int) string { return rows[i].m.Recipient.Email })
	p.Texts(n, func(i int) string { return rows[i].m.Recipient.Name })
	p.Texts(n, func(i int) string { return encodeShown(rows[i].m.Recipient.Shown) })
	p.Texts(n, func(i int) string { return rows[i].in.Submission.Content.From.Email })
	p.Texts(n, func(i int) string { return rows[i].in.Submission.Content.Subject })
	p.Texts(n, func(i int) string { return strings.Join(rows[i].in.Submission.Tags, "\x1f") })
	p.Texts(n, func(i int) string { return rows[i].in.Metadata[rows[i].i] })
	p.Texts(n, func(i int) string { return rows[i].in.Submission.Subaccount })
	p.Times(n, func(i int) time.Time { return rows[i].in.Submission.SendAt })
	p.UUID(me)
	p.Int2s(n, func(i int) int16 { return traits(rows[i].m) })
	p.Texts(n, func(i int) string { return ListKey(rows[i].m.Recipient.Email) })
}

// traits packs what is 0 for nearly every message: its class, and whether it is perishable.
func traits(m *sender.Message) int16 {
	t := int16(m.Class) << 1
	if m.Perishable {
		t |= 1
	}
	return t
}

func encodeShown(a sender.Address) string {
	if a.Email == "" {
		return ""
	}
	return a.Email + "\t" + a.Name
}

func decodeShown(s *string) sender.Address {
	if s == nil {
		return sender.Address{}
	}
	email, name, _ := strings.Cut(*s, "\t")
	return sender.Address{Email: email, Name: name}
}

func scanRejected(items []*Accepted, row [][]byte) error {
	if len(row) != 2 || len(row[0]) != 16 {
		return errors.New("the accept statement answered in another shape")
	}
	id := sender.ID(row[0])
	for _, it := range items {
		for i := range it.Messages {
			if it.Messages[i].ID == id {
				it.reject(i, sender.RejectReason(row[1]))
				return nil
			}
		}
	}
	return nil
}

func (a *Accepted) reject(i int, why sender.RejectReason) {
	if a.Rejected == nil {
		a.Rejected = map[sender.ID]sender.RejectReason{}
	}
	a.Rejected[a.Messages[i].ID] = why
}

// Repeat is what a send with a known idempotency key was answered at first.
type Repeat struct {
	Digest [32]byte
	Answer []byte
}

const (
	idempotencyLockSQL = `select pg_advisory_xact_lock(hashtextextended($1::text || ' ' || $2::text, 0))`
	idempotencyFindSQL = `select digest, answer from idempotency where account_id = $1 and key = $2 and id >= $3 order by id desc limit 1`
	idempotencySaveSQL = `insert into idempotency (account_id, key, id, digest, answer) values ($1, $2, $3, $4, $5)`
)

// IdempotencyLife is how long a key answers as it did at first.
const IdempotencyLife = 24 * time.Hour

// AcceptOnce stores a submission under its idempotency key, in one transaction with the answer that answer()
// makes of it; or returns the first answer when the key is known. The lock makes a repeat that runs at the
// same time wait for the first; a first try that failed has left nothing.
func (s *Store) AcceptOnce(ctx context.Context, a *Accepted, answer func() ([]byte, error)) (*Repeat, error) {
	var known *Repeat
	sub := a.Submission
	err := s.shards.Write(ctx, sub.Account, func(ctx context.Context, tx pgx.Tx) error {
		known = nil
		if _, err := tx.Exec(ctx, idempotencyLockSQL, fmt.Sprint(sub.Account), sub.IdempotencyKey); err != nil {
			return err
		}
		var digest []byte
		var r Repeat
		since := sender.IDAt(time.Now().Add(-IdempotencyLife))
		err := tx.QueryRow(ctx, idempotencyFindSQL, sub.Account, sub.IdempotencyKey, [16]byte(since)).Scan(&digest, &r.Answer)
		if err == nil {
			r.Digest = [32]byte(digest)
			known = &r
			return nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err := s.acceptIn(ctx, tx, a); err != nil {
			return err
		}
		text, err := answer()
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, idempotencySaveSQL, sub.Account, sub.IdempotencyKey, [16]byte(sub.ID), sub.Digest[:], text)
		return err
	})
	return known, err
}

func (s *Store) acceptIn(ctx context.Context, tx pgx.Tx, a *Accepted) error {
	return shards.Exec(ctx, tx, s.AcceptStatement(), []*Accepted{a})
}
