package shards_test

import (
	"context"
	"testing"
	"time"

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
