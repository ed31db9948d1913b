// Package shards spreads accounts over logical shards (Postgres schemas) and those over physical
// servers. It keeps the map, hands out every connection and transaction, commits in groups, and
// knows nothing of mail.
//
// An account id hashes to one of 4,096 buckets, a bucket belongs to a shard, a shard lives on a
// server; the directory database holds all three. A process that routes by an old map is stopped
// by the shard itself (SQLSTATE SM001 from a trigger), reloads the map and tries again.
package shards

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// ErrUnavailable wraps every failure that is the server's and not the statement's: nothing is known
// to be stored and the caller may try again.
var ErrUnavailable = errors.New("the shard's server cannot be used now")

// ErrNoDirectory says that the directory could not be asked.
var ErrNoDirectory = errors.New("the directory cannot be asked now")

// Config is what a process needs to reach all shards.
type Config struct {
	Directory string   // DSN of the directory database
	Instance  [16]byte // this process, new at every start
	Sole      bool     // no other process serves these shards: claims of earlier ones are void at once
	PoolConns int32    // connections a server for everything but the group writers; default 8
	Log       *zap.Logger
	Metrics   prometheus.Registerer
	Floor     func() [16]byte // smallest id that is born claimed and in hand; zero for none
	BeatEvery time.Duration   // heartbeat, default 5 s
	Retention time.Duration   // age at which a partition is dropped; default 90 days
	// Needed counts the rows of a shard with ids from one to before another that must not be dropped yet, whatever their
	// age. Their partitions stay until they may go. Nil: none is needed.
	Needed func(ctx context.Context, shard string, from, to [16]byte) (int, error)
}

// Shards is the one way to the data of accounts.
type Shards struct {
	cfg       Config
	directory *pgxpool.Pool
	current   atomic.Pointer[Map]
	mu        sync.Mutex // guards servers and loading of the map
	servers   map[string]*Server
	keys      keyCache
	metrics   *metrics
	reload    chan struct{}
}

// Open connects to the directory and loads the map. It does not ask the servers: one that is down
// must not keep the process from serving the others.
func Open(ctx context.Context, cfg Config) (*Shards, error) {
	if cfg.PoolConns == 0 {
		cfg.PoolConns = 8
	}
	if cfg.BeatEvery == 0 {
		cfg.BeatEvery = 5 * time.Second
	}
	if cfg.Retention == 0 {
		cfg.Retention = 90 * 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	pool, err := openPool(ctx, cfg.Directory, 4)
	if err != nil {
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	s := &Shards{cfg: cfg, directory: pool, servers: map[string]*Server{}, reload: make(chan struct{}, 1)}
	s.metrics = newMetrics(cfg.Metrics)
	s.keys.entries = map[[32]byte]Key{}
	if err := s.load(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// Run keeps the map fresh, the heartbeats going, the partitions ahead and the breakers honest until
// ctx ends.
func (s *Shards) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error { return s.listen(ctx) })
	g.Go(func() error { return s.beat(ctx) })
	g.Go(func() error { return s.keepPartitions(ctx) })
	return g.Wait()
}

// Close ends every connection.
func (s *Shards) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.servers {
		v.close()
	}
	s.directory.Close()
}

// Map is the newest version known here.
func (s *Shards) Map() *Map { return s.current.Load() }

// Instance is this process.
func (s *Shards) Instance() [16]byte { return s.cfg.Instance }

// Of is the shard of an account, by the newest map known here.
func (s *Shards) Of(account int64) *Shard { return s.current.Load().Of(account) }
