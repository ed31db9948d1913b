package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
)

// Found is a message as its account sees it.
type Found struct {
	sender.Message
	Sender     string
	Subject    string
	Tags       []string
	Metadata   map[string]string
	Subaccount string
	Opens      int
	Clicks     int
	Reason     sender.RejectReason // of a rejected message
	Reply      sender.Reply        // the last one that was not a success
	Next       time.Time           // of the next attempt
}

const (
	foundColumns = `m.id, m.submission_id, m.state, m.attempt, m.kind, m.email, m.name, m.expires_at, m.reason, m.reply, m.next_attempt_at,
  s.sender, s.subject, s.tags, s.metadata, s.subaccount, s.opens, s.clicks`

	infoSQL = `select ` + foundColumns + `
from messages m join search s on s.account_id = m.account_id and s.id = m.id
where m.account_id = $1 and m.id = $2 and s.account_id = $1 and s.id = $2`

	eventsSQL = `select seq, kind, attempt, at, data from events where account_id = $1 and message_id = $2 order by seq limit 1000`

	findSQL = `select account_id from messages where id = $1`

	contentSQL = `select body from submissions where account_id = $1 and id = $2`

	// Newest first, one page. The range of ids prunes partitions.
	searchSQL = `select ` + foundColumns + `
from search s join messages m on m.account_id = s.account_id and m.id = s.id
where s.account_id = $1 and s.id >= $2 and s.id < $3 and m.id >= $2 and m.id < $3
  and (cardinality($4::text[]) = 0 or s.tags && $4::text[])
  and (cardinality($5::text[]) = 0 or lower(s.sender) = any($5::text[]))
  and not exists (select 1 from unnest($6::text[]) w where not (s.subject ilike w or s.email ilike w or s.sender ilike w))
order by s.id desc limit $7`
)

func scanFound(account int64) func(pgx.CollectableRow) (Found, error) {
	return func(r pgx.CollectableRow) (Found, error) {
		f := Found{Message: sender.Message{Account: account}}
		var reason, reply, subaccount *string
		var next *time.Time
		var metadata []byte
		err := r.Scan((*[16]byte)(&f.ID), (*[16]byte)(&f.Submission), &f.State, &f.Attempt, &f.Recipient.Kind, &f.Recipient.Email,
			&f.Recipient.Name, &f.Expires, &reason, &reply, &next, &f.Sender, &f.Subject, &f.Tags, &metadata, &subaccount, &f.Opens, &f.Clicks)
		if err != nil {
			return f, err
		}
		if reason != nil {
			f.Reason = sender.RejectReason(*reason)
		}
		if reply != nil {
			f.Reply = decodeReply(*reply)
		}
		if subaccount != nil {
			f.Subaccount = *subaccount
		}
		if next != nil {
			f.Next = *next
		}
		if metadata != nil {
			err = json.Unmarshal(metadata, &f.Metadata)
		}
		return f, err
	}
}

// Find is the account whose message has an id, for an operator who knows nothing else. It looks at every account of a shard.
func (s *Store) Find(ctx context.Context, shard string, id sender.ID) (account int64, err error) {
	err = s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, findSQL, [16]byte(id)).Scan(&account)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return account, err
}

// Info is one message of an account with its events, oldest first.
func (s *Store) Info(ctx context.Context, account int64, id sender.ID) (Found, []sender.Event, error) {
	var f Found
	var events []sender.Event
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, infoSQL, account, [16]byte(id))
		if err != nil {
			return err
		}
		if f, err = pgx.CollectExactlyOneRow(rows, scanFound(account)); err != nil {
			return err
		}
		rows, err = tx.Query(ctx, eventsSQL, account, [16]byte(id))
		if err != nil {
			return err
		}
		events, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (sender.Event, error) {
			e := sender.Event{Account: account, Message: id}
			var data string
			err := r.Scan(&e.Seq, &e.Kind, &e.Attempt, &e.At, &data)
			data, e.Transcript, _ = strings.Cut(data, "\x1e")
			e.Reply = decodeReply(data)
			return e, err
		})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return f, events, err
}

// Content is the content of a submission.
func (s *Store) Content(ctx context.Context, account int64, submission sender.ID) (*sender.Content, error) {
	var body []byte
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, contentSQL, account, [16]byte(submission)).Scan(&body)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the content: %w", err)
	}
	return DecodeContent(body)
}

// Query is a search over an account's messages; words must all occur in subject, recipient or sender.
type Query struct {
	Words    []string
	From, To time.Time // [From, To)
	Tags     []string  // any of them
	Senders  []string  // any of them
	Limit    int
}

var likeEscape = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Search finds an account's messages, newest first.
func (s *Store) Search(ctx context.Context, account int64, q Query) ([]Found, error) {
	patterns := make([]string, len(q.Words))
	for i, w := range q.Words {
		patterns[i] = "%" + likeEscape.Replace(w) + "%"
	}
	senders := make([]string, len(q.Senders))
	for i, a := range q.Senders {
		senders[i] = strings.ToLower(a)
	}
	tags := append([]string{}, q.Tags...)
	var out []Found
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, searchSQL, account, [16]byte(sender.IDAt(q.From)), [16]byte(sender.IDAt(q.To)), tags, senders, patterns, q.Limit)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, scanFound(account))
		return err
	})
	return out, err
}
