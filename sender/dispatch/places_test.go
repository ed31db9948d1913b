package dispatch_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestSlowDomainsLeavePlaces has one account mail so many slow domains that all places for bulk would be taken: another's
// mailing is delivered meanwhile.
func TestSlowDomainsLeavePlaces(t *testing.T) {
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{})
	for k := range 4 {
		var to []string
		for i := range 800 {
			to = append(to, fmt.Sprintf("slow-20000@slow%d.example", (i+k)%8))
		}
		s.submit(t, &sender.Submission{Account: 1}, to...)
	}
	var to []string
	for i := range 600 {
		to = append(to, fmt.Sprintf("a%d@fast.example", i))
	}
	s.submit(t, &sender.Submission{Account: 2}, to...)
	shardtest.Within(t, 15*time.Second, "the other account's mailing", func() bool { return s.arrived(t) >= len(to) })
}

// TestSuspectsFollowOneAnother has many messages that may end the process: each is taken when the one before it is done.
func TestSuspectsFollowOneAnother(t *testing.T) {
	e := pg.New(t, 1)
	s := build(t, e.Shards, world(t), dispatch.Config{})
	var to []string
	for i := range 20 {
		to = append(to, fmt.Sprintf("a@d%d.example", i))
	}
	ids := s.submit(t, &sender.Submission{Account: 1, SendAt: time.Now().Add(2 * time.Second)}, to...)
	err := e.Shards.Write(context.Background(), 1, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `update messages set crashes = 2, class = 3`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		s.waitFor(t, id, sender.Delivered)
	}
}

// TestStopIsNoCrash stops with messages that wait, are turned away and are cut off: the next start takes none for what may
// have ended the process.
func TestStopIsNoCrash(t *testing.T) {
	e := pg.New(t, 1)
	s := build(t, e.Shards, world(t), dispatch.Config{PerDomain: 2, Waiting: 4})
	for range 20 {
		s.send(t, "hang@slow.example")
	}
	s.stop()
	var held, crashed int
	err := e.Shards.ReadShard(context.Background(), "shard_0000", func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `select count(*) filter (where claimed_by is not null), count(*) filter (where crashes > 0) from messages`).Scan(&held, &crashed)
	})
	if err != nil || held != 0 || crashed != 0 {
		t.Errorf("%d messages are still ours, %d have crashed, %v", held, crashed, err)
	}
}
