package store

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/shards"
)

// Fact is something that happened to a message, on its way into the ledger.
type Fact struct {
	Account int64
	Message sender.ID
	State   sender.State
	Kind    sender.EventKind
	// Attempt is the attempt whose outcome this is: it counts only while this instance holds the message in
	// that attempt. 0 for a fact from outside, which counts only while the message is delivered.
	Attempt int
	Next    time.Time // of the next attempt; zero for none
	At      time.Time
	Reply   sender.Reply
	// Reject puts this address on the do-not-send list of the account, or of the message's subaccount if it has one,
	// unless it is on the allowlist: for RejectFor, or if that is 0 for the usual life of the Reason. The Reason of a
	// fact that leads to the state Rejected stays with the message.
	Reject    string
	Reason    sender.RejectReason
	RejectFor time.Duration
	Crashed   bool // the attempt ended inside us
	// Transcript is the dialogue of the attempt; empty for none. It is kept with the event.
	Transcript string
}

const (
	ledgerMoved = `
with u as materialized (
  select * from unnest($1::int8[], $2::uuid[], $3::int2[], $4::int2[], $5::int2[], $6::timestamptz[], $7::timestamptz[],
                       $8::text[], $9::text[], $10::text[], $11::timestamptz[], $16::int2[])
    as t(a, id, state, kind, attempt, next, at, data, reject, reason, until, crashed)),
m as (
  update @messages x set state = u.state, ver = x.ver + 1, seq = x.seq + 1, claimed_by = null, next_attempt_at = u.next,
         reply = case when u.state = 5 then null else split_part(u.data, chr(30), 1) end, crashes = case when u.crashed = 1 then x.crashes + 1 else 0 end,
         reason = case when u.state = 8 then u.reason else x.reason end
  from u where x.account_id = u.a and x.id = u.id and x.id between $12::uuid and $13::uuid
    and case when u.attempt = 0 then x.state = 5 else x.claimed_by = $14::uuid and x.attempt = u.attempt end
  returning x.account_id, x.id, x.ver, x.seq, u.state, u.kind, u.attempt, u.at, u.data, u.reject, u.reason, u.until),
s as (
  update @search x set state = m.state, ver = m.ver
  from m where x.account_id = m.account_id and x.id = m.id and x.id between $12::uuid and $13::uuid
  returning m.account_id, m.attempt, m.data, m.reject, m.reason, m.until, coalesce(x.subaccount, '') as subaccount),
`

	// A recipient's word counts whatever became of the message.
	ledgerWord = `
w as (
  select u.a as account_id, u.attempt, u.data, u.reject, u.reason, u.until, coalesce(x.subaccount, '') as subaccount
  from u join @search x on x.account_id = u.a and x.id = u.id and x.id between $12::uuid and $13::uuid
  where u.state = 10 and not exists (select from m where m.account_id = u.a and m.id = u.id)),
`

	ledgerListed = `
r as (
  insert into @rejects as j (account_id, email, subaccount, reason, detail, source, expires_at)
  select distinct on (account_id, reject, subaccount) account_id, reject, subaccount, reason, split_part(data, chr(30), 1),
         case when reason = 'unsub' then 'link' when attempt = 0 then 'report' else 'smtp' end, until
  from `

	ledgerTold = `
  where reject <> '' and not exists (select from @allowlist a where a.account_id = s.account_id and a.email = s.reject)
  order by account_id, reject, subaccount, until desc nulls first
  on conflict (account_id, email, subaccount) do update set last_event_at = now(),
    created_at = case when j.expires_at <= now() then now() else j.created_at end,
    reason = case when excluded.expires_at is null or j.expires_at <= excluded.expires_at then excluded.reason else j.reason end,
    detail = case when excluded.expires_at is null or j.expires_at <= excluded.expires_at then excluded.detail else j.detail end,
    source = case when excluded.expires_at is null or j.expires_at <= excluded.expires_at then excluded.source else j.source end,
    expires_at = case when j.expires_at is null or excluded.expires_at is null then null else greatest(j.expires_at, excluded.expires_at) end),
o as (
  insert into @event_outbox (id, ids) select $15::uuid, array_agg(id) from m having count(*) > 0)
insert into @events (account_id, message_id, seq, kind, attempt, at, data)
select account_id, id, seq, kind, attempt, at, data from m`

	// ledgerSQL moves the state, writes the event, the search row, the outbox and the do-not-send list together.
	// What no longer holds (another attempt, another holder, a state already left) changes nothing, so it may run twice.
	ledgerSQL = ledgerMoved + ledgerListed + `s` + ledgerTold

	// wordSQL does the same for what recipients say. It is a text of its own because one more look at a partitioned table costs
	// every statement 60 µs a message, and words are rare.
	wordSQL = ledgerMoved + ledgerWord + ledgerListed + `(select * from s union all select * from w) s` + ledgerTold
)

