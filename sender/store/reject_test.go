package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards/shardtest"
)

func TestListKey(t *testing.T) {
	for in, want := range map[string]string{
		"ann@example.net": "ann@example.net", "Ann@EXAMPLE.net": "ann@example.net", "ÉVA@example.net": "éva@example.net",
		"ann@bücher.example": "ann@xn--bcher-kva.example", "ANN@BÜCHER.example": "ann@xn--bcher-kva.example", "ann@XN--bcher-kva.example": "ann@xn--bcher-kva.example",
		"ann+shop@example.net": "ann+shop@example.net", "a.nn@gmail.com": "a.nn@gmail.com", "ann@faß.example": "ann@xn--fa-hia.example",
		"": "", "ann": "ann", "ann@\u0301.example": "ann@\u0301.example",
	} {
		if got := store.ListKey(in); got != want || store.ListKey(got) != got {
			t.Errorf("%q is %q on the list, want %q", in, got, want)
		}
	}
}

// rejected accepts mail to addresses and says why each would not be sent.
func rejected(t *testing.T, e *shardtest.Env, st *store.Store, subaccount string, to ...string) string {
	t.Helper()
	a := submission(1, to...)
	a.Submission.Subaccount = subaccount
	accept(t, e, st, a)
	var out []string
	for _, m := range a.Messages {
		f, _, err := st.Info(context.Background(), 1, m.ID)
		why := a.Rejected[m.ID]
		if err != nil || f.Reason != why || (f.State == sender.Rejected) != (why != "") {
			t.Errorf("%s: answered %q, stored %d %q, %v", m.Recipient.Email, why, f.State, f.Reason, err)
		}
		if why == "" {
			why = "-"
		}
		out = append(out, string(why))
	}
	return strings.Join(out, " ")
}

func must(t *testing.T, what string, want int64) func(int64, error) {
	return func(n int64, err error) {
		t.Helper()
		if n != want || err != nil {
			t.Errorf("%s: %d entries, want %d, %v", what, n, want, err)
		}
	}
}

