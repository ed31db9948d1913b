package shards_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

var pg = shardtest.Two()

func TestMain(m *testing.M) { pg.Run(m) }

// TestBucket holds the hash to values computed by hand: printf %s N | sha256sum.
func TestBucket(t *testing.T) {
	for account, want := range map[int64]int{1: 0x6b8, 2: 0xd47, 42: 1844} {
		if got := shards.BucketOf(account); got != want {
			t.Errorf("BucketOf(%d) = %d, want %d", account, got, want)
		}
	}
}

func TestSetupSpreadsEvenly(t *testing.T) {
	e := pg.New(t, 7)
	m := e.Shards.Map()
	perServer, perShard := map[string]int{}, map[string]int{}
	for account := int64(1); account <= 20_000; account++ {
		perShard[m.Of(account).Name]++
	}
	for _, s := range m.Shards() {
		perServer[s.Server.Name]++
		if n := perShard[s.Name]; n < 20_000/7-300 || n > 20_000/7+300 {
			t.Errorf("%s has %d of 20,000 accounts", s.Name, n)
		}
	}
	if perServer["pg1"] != 4 || perServer["pg2"] != 3 {
		t.Errorf("shards on the servers: %v", perServer)
	}
}

func TestMigrateAgainChangesNothing(t *testing.T) {
	e := pg.New(t, 3)
	if err := e.Shards.Migrate(context.Background(), func(int, int) { t.Error("a shard was migrated again") }); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateGoesOn cuts a run off before its end: the rest is done by the next, the done is not done again.
func TestMigrateGoesOn(t *testing.T) {
	e := pg.New(t, 4)
	ctx := context.Background()
	exec(t, e.Directory, "delete from shard_migrations where shard = 'shard_0002'")
	exec(t, e.Servers[0].DSN, "drop schema shard_0002 cascade")
	var seen int
	if err := e.Shards.Migrate(ctx, func(_, total int) { seen = total }); err != nil {
		t.Fatal(err)
	}
	if seen != 0 { // one shard alone is the canary, without progress
		t.Errorf("progress over %d shards, want the canary only", seen)
	}
	if err := e.Shards.WriteShard(ctx, "shard_0002", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into rejects (account_id, email, reason) values (1, 'a@b.c', 'custom')")
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	e := pg.New(t, 1)
	exec(t, e.Directory, "insert into schema_version values (999)")
	err := shards.Setup(context.Background(), e.Directory, e.Servers, 1)
	var newer *shards.NewerError
	if !errors.As(err, &newer) || newer.Have != 999 {
		t.Fatalf("Setup over a newer directory: %v", err)
	}
}

func TestAccountsAndKeys(t *testing.T) {
	e := pg.New(t, 4)
	ctx := context.Background()
	a, secret, err := e.Shards.CreateAccount(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	k, err := e.Shards.FindKey(ctx, secret)
	if err != nil || k.Account != a.ID || k.Scope != shards.ScopeFull {
		t.Fatalf("FindKey = %+v, %v", k, err)
	}
	if _, err := e.Shards.FindKey(ctx, secret[:len(secret)-1]+"!"); !errors.Is(err, shards.ErrNoKey) {
		t.Errorf("a wrong key: %v", err)
	}
	var stored string
	query(t, e.Directory, "select string_agg(k::text, ' ') from keys k", &stored)
	if strings.Contains(stored, secret) || strings.Contains(stored, secret[8:]) {
		t.Error("the key's text is in the directory")
	}
	if _, _, err := e.Shards.CreateKey(ctx, 999, shards.ScopeSend); !errors.Is(err, shards.ErrNoAccount) {
		t.Errorf("a key for nobody: %v", err)
	}
	other := e.Open(t, shards.Config{})
	if _, err := other.FindKey(ctx, secret); err != nil {
		t.Fatal(err)
	}
	if err := e.Shards.RevokeKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	shardtest.Within(t, 5*time.Second, "the other process to stop taking the key", func() bool {
		_, err := other.FindKey(ctx, secret)
		return errors.Is(err, shards.ErrNoKey)
	})
}

func TestQueryOutsideShardFails(t *testing.T) {
	e := pg.New(t, 2)
	a := account(t, e)
	err := e.Shards.Read(context.Background(), a, func(ctx context.Context, tx pgx.Tx) error {
		var path string
		if err := tx.QueryRow(ctx, "show search_path").Scan(&path); err != nil {
			return err
		}
		if want := e.Shards.Of(a).Name; path != want {
			return fmt.Errorf("search_path is %q, want %q", path, want)
		}
		_, err := tx.Exec(ctx, "insert into rejects (account_id, email, reason) values (1, 'a@b.c', 'custom')")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a write in a read: %v", err)
	}
}

// put is a small statement for groups: it adds to the do-not-send list, and can be told to be slow or wrong.
func put() shards.Statement[string] {
	return shards.Statement[string]{Name: "put",
		SQL: `insert into @rejects (account_id, email, reason) select a, e, 'custom' from unnest($1::int8[], $2::text[]) as t(a, e) on conflict do nothing`,
		Encode: func(p *shards.Params, items []string) {
			p.Int8s(len(items), func(int) int64 { return 1 })
			p.Texts(len(items), func(i int) string { return items[i] })
		}}
}

func group(t *testing.T, e *shardtest.Env) *shards.Group[string] {
	t.Helper()
	g := shards.NewGroup(e.Shards, put(), shards.GroupConfig{Committers: 2, Max: 50, MaxBytes: 1 << 20, Linger: time.Millisecond, Queue: 1000})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = g.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return g
}

func TestGroupCommitsTogether(t *testing.T) {
	e := pg.New(t, 8)
	g := group(t, e)
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			if err := g.Do(int64(i+1), fmt.Sprintf("m%d@x.y", i), 100); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := countRejects(t, e, "m%"); n != 400 {
		t.Errorf("%d rows of 400", n)
	}
	var commits int64
	for _, s := range e.Servers {
		var c int64
		query(t, s.DSN, "select count(distinct xmin::text) from (select xmin from shard_0000.rejects) x", &c, "shard_0000")
		commits += c
	}
	if commits == 0 || commits > 40 {
		t.Errorf("the 50 or so rows of one shard were committed in %d transactions", commits)
	}
}

// TestGroupPoison puts one bad item among good ones of its own and of other shards: only its caller hears of it.
func TestGroupPoison(t *testing.T) {
	e := pg.New(t, 8)
	g := group(t, e)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			item := fmt.Sprintf("p%d@x.y", i)
			if i == 50 {
				item = "p\x00bad" // NUL: Postgres refuses it in text
			}
			err := g.Do(int64(i+1), item, 100)
			if (err != nil) != (i == 50) {
				t.Errorf("item %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if n := countRejects(t, e, "p%@x.y"); n != 99 {
		t.Errorf("%d rows of 99", n)
	}
}

// TestGroupLockedShard locks one shard's table: its callers wait and get through or a clear no, the others of the
// same server are not slowed.
func TestGroupLockedShard(t *testing.T) {
	e := pg.New(t, 4)
	g := group(t, e)
	locked := e.Shards.Map().Shard("shard_0000")
	unlock := lock(t, e.Servers[0].DSN, "shard_0000.rejects")
	slow, quick := int64(0), int64(0)
	for a := int64(1); slow == 0 || quick == 0; a++ {
		switch sh := e.Shards.Of(a); {
		case sh == locked:
			slow = a
		case sh.Server == locked.Server:
			quick = a
		}
	}
	waiting := make(chan error, 1)
	go func() { waiting <- g.Do(slow, "slow@x.y", 10) }()
	begin := time.Now()
	for i := range 100 {
		if err := g.Do(quick, fmt.Sprintf("quick%d@x.y", i), 10); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("100 commits beside a locked shard took %v", took)
	}
	unlock()
	if err := <-waiting; err != nil {
		t.Errorf("the locked shard's caller, after the lock was gone: %v", err)
	}
}

// TestFence puts the fence trigger up: writers wait for the map and get through when it is down again.
func TestFence(t *testing.T) {
	e := pg.New(t, 1)
	g := group(t, e)
	exec(t, e.Servers[0].DSN, "create trigger fence before insert or update or delete on shard_0000.rejects for each statement execute function shard_0000.fenced()")
	err := e.Shards.WriteShard(context.Background(), "shard_0000", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into rejects (account_id, email, reason) values (1, 'a@b.c', 'custom')")
		return err
	})
	if !errors.Is(err, shards.ErrUnavailable) {
		t.Errorf("a write to a fenced shard: %v", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- g.Do(1, "fenced@x.y", 10) }()
	exec(t, e.Servers[0].DSN, "drop trigger fence on shard_0000.rejects")
	if err := <-waiting; err != nil {
		t.Errorf("a write that met the fence, after it was gone: %v", err)
	}
}

func TestPartitionsAheadAndExpiry(t *testing.T) {
	e := pg.New(t, 1)
	var n int
	const count = "select count(*) from pg_inherits where inhparent = 'shard_0000.messages'::regclass"
	query(t, e.Servers[0].DSN, count, &n)
	if n != 6 {
		t.Errorf("%d partitions of messages, want one back, this one and four ahead", n)
	}
	exec(t, e.Servers[0].DSN, `create table shard_0000.messages_20200102 (like shard_0000.messages including all);
		alter table shard_0000.messages attach partition shard_0000.messages_20200102
		for values from ('016f6379-6000-0000-0000-000000000000') to ('016f8785-a400-0000-0000-000000000000');
		create table shard_0000.events_20200109 (like shard_0000.events including all)`) // as a crash between detach and drop leaves it
	other := e.Open(t, shards.Config{}) // maintains at its start
	_ = other
	shardtest.Within(t, 10*time.Second, "the old partition, and the one that was detached already, to be dropped", func() bool {
		var exists bool
		query(t, e.Servers[0].DSN, "select to_regclass('shard_0000.messages_20200102') is not null or to_regclass('shard_0000.events_20200109') is not null", &exists)
		return !exists
	})
}

// TestNeededPartitionsStay keeps an old partition for as long as somebody needs a row of it, or of its neighbours' edges. It is
// old only for the processes that are opened here, so that the one of the kit leaves it alone.
func TestNeededPartitionsStay(t *testing.T) {
	e := pg.New(t, 1)
	ends := time.Now().AddDate(0, 0, -30).Truncate(time.Second)
	begins := ends.AddDate(0, 0, -7)
	for _, table := range []string{"messages", "events"} {
		exec(t, e.Servers[0].DSN, fmt.Sprintf(`create table shard_0000.%[1]s_old (like shard_0000.%[1]s including all);
			alter table shard_0000.%[1]s attach partition shard_0000.%[1]s_old for values from ('%[2]s') to ('%[3]s')`, table, firstID(begins), firstID(ends)))
	}
	there := func() (n int) {
		query(t, e.Servers[0].DSN, "select count(*) from pg_class where relname in ('messages_old', 'events_old')", &n)
		return n
	}
	asked := make(chan string, 100)
	e.Open(t, shards.Config{Retention: 10 * 24 * time.Hour, Needed: func(_ context.Context, shard string, from, to [16]byte) (int, error) {
		asked <- fmt.Sprint(shard, " ", uuid.UUID(from), " ", uuid.UUID(to))
		return 1, nil
	}})
	want := fmt.Sprint("shard_0000 ", firstID(begins.Add(-time.Minute)), " ", firstID(ends.Add(time.Minute))) // a minute around the week
	for range 2 {
		select {
		case got := <-asked:
			if got != want {
				t.Errorf("asked for %s, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nobody asked whether the old partitions are needed")
		}
	}
	if n := there(); n != 2 {
		t.Errorf("%d of 2 needed partitions are left", n)
	}
	e.Open(t, shards.Config{Retention: 10 * 24 * time.Hour, Needed: func(context.Context, string, [16]byte, [16]byte) (int, error) { return 0, nil }})
	shardtest.Within(t, 10*time.Second, "the partitions to be dropped that nobody needs", func() bool { return there() == 0 })
}

// firstID is the first id that can be made at a time.
func firstID(at time.Time) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16)
	return id
}

// TestIDsPrune shows that a lookup by id touches one partition.
func TestIDsPrune(t *testing.T) {
	e := pg.New(t, 1)
	id := uuid.Must(uuid.NewV7())
	var plan string
	query(t, e.Servers[0].DSN, "explain select 1 from shard_0000.messages where account_id = 1 and id = '"+id.String()+"'", &plan)
	if !strings.Contains(plan, "messages_2") || strings.Contains(plan, "Append") {
		t.Errorf("not pruned: %s", plan)
	}
	if ms := binary.BigEndian.Uint64(id[:8]) >> 16; time.Since(time.UnixMilli(int64(ms))) > time.Minute {
		t.Error("the id's time is not now")
	}
}

func account(t *testing.T, e *shardtest.Env) int64 {
	t.Helper()
	a, _, err := e.Shards.CreateAccount(context.Background(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return a.ID
}

func countRejects(t *testing.T, e *shardtest.Env, like string) int {
	t.Helper()
	total := 0
	for _, sh := range e.Shards.Map().Shards() {
		err := e.Shards.ReadShard(context.Background(), sh.Name, func(ctx context.Context, tx pgx.Tx) error {
			var n int
			err := tx.QueryRow(ctx, "select count(*) from rejects where email like $1", like).Scan(&n)
			total += n
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return total
}

func exec(t testing.TB, dsn, sql string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}

// query reads one value; where a schema is named it must exist on that server, or into stays as it is.
func query(t *testing.T, dsn, sql string, into any, schema ...string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, s := range schema {
		var there bool
		if err := c.QueryRow(context.Background(), "select exists (select 1 from pg_namespace where nspname = $1)", s).Scan(&there); err != nil {
			t.Fatal(err)
		}
		if !there {
			return
		}
	}
	if err := c.QueryRow(context.Background(), sql).Scan(into); err != nil {
		t.Fatal(err)
	}
}

func lock(t *testing.T, dsn, table string) (unlock func()) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(context.Background(), "begin; lock table "+table); err != nil {
		t.Fatal(err)
	}
	return func() { _ = c.Close(context.Background()) }
}
