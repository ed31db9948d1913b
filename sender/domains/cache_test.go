package domains

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

func run(t *testing.T, f func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	shardtest.Within(t, d, what, ok)
}

// count is how many checks a process made.
func count(t *testing.T, d *Domains) int {
	t.Helper()
	ch, n := make(chan prometheus.Metric, 10), 0.0
	d.done.Collect(ch)
	close(ch)
	for m := range ch {
		var v dto.Metric
		if err := m.Write(&v); err != nil {
			t.Fatal(err)
		}
		n += v.GetCounter().GetValue()
	}
	return int(n)
}

// due makes every domain due.
func (w *world) due(t *testing.T) {
	t.Helper()
	for account := range int64(3) {
		list, err := w.List(t.Context(), 1+account)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			_, err := w.cfg.Store.ChangeDomain(t.Context(), 1+account, d.Name, func(s *store.Domain) error {
				s.Next = time.Now().Add(-time.Minute)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOneReadAtATime has many ask for the same domain.
func TestOneReadAtATime(t *testing.T) {
	var reads atomic.Int32
	hold := make(chan struct{})
	c := newCache(10, func(int64, string) (*Identity, error) {
		reads.Add(1)
		<-hold
		return &Identity{Verified: true}, nil
	})
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if id, err := c.get(context.Background(), time.Unix(0, 0), 1, "example.com"); err != nil || !id.Verified {
				t.Error(id, err)
			}
		})
	}
	within(t, 5*time.Second, "a read", func() bool { return reads.Load() > 0 })
	close(hold)
	all.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads for 100 that ask", n)
	}
}

// TestCacheIsBounded and forgets what was not asked for the longest.
func TestCacheIsBounded(t *testing.T) {
	reads := 0
	c := newCache(3, func(int64, string) (*Identity, error) { reads++; return &Identity{}, nil })
	now := time.Unix(1000, 0)
	get := func(account int64) {
		if _, err := c.get(context.Background(), now, account, "d"); err != nil {
			t.Fatal(err)
		}
	}
	for _, account := range []int64{1, 2, 3, 1, 4, 1, 3, 2} { // 4 puts 2 out, 2 puts 4 out
		get(account)
	}
	if reads != 5 || len(c.entries) != 3 || c.recent.Len() != 3 {
		t.Errorf("%d reads, %d kept", reads, len(c.entries))
	}
	now = now.Add(cacheTime)
	get(1)
	if reads != 6 {
		t.Error("what is a minute old is not read again")
	}
}

// TestDropDuringARead does not keep what was read before a change.
func TestDropDuringARead(t *testing.T) {
	begun, hold := make(chan struct{}), make(chan struct{})
	reads := 0
	c := newCache(3, func(int64, string) (*Identity, error) {
		if reads++; reads == 1 {
			close(begun)
			<-hold
			return &Identity{}, nil
		}
		return &Identity{Verified: true}, nil
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.get(context.Background(), time.Unix(0, 0), 1, "d")
	}()
	<-begun
	c.drop(1, "d")
	close(hold)
	<-ended
	if id, err := c.get(context.Background(), time.Unix(0, 0), 1, "d"); err != nil || !id.Verified {
		t.Error("what was read before a change is remembered after it")
	}
}

// TestServerAway has what is known used on, and what is not known wait.
func TestServerAway(t *testing.T) {
	e, stop, start := shardtest.Own(t, 1)
	var mu sync.Mutex
	clock := time.Now()
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); clock = clock.Add(d) }
	d := New(Config{Shards: e.Shards, Store: store.New(e.Shards), Secret: [32]byte{1}})
	d.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
	if err := d.Vouch(t.Context(), 1, "example.com"); err != nil {
		t.Fatal(err)
	}
	if keys, err := d.Keys(t.Context(), 1, "example.com"); len(keys) != 2 || err != nil {
		t.Fatal(keys, err)
	}
	stop()
	for _, after := range []time.Duration{0, 2 * time.Minute, 7 * time.Minute} {
		pass(after)
		if keys, err := d.Keys(t.Context(), 1, "example.com"); len(keys) != 2 || err != nil {
			t.Errorf("%v more without the server: %d keys, %v", after, len(keys), err)
		}
	}
	pass(2 * time.Minute)
	for _, domain := range []string{"example.com", "example.org"} {
		keys, err := d.Keys(t.Context(), 1, domain)
		var known *sender.Error
		if keys != nil || !errors.As(err, &known) || known.Kind != sender.KindUnavailable || !errors.Is(err, shards.ErrUnavailable) {
			t.Errorf("%s: %v, %v", domain, keys, err)
		}
		if err := d.MaySend(t.Context(), 1, domain); !errors.As(err, &known) || known.Kind != sender.KindUnavailable {
			t.Errorf("%s may be sent from: %v", domain, err)
		}
	}
	start()
	within(t, 20*time.Second, "the keys to be read again", func() bool {
		keys, err := d.Keys(t.Context(), 1, "example.com")
		return err == nil && len(keys) == 2
	})
}

func BenchmarkKeys(b *testing.B) {
	e := pg.New(b, 1)
	d := New(Config{Shards: e.Shards, Store: store.New(e.Shards), Secret: [32]byte{1}})
	if err := d.Vouch(b.Context(), 1, "example.com"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if keys, err := d.Keys(context.Background(), 1, "example.com"); err != nil || len(keys) != 2 {
				b.Fatal(keys, err)
			}
		}
	})
}

// BenchmarkLoad is what the first mail in a minute pays.
func BenchmarkLoad(b *testing.B) {
	e := pg.New(b, 1)
	d := New(Config{Shards: e.Shards, Store: store.New(e.Shards), Secret: [32]byte{1}})
	if err := d.Vouch(b.Context(), 1, "example.com"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.load(1, "example.com"); err != nil {
			b.Fatal(err)
		}
	}
}
