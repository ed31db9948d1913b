package shards_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestGapInHeartbeats has an instance miss its heartbeats as a frozen process does: what it held before the gap is not
// surely its own any more, even when it beats again, and it takes nobody for dead until the living had time to be seen.
func TestGapInHeartbeats(t *testing.T) {
	t.Parallel()
	e := pg.New(t, 1)
	ctx := context.Background()
	s := e.Open(t, shards.Config{BeatEvery: time.Hour})
	s.Beat(ctx)
	v, held := s.Map().Servers()[0], time.Now()
	if !v.Sure(held) {
		t.Fatal("not sure of what was taken just after a heartbeat")
	}
	if dead, err := s.Dead(ctx, v); err != nil || len(dead) != 0 {
		t.Errorf("dead within the first half minute: %v %v", dead, err)
	}
	shardtest.Within(t, shards.Quiet+5*time.Second, "the heartbeat to be missing", func() bool { return !v.Beating(shards.Quiet) })
	if v.Sure(held) {
		t.Error("still sure in the gap")
	}
	s.Beat(ctx)
	if !v.Beating(shards.Quiet) || v.Sure(held) || !v.Sure(time.Now()) {
		t.Errorf("after the gap: beating %v, sure of the old %v and of the new %v", v.Beating(shards.Quiet), v.Sure(held), v.Sure(time.Now()))
	}
	if dead, err := s.Dead(ctx, v); err != nil || len(dead) != 0 {
		t.Errorf("dead just after a gap: %v %v", dead, err)
	}
}

// TestServerClockSteps sets a server's clock an hour forward, as seen in its rows: the living are not taken for dead,
// however often; a killed one is found in time, with the clock right, ahead or behind.
func TestServerClockSteps(t *testing.T) {
	t.Parallel()
	e := pg.New(t, 1)
	ctx, dsn := context.Background(), e.Servers[0].DSN
	s := e.Open(t, shards.Config{})
	s.Beat(ctx)
	v, living := s.Map().Servers()[0], e.Shards.Instance()
	right, ahead, behind := [16]byte{1}, [16]byte{2}, [16]byte{3}
	exec(t, dsn, `insert into postrider.instances (id, floor, seen_at) select i, i, now() + age from (values
		('01000000-0000-0000-0000-000000000000'::uuid, interval '0'), ('02000000-0000-0000-0000-000000000000', '-1 hour'),
		('03000000-0000-0000-0000-000000000000', '1 hour')) as killed (i, age)`)
	begin, found := time.Now(), map[[16]byte]time.Duration{}
	shardtest.Within(t, 50*time.Second, "all three that were killed to be found", func() bool {
		exec(t, dsn, "update postrider.instances set seen_at = seen_at - interval '1 hour' where id = '"+uuid.UUID(living).String()+"' and seen_at > now() - interval '30 minutes'")
		dead, err := s.Dead(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dead {
			if _, old := found[d.ID]; !old {
				found[d.ID] = time.Since(begin)
			}
			if d.Gone || d.Floor != d.ID {
				t.Fatalf("%x: gone %v, floor %x", d.ID, d.Gone, d.Floor)
			}
		}
		return len(found) >= 3
	})
	for id, from := range map[[16]byte]time.Duration{right: shards.Silent, ahead: 15 * time.Second, behind: 40 * time.Second} {
		if at := found[id]; at < from-time.Second || at > from+4*time.Second {
			t.Errorf("%x was found after %v, want %v", id[0], at, from)
		}
	}
	if at, wrong := found[living]; wrong {
		t.Errorf("one whose heart beats was taken for dead after %v", at)
	}
	if err := s.Forget(ctx, v, right); err != nil {
		t.Fatal(err)
	}
	if dead, err := s.Dead(ctx, v); err != nil || len(dead) != 2 {
		t.Errorf("after one was forgotten: %v, %v", dead, err)
	}
}
