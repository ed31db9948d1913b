package shards_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestPauses sets and ends pauses of each width; another process learns of them.
func TestPauses(t *testing.T) {
	e := pg.New(t, 4)
	ctx, s, other := context.Background(), e.Shards, e.Open(t, shards.Config{})
	mine, next := account(t, e), account(t, e)
	for e.Shards.Of(next) == e.Shards.Of(mine) {
		next = account(t, e)
	}
	home, away := s.Of(mine).Name, s.Of(next).Name
	for _, c := range []struct {
		pause                        shards.Pause
		mine, next, homeAll, awayAll bool
	}{
		{shards.Pause{Kind: "work"}, true, true, true, true},
		{shards.Pause{Kind: "work", Shard: home}, true, false, true, false},
		{shards.Pause{Kind: "work", Account: mine}, true, false, false, false},
	} {
		if err := s.SetPause(ctx, c.pause); err != nil {
			t.Fatal(err)
		}
		shardtest.Within(t, 5*time.Second, "the other process to learn of a pause", func() bool { return other.Map().Paused("work", home, mine) })
		m := other.Map()
		got := []bool{m.Paused("work", home, mine), m.Paused("work", away, next), m.Paused("work", home, 0), m.Paused("work", away, 0)}
		if want := []bool{c.mine, c.next, c.homeAll, c.awayAll}; !slices.Equal(got, want) {
			t.Errorf("%+v: %v, want %v", c.pause, got, want)
		}
		if m.Paused("play", home, mine) || m.PausedAccounts("play", home) != nil {
			t.Errorf("%+v: another kind rests too", c.pause)
		}
		var want []int64
		if c.pause.Account != 0 {
			want = []int64{mine}
		}
		if got := m.PausedAccounts("work", home); !slices.Equal(got, want) || m.PausedAccounts("work", away) != nil {
			t.Errorf("%+v: accounts paused in %s: %v", c.pause, home, got)
		}
		if err := s.Resume(ctx, c.pause); err != nil {
			t.Fatal(err)
		}
		shardtest.Within(t, 5*time.Second, "the other process to go on", func() bool { return !other.Map().Paused("work", home, mine) })
		if err := s.Resume(ctx, c.pause); !errors.Is(err, shards.ErrNoPause) {
			t.Errorf("%+v resumed twice: %v", c.pause, err)
		}
	}
	if other.Map().PausedAccounts("work", home) != nil {
		t.Error("an account of a pause that has ended")
	}
}

// TestPauseAgain changes only the reason; each width is a pause of its own.
func TestPauseAgain(t *testing.T) {
	e := pg.New(t, 1)
	ctx, s, a := context.Background(), e.Shards, account(t, e)
	for _, p := range []shards.Pause{{Kind: "work", Why: "first"}, {Kind: "work", Account: a}, {Kind: "work", Shard: "shard_0000"}, {Kind: "play"}, {Kind: "work", Why: "second"}} {
		if err := s.SetPause(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Pauses(ctx)
	if err != nil || len(list) != 4 || list[0].Why != "second" || list[1].Account != a || list[2].Shard != "shard_0000" || list[3].Kind != "play" {
		t.Fatalf("%+v, %v", list, err)
	}
	if first := list[0].Since; time.Since(first) > time.Minute || !first.Before(list[1].Since) {
		t.Errorf("since %v, the next %v", first, list[1].Since)
	}
	if err := s.Resume(ctx, shards.Pause{Kind: "work"}); err != nil {
		t.Fatal(err)
	}
	shardtest.Within(t, 5*time.Second, "the account to rest still", func() bool {
		m := s.Map()
		return m.Paused("work", "shard_0000", a) && m.Paused("work", "shard_0000", 0) && !m.Paused("work", "elsewhere", 0)
	})
}

// TestPauseRefused says why, and stores nothing.
func TestPauseRefused(t *testing.T) {
	e := pg.New(t, 1)
	ctx, s, a := context.Background(), e.Shards, account(t, e)
	for says, p := range map[string]shards.Pause{
		"not \"\"":         {},
		"not \"Work\"":     {Kind: "Work"},
		"1 to 64":          {Kind: strings.Repeat("k", 65)},
		"not both":         {Kind: "work", Shard: "shard_0000", Account: a},
		"\"shard_0009\"":   {Kind: "work", Shard: "shard_0009"},
		"account 999":      {Kind: "work", Account: 999},
		"no such account":  {Kind: "work", Account: -1},
		"at most 200 char": {Kind: "work", Why: strings.Repeat("ü", 201)},
	} {
		if err := s.SetPause(ctx, p); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %s", p, err, says)
		}
	}
	if list, err := s.Pauses(ctx); err != nil || len(list) != 0 {
		t.Errorf("stored all the same: %v, %v", list, err)
	}
	edge := shards.Pause{Kind: strings.Repeat("k", 64), Why: strings.Repeat("ü", 200)}
	if err := s.SetPause(ctx, edge); err != nil {
		t.Errorf("what just fits: %v", err)
	}
	exec(t, e.Directory, "insert into pauses (kind) select 'full' || i from generate_series(2, 1000) i")
	if err := s.SetPause(ctx, shards.Pause{Kind: "work"}); err == nil || !strings.Contains(err.Error(), "1000 pauses already") {
		t.Errorf("the 1,001st: %v", err)
	}
	edge.Why = "known already"
	if err := s.SetPause(ctx, edge); err != nil {
		t.Errorf("one of 1,000 set again: %v", err)
	}
}

// TestOlderDirectory is one from before the pauses: it says what to do, and Setup brings it up to date.
func TestOlderDirectory(t *testing.T) {
	e := pg.New(t, 1)
	ctx := context.Background()
	a := account(t, e)
	exec(t, e.Directory, "drop table pauses; delete from schema_version where version >= 2")
	if _, err := shards.Open(ctx, shards.Config{Directory: e.Directory}); err == nil || !strings.Contains(err.Error(), "start postrider serve") {
		t.Fatalf("opened: %v", err)
	}
	if err := shards.Setup(ctx, e.Directory, e.Servers, 1); err != nil {
		t.Fatal(err)
	}
	s := e.Open(t, shards.Config{})
	if s.Map().Paused("work", "shard_0000", a) {
		t.Error("something is paused from the start")
	}
	if err := s.SetPause(ctx, shards.Pause{Kind: "work", Account: a}); err != nil {
		t.Error(err)
	}
	shardtest.Within(t, 5*time.Second, "the pause to be known", func() bool { return s.Map().Paused("work", "shard_0000", a) })
}

// BenchmarkPaused is what each message pays: with no pauses at all, and with another's.
func BenchmarkPaused(b *testing.B) {
	e := pg.New(b, 1)
	ask := func(b *testing.B) {
		m := e.Shards.Map()
		for b.Loop() {
			if m.Paused("work", "shard_0000", 7) {
				b.Fatal("paused")
			}
		}
	}
	b.Run("none", ask)
	exec(b, e.Directory, "insert into pauses (kind, shard) values ('play', 'shard_0000')")
	shardtest.Within(b, 5*time.Second, "the pause to be known", func() bool { return e.Shards.Map().Paused("play", "shard_0000", 7) })
	b.Run("another's", ask)
}
