package store

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/shards"
)

// Cancelling is a scheduled message on its way to being cancelled.
type Cancelling struct {
	Account int64
	ID      sender.ID
	Request sender.ID  // names the request, so that a repeat of the statement knows what the first run did
	Done    *Scheduled // filled by the commit; nil when the message was not the account's, or not scheduled any more
}

// cancelSQL may run twice: what the same request has cancelled already is answered again and changes nothing. The last select
// sees the rows as they were before the statement.
const cancelSQL = `
with u as materialized (select * from unnest($1::int8[], $2::uuid[], $3::text[]) as t(a, id, request)),
m as (
  update @messages x set state = 11, ver = x.ver + 1, seq = x.seq + 1, next_attempt_at = null, reply = u.request
  from u where x.account_id = u.a and x.id = u.id and x.id between $4::uuid and $5::uuid and x.state = 4 and x.claimed_by is null
  returning x.account_id, x.id, x.ver, x.seq, x.send_at, x.email, x.reply),
s as (
  update @search x set state = 11, ver = m.ver
  from m where x.account_id = m.account_id and x.id = m.id and x.id between $4::uuid and $5::uuid),
e as (
  insert into @events (account_id, message_id, seq, kind, attempt, at, data) select account_id, id, seq, 7, 0, now(), reply from m),
o as (
  insert into @event_outbox (id, ids) select $6::uuid, array_agg(id) from m having count(*) > 0),
d as (
  select account_id, id, send_at, email, reply from m
  union all
  select x.account_id, x.id, x.send_at, x.email, x.reply from @messages x join u on x.account_id = u.a and x.id = u.id
  where x.id between $4::uuid and $5::uuid and x.state = 11 and x.reply = u.request)
select d.id, (extract(epoch from d.send_at) * 1000000)::int8, d.email, s.sender, s.subject, d.reply
from d join @search s on s.account_id = d.account_id and s.id = d.id and s.id between $4::uuid and $5::uuid`

// CancelStatement is how a group cancels scheduled messages.
func (s *Store) CancelStatement() shards.Statement[*Cancelling] {
	return shards.Statement[*Cancelling]{Name: "cancel", SQL: cancelSQL, Encode: encodeCancelling, Scan: scanCancelled}
}

func encodeCancelling(p *shards.Params, c []*Cancelling) {
	n := len(c)
	low, high := span(c, func(x *Cancelling) sender.ID { return x.ID })
	for _, x := range c {
		x.Done = nil // of an earlier run
	}
	p.Int8s(n, func(i int) int64 { return c[i].Account })
	p.UUIDs(n, func(i int) [16]byte { return c[i].ID })
	p.Texts(n, func(i int) string { return c[i].reply() })
	p.UUID(low)
	p.UUID(high)
	p.UUID(sender.NewID())
}

// reply is what the message's event says.
func (c *Cancelling) reply() string {
	return encodeReply(sender.Reply{Stage: "cancel", Text: "cancelled by request " + c.Request.String()})
}

func scanCancelled(items []*Cancelling, row [][]byte) error {
	if len(row) != 6 || len(row[0]) != 16 || len(row[1]) != 8 {
		return errors.New("the cancel statement answered in another shape")
	}
	done := &Scheduled{ID: sender.ID(row[0]), SendAt: time.UnixMicro(int64(binary.BigEndian.Uint64(row[1]))).UTC(), Email: string(row[2]),
		Sender: string(row[3]), Subject: string(row[4])}
	for _, c := range items {
		if c.reply() == string(row[5]) { // not by the id, for which others may have asked too
			c.Done = done
			return nil
		}
	}
	return nil
}