// TestRejectScope has an entry be for the account or for a subaccount, and the allowlist win over both.
func TestRejectScope(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	all := []string{"All@x.example", "shop@x.example", "both@x.example", "clean@x.example"}
	must(t, "add", 1)(st.AddReject(ctx, 1, "all@X.example", "", "why"))
	must(t, "add for the subaccount", 1)(st.AddReject(ctx, 1, "shop@x.example", "shop", ""))
	must(t, "add", 1)(st.AddReject(ctx, 1, "both@x.example", "", ""))
	must(t, "add for the subaccount too", 1)(st.AddReject(ctx, 1, "BOTH@x.example", "shop", ""))
	must(t, "another account's", 1)(st.AddReject(ctx, 2, "clean@x.example", "", ""))
	for subaccount, want := range map[string]string{"": "custom - custom -", "shop": "custom custom custom -", "other": "custom - custom -"} {
		if got := rejected(t, e, st, subaccount, all...); got != want {
			t.Errorf("subaccount %q: %s, want %s", subaccount, got, want)
		}
	}
	for _, email := range all[:3] {
		if err := st.Allow(ctx, 1, email, "the boss"); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := st.Rejects(ctx, 1, "", "", true); err != nil || len(list) != 0 {
		t.Errorf("still listed: %+v, %v", list, err)
	}
	must(t, "add of one that is allowed", 0)(st.AddReject(ctx, 1, "ALL@x.example", "", ""))
	insert(t, e, `insert into rejects (account_id, email, reason) values (1, 'all@x.example', 'custom')`) // as by a race
	if got := rejected(t, e, st, "shop", all...); got != "- - - -" {
		t.Errorf("allowed: %s", got)
	}
	must(t, "disallow", 1)(st.Disallow(ctx, 1, "All@x.example"))
	must(t, "disallow again", 0)(st.Disallow(ctx, 1, "All@x.example"))
	if got := rejected(t, e, st, "", all...); got != "custom - - -" {
		t.Errorf("no longer allowed: %s", got)
	}
	if list, err := st.Allowlist(ctx, 1, "B"); err != nil || len(list) != 1 || list[0].Email != "both@x.example" || list[0].Detail != "the boss" {
		t.Errorf("allowlist: %+v, %v", list, err)
	}
	for prefix, want := range map[string]int{"": 2, "s": 1, "both@x.example": 1, "both@x.example2": 0, "%": 0, "zz": 0} {
		if list, err := st.Allowlist(ctx, 1, prefix); err != nil || len(list) != want {
			t.Errorf("allowlist from %q: %+v, %v", prefix, list, err)
		}
	}
}

func insert(t *testing.T, e *shardtest.Env, sql string, args ...any) {
	t.Helper()
	err := e.Shards.WriteShard(context.Background(), "shard_0000", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRejectedAtClaim has what was queued before its recipient came onto the list be told apart by the claim, be recorded
// as rejected and never come back, whether it was scheduled, waited for its turn or was to be tried again.
func TestRejectedAtClaim(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	queued, scheduled, retried := submission(1, "Bad@bücher.example", "good@x.example"), submission(1, "bad@x.example", "good@x.example"), submission(1, "bad@x.example", "good@x.example")
	scheduled.Submission.SendAt = time.Now().Add(-time.Second)
	scheduled.Submission.Subaccount, retried.Claimed = "shop", true
	for _, a := range []*store.Accepted{queued, scheduled, retried} {
		if accept(t, e, st, a); len(a.Rejected) != 0 {
			t.Fatalf("rejected at accept: %v", a.Rejected)
		}
	}
	for _, m := range retried.Messages {
		record(t, e, st, &store.Fact{Account: 1, Message: m.ID, Attempt: 1, State: sender.Deferred, Kind: sender.EventDeferred, At: time.Now(), Next: time.Now().Add(-time.Second)})
	}
	must(t, "add", 1)(st.AddReject(ctx, 1, "bad@BÜCHER.example", "", ""))
	must(t, "add for the subaccount", 1)(st.AddReject(ctx, 1, "bad@x.example", "shop", ""))
	claimed, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 10})
	if err != nil || len(claimed) != 6 {
		t.Fatalf("claimed %d, %v", len(claimed), err)
	}
	want := map[sender.ID]bool{queued.Messages[0].ID: true, scheduled.Messages[0].ID: true} // retried has no subaccount
	for _, c := range claimed {
		if (c.Rejected == sender.ReasonCustom) != want[c.ID] || (c.Rejected != "") != want[c.ID] {
			t.Errorf("%s: rejected %q", c.Recipient.Email, c.Rejected)
		}
		if c.Rejected != "" {
			f := &store.Fact{Account: 1, Message: c.ID, Attempt: c.Attempt, State: sender.Rejected, Kind: sender.EventRejected, At: time.Now(), Reason: c.Rejected}
			record(t, e, st, f)
			record(t, e, st, f)
			if m, events, err := st.Info(ctx, 1, c.ID); err != nil || m.State != sender.Rejected || m.Reason != sender.ReasonCustom || len(events) != 1 {
				t.Errorf("recorded: %+v %v %v", m, events, err)
			}
		}
	}
	if list, err := st.Rejects(ctx, 1, "", "", true); err != nil || len(list) != 2 {
		t.Errorf("a rejection made an entry: %+v, %v", list, err)
	}
	if more, err := st.Claim(ctx, "shard_0000", store.Take{Prompt: 10}); err != nil || len(more) != 0 {
		t.Errorf("claimed again: %+v, %v", more, err)
	}
}

// bounce has a message to an address of a subaccount end as a fact says, and shows the address's entry, nil if it has none.
func bounce(t *testing.T, e *shardtest.Env, st *store.Store, email, subaccount string, f store.Fact) *store.Listed {
	t.Helper()
	a := submission(1, "clean@x.example")
	a.Claimed, a.Submission.Subaccount = true, subaccount
	accept(t, e, st, a)
	f.Account, f.Message, f.Reject = 1, a.Messages[0].ID, email
	if f.Attempt == 0 { // from outside, after a delivery
		record(t, e, st, &store.Fact{Account: 1, Message: f.Message, Attempt: 1, State: sender.Delivered, Kind: sender.EventDelivered, At: time.Now()})
	}
	record(t, e, st, &f)
	list, err := st.Rejects(context.Background(), 1, email, subaccount, true)
	if err != nil || len(list) > 1 {
		t.Fatalf("%d entries of %s, %v", len(list), email, err)
	}
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// TestRejectLives has each reason keep an address away as long as Mandrill's does, from its last event; of two reasons the
// one that lasts longer stays.
func TestRejectLives(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	now := time.Now().Truncate(time.Microsecond)
	fact := func(why sender.RejectReason, attempt int) store.Fact {
		return store.Fact{Attempt: attempt, State: sender.Bounced, Kind: sender.EventBounced, At: now, Reason: why, Reply: sender.Reply{Code: 550, Text: string(why)}}
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		email, sub string
		fact       store.Fact
		reason     sender.RejectReason
		source     string
		life       time.Duration
	}{
		{"s@x.example", "", fact(sender.ReasonSoftBounce, 1), sender.ReasonSoftBounce, "smtp", day},
		{"S@x.example", "", fact(sender.ReasonHardBounce, 0), sender.ReasonHardBounce, "report", 7 * day},
		{"s@x.example", "", fact(sender.ReasonSoftBounce, 1), sender.ReasonHardBounce, "report", 7 * day},
		{"s@x.example", "", fact(sender.ReasonSpam, 0), sender.ReasonSpam, "report", 365 * day},
		{"s@x.example", "", fact(sender.ReasonHardBounce, 1), sender.ReasonSpam, "report", 365 * day},
		{"u@x.example", "shop", fact(sender.ReasonUnsub, 0), sender.ReasonUnsub, "link", 365 * day},
	} {
		got := bounce(t, e, st, c.email, c.sub, c.fact)
		if got == nil || got.Reason != c.reason || got.Source != c.source || !got.Expires.Equal(now.Add(c.life)) || got.Subaccount != c.sub || got.Detail != "550 "+string(c.reason) || got.Expired {
			t.Errorf("%s after %s: %+v", c.email, c.fact.Reason, got)
		}
	}
	if got := rejected(t, e, st, "shop", "s@x.example", "u@x.example"); got != "spam unsub" {
		t.Errorf("mail of the subaccount: %s", got)
	}
	if got := rejected(t, e, st, "", "u@x.example"); got != "-" {
		t.Errorf("an unsubscription of a subaccount is for all: %s", got)
	}
	must(t, "add by hand", 1)(st.AddReject(ctx, 1, "s@x.example", "", "by hand"))
	if got := bounce(t, e, st, "s@x.example", "", fact(sender.ReasonSpam, 0)); got.Reason != sender.ReasonCustom || !got.Expires.IsZero() || got.Detail != "by hand" || got.Source != "api" {
		t.Errorf("what was added by hand did not stay: %+v", got)
	}
	if err := st.Allow(ctx, 1, "boss@x.example", ""); err != nil {
		t.Fatal(err)
	}
	for _, attempt := range []int{0, 1} {
		if got := bounce(t, e, st, "Boss@x.example", "", fact(sender.ReasonHardBounce, attempt)); got != nil {
			t.Errorf("an address of the allowlist came onto the list: %+v", got)
		}
	}
}

// TestRejectExpires has an entry end by itself, stay for reference, begin anew and be forgotten.
func TestRejectExpires(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	longAgo := time.Now().Add(-30 * 24 * time.Hour)
	for i := range 2 {
		bounce(t, e, st, fmt.Sprintf("%d@x.example", i), "", store.Fact{Attempt: 1, State: sender.Bounced, Kind: sender.EventBounced, At: longAgo, Reason: sender.ReasonHardBounce})
	}
	insert(t, e, `update rejects set created_at = $1, last_event_at = $1`, longAgo)
	if got := rejected(t, e, st, "", "0@x.example", "1@x.example"); got != "- -" {
		t.Errorf("expired: %s", got)
	}
	if list, err := st.Rejects(ctx, 1, "", "", false); err != nil || len(list) != 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	list, err := st.Rejects(ctx, 1, "", "", true)
	if err != nil || len(list) != 2 || !list[0].Expired || time.Since(list[0].Expires) < 22*24*time.Hour {
		t.Fatalf("with the expired: %+v, %v", list, err)
	}
	again := bounce(t, e, st, "0@x.example", "", store.Fact{Attempt: 1, State: sender.SoftBounced, Kind: sender.EventSoftBounced, At: time.Now(), Reason: sender.ReasonSoftBounce})
	if again.Expired || again.Reason != sender.ReasonSoftBounce || time.Since(again.Created) > time.Minute {
		t.Errorf("bounced again: %+v", again)
	}
	must(t, "forget what ended a month ago", 0)(st.ForgetRejects(ctx, "shard_0000", longAgo))
	must(t, "forget", 1)(st.ForgetRejects(ctx, "shard_0000", time.Now()))
	must(t, "delete", 1)(st.DeleteReject(ctx, 1, "0@X.example", ""))
	must(t, "delete again", 0)(st.DeleteReject(ctx, 1, "0@x.example", ""))
	must(t, "add", 1)(st.AddReject(ctx, 1, "0@x.example", "shop", ""))
	must(t, "add", 1)(st.AddReject(ctx, 1, "0@x.example", "", ""))
	must(t, "delete that of a subaccount", 1)(st.DeleteReject(ctx, 1, "0@x.example", "shop"))
	must(t, "delete all", 1)(st.DeleteReject(ctx, 1, "0@x.example", ""))
}

// node is a part of a plan that was run, as Postgres explains it.
type node struct {
	Kind     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Loops    float64 `json:"Actual Loops"`
	Hit      int     `json:"Shared Hit Blocks"`
	Read     int     `json:"Shared Read Blocks"`
	Plans    []node  `json:"Plans"`
}

// TestManyRejects has 100,000 entries cost a message a walk down one index, at accept and at claim: a few blocks, however
// the plan is made, and of the allowlist nothing.
func TestManyRejects(t *testing.T) {
	e := pg.New(t, 1)
	const entries, messages = 100_000, 100
	insert(t, e, `insert into rejects (account_id, email, reason) select 1, 'user' || i || '@x.example', 'unsub' from generate_series(1, $1::int) i`, entries)
	insert(t, e, `insert into allowlist (account_id, email) select 1, 'boss' || i || '@x.example' from generate_series(1, 1000) i`)
	var accounts []int64
	var ids [][16]byte
	var keys, empty []string
	for i := range messages {
		accounts, ids, keys, empty = append(accounts, 1), append(ids, sender.NewID()), append(keys, fmt.Sprintf("other%d@x.example", i)), append(empty, "")
	}
	small, times := make([]int16, messages), make([]time.Time, messages)
	texts := sqlConstants(t)
	for sql, args := range map[string][]any{
		texts["listedSQL"]: {accounts, ids, keys},
		texts["acceptSQL"]: {accounts[:0], ids[:0], [][]byte{}, accounts, ids, ids, small, small, times, keys, empty, empty, keys, empty, empty, empty, empty, times, ids[0], small, keys},
	} {
		for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
			var plans []struct{ Plan node }
			err := e.Shards.WriteShard(context.Background(), "shard_0000", func(ctx context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "set local plan_cache_mode = "+mode+"; set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"); err != nil {
					return err
				}
				var text []byte
				if err := tx.QueryRow(ctx, "explain (analyze, buffers, format json) "+strings.ReplaceAll(sql, "@", ""), args...).Scan(&text); err != nil {
					return err
				}
				return json.Unmarshal(text, &plans)
			})
			if err != nil {
				t.Fatal(err)
			}
			walks := 0
			each(plans[0].Plan, func(n node) {
				switch n.Relation {
				case "rejects":
					walks++
					if !strings.HasPrefix(n.Kind, "Index") || n.Loops != messages || n.Hit+n.Read > 5*messages {
						t.Errorf("%s: %+v", mode, n)
					}
				case "allowlist":
					if n.Loops > 0 {
						t.Errorf("%s: the allowlist is looked at: %+v", mode, n)
					}
				}
			})
			if walks != 1 {
				t.Errorf("%s: %d looks at the list", mode, walks)
			}
		}
	}
}

func each(n node, f func(node)) {
	f(n)
	for _, p := range n.Plans {
		each(p, f)
	}
}