// LedgerStatement is how the ledger group records facts.
func (s *Store) LedgerStatement() shards.Statement[*Fact] {
	me := s.shards.Instance()
	return shards.Statement[*Fact]{Name: "ledger", SQL: ledgerSQL,
		Encode: func(p *shards.Params, items []*Fact) { encodeFacts(p, items, me) }}
}

// WordStatement is how the ledger group records what recipients say.
func (s *Store) WordStatement() shards.Statement[*Fact] {
	st := s.LedgerStatement()
	st.Name, st.SQL = "word", wordSQL
	return st
}

func encodeFacts(p *shards.Params, f []*Fact, me [16]byte) {
	n := len(f)
	low, high := span(f, func(x *Fact) sender.ID { return x.Message })
	p.Int8s(n, func(i int) int64 { return f[i].Account })
	p.UUIDs(n, func(i int) [16]byte { return f[i].Message })
	p.Int2s(n, func(i int) int16 { return int16(f[i].State) })
	p.Int2s(n, func(i int) int16 { return int16(f[i].Kind) })
	p.Int2s(n, func(i int) int16 { return int16(f[i].Attempt) })
	p.Times(n, func(i int) time.Time { return f[i].Next })
	p.Times(n, func(i int) time.Time { return f[i].At })
	p.Texts(n, func(i int) string { return encodeData(f[i]) })
	p.Texts(n, func(i int) string { return ListKey(f[i].Reject) })
	p.Texts(n, func(i int) string { return string(f[i].Reason) })
	p.Times(n, func(i int) time.Time {
		return f[i].until()
	})
	p.UUID(low)
	p.UUID(high)
	p.UUID(me)
	p.UUID(sender.NewID())
	p.Int2s(n, func(i int) int16 {
		if f[i].Crashed {
			return 1
		}
		return 0
	})
}

// until is when the entry of the do-not-send list ends; zero for never.
func (f *Fact) until() time.Time {
	life := cmp.Or(f.RejectFor, RejectLife(f.Reason))
	if life == 0 {
		return time.Time{}
	}
	return f.At.Add(life)
}

// encodeData is what an event keeps: the reply and, behind a record separator (which neither holds), the transcript.
func encodeData(f *Fact) string {
	if f.Transcript == "" {
		return encodeReply(f.Reply)
	}
	return encodeReply(f.Reply) + "\x1e" + strings.Map(func(r rune) rune {
		if r == 0 || r == 0x1e {
			return -1
		}
		return r
	}, strings.ToValidUTF8(f.Transcript, "\uFFFD"))
}

// encodeReply is a reply as the events keep it: code, enhanced code, stage, host and text, by tabs. It is
// written for every message, so it is not JSON.
func encodeReply(r sender.Reply) string {
	return fmt.Sprintf("%d\t%s\t%s\t%s\t%s", r.Code, r.Enhanced, r.Stage, r.Host, strings.ReplaceAll(r.Text, "\x00", ""))
}

func decodeReply(s string) sender.Reply {
	f := strings.SplitN(s, "\t", 5)
	if len(f) != 5 {
		return sender.Reply{Text: s}
	}
	var r sender.Reply
	_, _ = fmt.Sscan(f[0], &r.Code)
	r.Enhanced, r.Stage, r.Host, r.Text = f[1], f[2], f[3], f[4]
	return r
}

const (
	outboxTakeSQL   = `select id, ids from event_outbox order by id limit $1`
	outboxDeleteSQL = `delete from event_outbox where id = any($1)`
)

// Batch is an outbox row: the messages to which something happened in one transaction.
type Batch struct {
	ID  [16]byte
	IDs [][16]byte
}

// Outbox reads up to limit rows that are still to be told. No transaction stays open while they are.
func (s *Store) Outbox(ctx context.Context, shard string, limit int) ([]Batch, error) {
	var out []Batch
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, outboxTakeSQL, limit)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Batch])
		return err
	})
	return out, err
}

// Told deletes outbox rows that were told.
func (s *Store) Told(ctx context.Context, shard string, ids [][16]byte) error {
	return s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, outboxDeleteSQL, ids)
		return err
	})
}
