package dispatch_test

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// TestDeliverConforms puts the job through all that a queue may do to it: each message arrives, and once.
func TestDeliverConforms(t *testing.T) {
	e := pg.New(t, 2)
	s := build(t, e.Shards, world(t), dispatch.Config{SweepEvery: 200 * time.Millisecond}) // finds a claim whose answer was cut off
	var made atomic.Int64
	jobstest.Conformance(t, jobstest.Start(t), jobstest.Spec{Kind: dispatch.JobDeliver, Handler: s.deliver, Make: func(t *testing.T) jobstest.Work {
		n := made.Add(1)
		to := fmt.Sprintf("r%d@example.net", n)
		s.storeUnrung(t, e.Shards, n, to)
		return jobstest.Work{Job: jobs.Job{Kind: dispatch.JobDeliver, Shard: e.Shards.Of(n).Name}, Effects: func() int {
			return s.inbox(t, "search?query="+url.QueryEscape("to:"+to))
		}}
	}})
}

// storeUnrung stores a message that is due and that nobody was told of.
func (s *stack) storeUnrung(t *testing.T, sh *shards.Shards, account int64, to string) {
	t.Helper()
	sub := &sender.Submission{ID: sender.NewID(), Account: account, Content: sender.Content{From: sender.Address{Email: "f@example.com"}, Text: "t"}}
	body, err := store.EncodeContent(&sub.Content)
	if err != nil {
		t.Fatal(err)
	}
	m := sender.Message{ID: sender.NewID(), Account: account, Submission: sub.ID, Expires: time.Now().Add(time.Hour), Recipient: sender.Recipient{Address: sender.Address{Email: to}}}
	a := &store.Accepted{Submission: sub, Messages: []sender.Message{m}, Metadata: []string{""}, Body: body}
	err = sh.Write(context.Background(), account, func(ctx context.Context, tx pgx.Tx) error {
		return shards.Exec(ctx, tx, s.store.AcceptStatement(), []*store.Accepted{a})
	})
	if err != nil {
		t.Fatal(err)
	}
}
