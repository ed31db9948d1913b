package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/net/idna"

	"github.com/postrider/postrider/sender"
)

// ListKey is an address in the form by which the do-not-send list and the allowlist know it: all in lower case, the
// domain as a host name in DNS (A-labels, RFC 5890). Case is folded in the local part too: RFC 5321 §2.4 lets a host tell
// Ann from ann, and none in use does. What stands behind a plus and dots are kept: they mean one mailbox at some
// providers and several at others, and a person who unsubscribes one address has not spoken for the other.
func ListKey(email string) string {
	email = strings.ToLower(email)
	at := strings.LastIndexByte(email, '@')
	for i := at + 1; i < len(email); i++ {
		if email[i] >= 0x80 {
			if ascii, err := idna.Lookup.ToASCII(email[at+1:]); err == nil {
				return email[:at+1] + ascii
			}
			break
		}
	}
	return email
}

const day = 24 * time.Hour

// RejectLife is how long an address stays on the do-not-send list for a reason, from the last time that there was one;
// 0 for ever. The times are Mandrill's.
func RejectLife(why sender.RejectReason) time.Duration {
	switch why {
	case sender.ReasonSoftBounce:
		return day
	case sender.ReasonHardBounce:
		return 7 * day
	case sender.ReasonSpam, sender.ReasonUnsub:
		return 365 * day
	}
	return 0
}

const (
	// The look-up of accept once more, for messages that were accepted earlier. Their subaccount is read only if there is
	// an entry for one.
	listedSQL = `
select t.i, r.reason
from unnest($1::int8[], $2::uuid[], $3::text[]) with ordinality as t(a, id, key, i), lateral (
  select reason from rejects x
  where x.account_id = t.a and x.email = t.key and (x.expires_at is null or x.expires_at > now())
    and (x.subaccount = '' or x.subaccount = (select s.subaccount from search s where s.account_id = t.a and s.id = t.id))
    and not exists (select from allowlist w where w.account_id = x.account_id and w.email = x.email)
  limit 1) r`

	rejectAddSQL = `
insert into rejects as j (account_id, email, subaccount, reason, detail, source)
select $1, $2, $3, 'custom', $4, 'api' where not exists (select from allowlist where account_id = $1 and email = $2)
on conflict (account_id, email, subaccount) do update set reason = excluded.reason, detail = excluded.detail,
  source = excluded.source, last_event_at = now(), expires_at = null,
  created_at = case when j.expires_at <= now() then now() else j.created_at end`

	rejectListSQL = `
select email, subaccount, reason, detail, source, created_at, last_event_at, expires_at, coalesce(expires_at <= now(), false)
from rejects
where account_id = $1 and ($2 = '' or email = $2) and ($3 = '' or subaccount = $3) and ($4 or expires_at is null or expires_at > now())
order by created_at desc, email limit $5`

	rejectDeleteSQL = `delete from rejects where account_id = $1 and email = $2 and ($3 = '' or subaccount = $3)`

	rejectForgetSQL = `
delete from rejects r using (select account_id, email, subaccount from rejects where expires_at < $1 limit 10000 for update skip locked) x
where r.account_id = x.account_id and r.email = x.email and r.subaccount = x.subaccount`

	allowAddSQL = `
with r as (delete from rejects where account_id = $1 and email = $2)
insert into allowlist (account_id, email, detail) values ($1, $2, $3)
on conflict (account_id, email) do update set detail = excluded.detail`

	// In the order of the bytes, which the index has, the addresses that begin with a text are a range.
	allowListSQL = `
select email, detail, created_at from allowlist
where account_id = $1 and email >= $2 and email < $2 || chr(1114111) order by email limit $3`

	allowDeleteSQL = `delete from allowlist where account_id = $1 and email = $2`
)

// lookAgain notes which of the messages just claimed are to addresses that are on the do-not-send list by now.
func lookAgain(ctx context.Context, tx pgx.Tx, claimed []Claimed) error {
	if len(claimed) == 0 {
		return nil
	}
	accounts, ids, keys := make([]int64, len(claimed)), make([][16]byte, len(claimed)), make([]string, len(claimed))
	for i := range claimed {
		accounts[i], ids[i], keys[i] = claimed[i].Account, claimed[i].ID, ListKey(claimed[i].Recipient.Email)
	}
	rows, err := tx.Query(ctx, listedSQL, accounts, ids, keys)
	if err != nil {
		return err
	}
	var nth int
	var why sender.RejectReason
	_, err = pgx.ForEachRow(rows, []any{&nth, &why}, func() error {
		claimed[nth-1].Rejected = why
		return nil
	})
	return err
}

