package store_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// TestEveryTextPrepares prepares every SQL constant of this package in a migrated shard.
func TestEveryTextPrepares(t *testing.T) {
	e := pg.New(t, 1)
	texts := sqlConstants(t)
	if len(texts) < 15 {
		t.Fatalf("only %d SQL constants found", len(texts))
	}
	for name, sql := range texts {
		err := e.Shards.WriteShard(context.Background(), "shard_0000", func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Prepare(ctx, name, strings.ReplaceAll(sql, "@", ""))
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func sqlConstants(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("store*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if ok && len(v.Names) == 1 && len(v.Values) == 1 {
				if s := constant(v.Values[0], out); s != "" {
					out[v.Names[0].Name] = s
				}
			}
			return true
		})
	}
	for name := range out {
		if !strings.HasSuffix(name, "SQL") {
			delete(out, name)
		}
	}
	return out
}

func constant(e ast.Expr, known map[string]string) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.Ident:
		return known[e.Name]
	case *ast.BinaryExpr:
		return constant(e.X, known) + constant(e.Y, known)
	}
	return ""
}

func submission(account int64, to ...string) *store.Accepted {
	s := &sender.Submission{ID: sender.NewID(), Account: account, Tags: []string{"a", "b c"},
		Content: sender.Content{From: sender.Address{Email: "from@example.com"}, Subject: "Ünï", Text: "hello"}}
	a := &store.Accepted{Submission: s, Body: []byte{}}
	a.Body, _ = store.EncodeContent(&s.Content)
	for _, email := range to {
		a.Messages = append(a.Messages, sender.Message{ID: sender.NewID(), Account: account, Submission: s.ID, Expires: time.Now().Add(time.Hour),
			Recipient: sender.Recipient{Address: sender.Address{Email: email, Name: "N"}}})
		a.Metadata = append(a.Metadata, `{"k":"v"}`)
	}
	return a
}