// MaxListed is how many entries of the do-not-send list, or of the allowlist, are shown at once.
const MaxListed = 1000

// Listed is an entry of the do-not-send list.
type Listed struct {
	sender.Reject
	Subaccount string // whose mail alone it is for; empty for all of the account
	Source     string // smtp (a reply), report (a bounce or complaint by mail), link (unsubscribed) or api
	Created    time.Time
	Last       time.Time // when there was last a reason
	Expired    bool      // by the server's clock: mail is sent again
}

// AddReject puts an address on the do-not-send list for ever, and says how many entries that made or changed: none if the
// address is on the allowlist.
func (s *Store) AddReject(ctx context.Context, account int64, email, subaccount, detail string) (int64, error) {
	return s.changed(ctx, account, rejectAddSQL, account, ListKey(email), subaccount, detail)
}

// Rejects lists up to MaxListed entries of the do-not-send list, the newest first: all, or those of one address or one
// subaccount.
func (s *Store) Rejects(ctx context.Context, account int64, email, subaccount string, expired bool) ([]Listed, error) {
	var out []Listed
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, rejectListSQL, account, ListKey(email), subaccount, expired, MaxListed)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (Listed, error) {
			e := Listed{Reject: sender.Reject{Account: account}}
			var expires *time.Time
			err := r.Scan(&e.Email, &e.Subaccount, &e.Reason, &e.Detail, &e.Source, &e.Created, &e.Last, &expires, &e.Expired)
			if expires != nil {
				e.Expires = *expires
			}
			if e.Source != "api" { // the ledger keeps a reply as the events do
				e.Detail = replyText(decodeReply(e.Detail))
			}
			return e, err
		})
		return err
	})
	return out, err
}

// replyText is a reply as its sender wrote it, such as "550 5.1.1 No such user".
func replyText(r sender.Reply) string {
	text := strings.TrimSpace(r.Enhanced + " " + r.Text)
	if r.Code == 0 {
		return text
	}
	return fmt.Sprintf("%d %s", r.Code, text)
}

// DeleteReject takes an address off the do-not-send list: off that of one subaccount, or if none is named off all. It
// says how many entries there were.
func (s *Store) DeleteReject(ctx context.Context, account int64, email, subaccount string) (int64, error) {
	return s.changed(ctx, account, rejectDeleteSQL, account, ListKey(email), subaccount)
}

// ForgetAtOnce is how many entries one call of ForgetRejects deletes at most.
const ForgetAtOnce = 10_000

// ForgetRejects deletes up to ForgetAtOnce of a shard's entries that expired before a time, and says how many.
func (s *Store) ForgetRejects(ctx context.Context, shard string, before time.Time) (int64, error) {
	var n int64
	err := s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, rejectForgetSQL, before)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// Allowed is an entry of the allowlist.
type Allowed struct {
	Email   string
	Detail  string
	Created time.Time
}

// Allow puts an address on the allowlist and takes it off the do-not-send list.
func (s *Store) Allow(ctx context.Context, account int64, email, detail string) error {
	_, err := s.changed(ctx, account, allowAddSQL, account, ListKey(email), detail)
	return err
}

// Allowlist lists up to MaxListed addresses that begin with a text, by their bytes.
func (s *Store) Allowlist(ctx context.Context, account int64, prefix string) ([]Allowed, error) {
	if sender.CheckEmail(prefix) == nil {
		prefix = ListKey(prefix)
	}
	var out []Allowed
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, allowListSQL, account, strings.ToLower(prefix), MaxListed)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Allowed])
		return err
	})
	return out, err
}

// Disallow takes an address off the allowlist, and says how many entries there were: 0 or 1.
func (s *Store) Disallow(ctx context.Context, account int64, email string) (int64, error) {
	return s.changed(ctx, account, allowDeleteSQL, account, ListKey(email))
}

func (s *Store) changed(ctx context.Context, account int64, sql string, args ...any) (int64, error) {
	var n int64
	err := s.shards.Write(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, args...)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}