func accept(t *testing.T, e *shardtest.Env, st *store.Store, a *store.Accepted) {
	t.Helper()
	err := e.Shards.Write(context.Background(), a.Submission.Account, func(ctx context.Context, tx pgx.Tx) error {
		return shards.Exec(ctx, tx, st.AcceptStatement(), []*store.Accepted{a})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func record(t *testing.T, e *shardtest.Env, st *store.Store, f *store.Fact) {
	t.Helper()
	err := e.Shards.Write(context.Background(), f.Account, func(ctx context.Context, tx pgx.Tx) error {
		return shards.Exec(ctx, tx, st.LedgerStatement(), []*store.Fact{f})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLife takes a message through accept (twice), a failed attempt, a claim, a delivery (twice) and a late bounce.
func TestLife(t *testing.T) {
	e := pg.New(t, 2)
	st, ctx := store.New(e.Shards), context.Background()
	a := submission(1, "x@example.net", "Y@example.net")
	a.Claimed = true
	accept(t, e, st, a)
	accept(t, e, st, a)
	id, shard := a.Messages[0].ID, e.Shards.Of(1).Name
	f, events, err := st.Info(ctx, 1, id)
	if err != nil || f.State != sender.Sending || f.Attempt != 1 || len(events) != 0 || f.Subject != "Ünï" ||
		!reflect.DeepEqual(f.Tags, []string{"a", "b c"}) || f.Metadata["k"] != "v" || f.Recipient.Name != "N" {
		t.Fatalf("after accept: %+v %v %v", f, events, err)
	}
	deferred := &store.Fact{Account: 1, Message: id, Attempt: 1, State: sender.Deferred, Kind: sender.EventDeferred, At: time.Now(),
		Next: time.Now().Add(-time.Second), Reply: sender.Reply{Code: 451, Enhanced: "4.7.1", Stage: "rcpt", Host: "mx", Text: "later\ttab"}}
	record(t, e, st, deferred)
	record(t, e, st, deferred) // a repeat of a lost answer
	claimed, err := st.Claim(ctx, shard, store.Take{Prompt: 10})
	if err != nil || len(claimed) != 1 || claimed[0].ID != id || claimed[0].Attempt != 2 || string(claimed[0].Body) != string(a.Body) {
		t.Fatalf("claimed: %+v %v", claimed, err)
	}
	if again, err := st.Claim(ctx, shard, store.Take{Prompt: 10}); err != nil || len(again) != 0 {
		t.Fatalf("claimed twice: %v %v", again, err)
	}
	delivered := &store.Fact{Account: 1, Message: id, Attempt: 2, State: sender.Delivered, Kind: sender.EventDelivered, At: time.Now(), Reply: sender.Reply{Code: 250}}
	record(t, e, st, &store.Fact{Account: 1, Message: id, Attempt: 1, State: sender.Bounced, Kind: sender.EventBounced, At: time.Now()}) // too late
	record(t, e, st, delivered)
	record(t, e, st, delivered)
	late := &store.Fact{Account: 1, Message: id, State: sender.Bounced, Kind: sender.EventBounced, At: time.Now(), Reject: "X@example.net", Reason: sender.ReasonHardBounce, RejectFor: time.Hour}
	record(t, e, st, late)
	record(t, e, st, late)
	f, events, err = st.Info(ctx, 1, id)
	if err != nil || f.State != sender.Bounced {
		t.Fatalf("at the end: %+v %v", f, err)
	}
	var got []string
	for _, ev := range events {
		got = append(got, fmt.Sprint(ev.Seq, ":", ev.Kind, "/", ev.Attempt))
	}
	if want := "1:2/1 2:1/2 3:3/0"; strings.Join(got, " ") != want {
		t.Errorf("events %v, want %s", got, want)
	}
	if events[0].Reply != deferred.Reply {
		t.Errorf("reply %+v, want %+v", events[0].Reply, deferred.Reply)
	}
	rows, err := st.Outbox(ctx, shard, 100)
	if err != nil || len(rows) != 3 {
		t.Errorf("outbox: %d rows of the three transactions that changed something, %v", len(rows), err)
	}
	next := submission(1, "x@EXAMPLE.net", "z@example.net")
	accept(t, e, st, next)
	if next.Rejected[next.Messages[0].ID] != sender.ReasonHardBounce || len(next.Rejected) != 1 {
		t.Errorf("rejected: %v", next.Rejected)
	}
	if _, _, err := st.Info(ctx, 2, id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another account sees it: %v", err)
	}
}

// TestFreeDead frees what a dead instance was born with and what it claimed later, and nothing else.
func TestFreeDead(t *testing.T) {
	e := pg.New(t, 1)
	ctx := context.Background()
	dead := e.Open(t, shards.Config{})
	lost, mine := store.New(dead), store.New(e.Shards)
	old, born, ours := submission(1, "old@x.y"), submission(1, "born@x.y"), submission(1, "ours@x.y")
	accept(t, e, mine, old)
	if got, err := lost.Claim(ctx, "shard_0000", store.Take{Prompt: 5}); err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	born.Claimed, ours.Claimed = true, true
	accept(t, e, lost, born)
	accept(t, e, mine, ours)
	n, err := mine.Free(ctx, "shard_0000", shards.Instance{ID: dead.Instance(), Floor: born.Messages[0].ID})
	if err != nil || n != 2 {
		t.Fatalf("freed %d, %v", n, err)
	}
	got, err := mine.Claim(ctx, "shard_0000", store.Take{Prompt: 5})
	if err != nil || len(got) != 2 {
		t.Fatalf("claimed after the free: %d, %v", len(got), err)
	}
	held, err := mine.Held(ctx, "shard_0000", ours.Messages[0].ID, time.Now().Add(time.Second))
	if err != nil || len(held) != 3 {
		t.Errorf("held: %d, %v", len(held), err)
	}
	if err := mine.Release(ctx, "shard_0000", []store.Ref{{Account: 1, ID: ours.Messages[0].ID}}, 0, true); err != nil {
		t.Fatal(err)
	}
	if after, err := mine.Due(ctx, "shard_0000", store.Wanted{Bulk: true, Suspect: true}); err != nil || after > 0 {
		t.Errorf("due: %v %v", after, err)
	}
}

func TestSearch(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	a := submission(1, "ann@example.net", "bob@example.net")
	a.Submission.Content.Subject = "Your 100% receipt"
	accept(t, e, st, a)
	accept(t, e, st, submission(2, "ann@example.net"))
	now := time.Now()
	for _, c := range []struct {
		q    store.Query
		want int
	}{
		{store.Query{}, 2}, {store.Query{Words: []string{"ANN"}}, 1}, {store.Query{Words: []string{"receipt", "bob"}}, 1},
		{store.Query{Words: []string{"100%"}}, 2}, {store.Query{Words: []string{"1%0"}}, 0}, {store.Query{Words: []string{"_"}}, 0},
		{store.Query{Tags: []string{"b c", "none"}}, 2}, {store.Query{Tags: []string{"none"}}, 0},
		{store.Query{Senders: []string{"From@Example.com"}}, 2}, {store.Query{Senders: []string{"x@y.z"}}, 0},
		{store.Query{To: now.Add(-time.Hour)}, 0}, {store.Query{Limit: 1}, 1},
	} {
		if c.q.To.IsZero() {
			c.q.To = now.Add(time.Hour)
		}
		if c.q.Limit == 0 {
			c.q.Limit = 100
		}
		c.q.From = c.q.To.Add(-24 * time.Hour)
		got, err := st.Search(ctx, 1, c.q)
		if err != nil || len(got) != c.want {
			t.Errorf("%+v: %d found, want %d, %v", c.q, len(got), c.want, err)
		}
	}
	counts, err := st.Counts(ctx, 1, now)
	if err != nil || counts.Backlog != 2 || counts.Windows[0].Sent != 0 {
		t.Errorf("counts: %+v %v", counts, err)
	}
}

func TestContentRoundTrip(t *testing.T) {
	c := sender.Content{From: sender.Address{Email: "a@b.c", Name: "Ä"}, Subject: "s", HTML: "<p>\x01é", Text: "t", AutoText: true, PreserveRecipients: true, Hidden: true,
		Headers: []sender.Header{{Name: "X", Value: "1"}}, Attachments: []sender.Attachment{{Type: "a/b", Name: "f", Content: []byte{0, 1, 2}}},
		Images: []sender.Attachment{{Type: "image/png", Name: "i", Content: []byte{9}}}, Recipients: []sender.Recipient{{Address: sender.Address{Email: "x@y.z"}, Kind: sender.Cc}},
		BccAddress: "b@b.b", ReturnPathDomain: "r.p"}
	b, err := store.EncodeContent(&c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.DecodeContent(b)
	if err != nil || !reflect.DeepEqual(*got, c) {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := range b {
		if _, err := store.DecodeContent(b[:i]); err == nil {
			t.Fatalf("cut at %d of %d: no error", i, len(b))
		}
	}
}

// cancel runs the statement as a group does, together with another account's wish for the same message.
func cancel(t *testing.T, e *shardtest.Env, st *store.Store, account int64, id sender.ID) (store.Scheduled, error) {
	t.Helper()
	foreign := &store.Cancelling{Account: 99, ID: id, Request: sender.NewID()}
	c := &store.Cancelling{Account: account, ID: id, Request: sender.NewID()}
	for range 2 { // as after a commit whose answer was lost
		err := e.Shards.Write(context.Background(), account, func(ctx context.Context, tx pgx.Tx) error {
			return shards.Exec(ctx, tx, st.CancelStatement(), []*store.Cancelling{foreign, c})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	switch {
	case foreign.Done != nil:
		t.Errorf("another account was told of the message: %+v", foreign.Done)
	case c.Done == nil:
		return store.Scheduled{}, store.ErrNotFound
	}
	return *c.Done, nil
}

// TestSchedules lists, moves and cancels; the row decides, and a claim that came first wins.
func TestSchedules(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	later := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	a := submission(1, "a@x.y", "b@x.y")
	a.Submission.SendAt = later
	accept(t, e, st, a)
	first, second := a.Messages[0].ID, a.Messages[1].ID
	list, err := st.Scheduled(ctx, 1, "", 10)
	if err != nil || len(list) != 2 || list[0].ID != first || !list[0].SendAt.Equal(later) || list[0].Sender != "from@example.com" {
		t.Fatalf("list: %+v %v", list, err)
	}
	if only, err := st.Scheduled(ctx, 1, "B@x.y", 10); err != nil || len(only) != 1 || only[0].ID != second {
		t.Errorf("list to one: %+v %v", only, err)
	}
	if after, err := st.Due(ctx, "shard_0000", store.Wanted{Bulk: true, Suspect: true}); err != nil || (time.Until(later)-after).Abs() > 10*time.Second {
		t.Errorf("due in %v, want in an hour: %v", after, err)
	}
	if got, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 10}); err != nil || len(got) != 0 {
		t.Errorf("claimed before their time: %v %v", got, err)
	}
	for account, id := range map[int64]sender.ID{2: first, 1: sender.NewID()} {
		if _, err := cancel(t, e, st, account, id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("cancel of a foreign or unknown message: %v", err)
		}
	}
	if m, err := cancel(t, e, st, 1, first); err != nil || m.Email != "a@x.y" {
		t.Fatalf("cancel: %+v %v", m, err)
	}
	if _, err := cancel(t, e, st, 1, first); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("cancelled twice: %v", err)
	}
	if m, err := st.Reschedule(ctx, 1, second, time.Now()); err != nil || m.Email != "b@x.y" {
		t.Fatalf("reschedule: %+v %v", m, err)
	}
	got, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 10})
	if err != nil || len(got) != 1 || got[0].ID != second || got[0].Attempt != 1 {
		t.Fatalf("claimed: %+v %v", got, err)
	}
	for _, change := range []func() error{
		func() error { _, err := cancel(t, e, st, 1, second); return err },
		func() error { _, err := st.Reschedule(ctx, 1, second, later); return err },
	} {
		if err := change(); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a change after the claim: %v", err)
		}
	}
	f, events, err := st.Info(ctx, 1, first)
	if err != nil || f.State != sender.Cancelled || len(events) != 1 || events[0].Kind != sender.EventCancelled {
		t.Errorf("cancelled: %+v %v %v", f, events, err)
	}
}
