package shards

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
)

// Server is a physical Postgres server as this process sees it: a pool for everything, a few writer
// connections for the groups, and a breaker.
type Server struct {
	Name    string
	dsn     string
	pool    *pgxpool.Pool
	writers chan *writer // free writer connections; nil stands for one not yet opened
	config  *pgconn.Config
	log     *zap.Logger
	metrics *metrics

	open    atomic.Bool // the breaker: true while the server does not answer
	probing atomic.Bool // a probe is under way
	begun   time.Time
	beat    atomic.Int64 // time from begun to the last heartbeat that was stored, by the monotonic clock; 0 for none
	beats   atomic.Int64 // and to the first since they have come without a gap
	vigil   vigil        // over the heartbeats of others
	ctx     context.Context
	stop    context.CancelFunc

	mu    sync.Mutex
	inUse map[string]int // transactions of each shard under way in the pool
	limit int            // most of them for one shard: half the pool
}

// writerConns is the number of writer connections: two commit what is accepted (one batch fills
// while the other commits), one the outcomes, one is to spare.
const writerConns = 4

const (
	commitTimeout = 2 * time.Second // one group, begin to commit; a stopped server must be known within 5 s
	probeTimeout  = time.Second
	lockTimeout   = "50" // ms, in groups: a locked shard is taken out of them
	// A statement has half of that, so that a slow shard is told from a server that does not answer.
)

func newServer(name, dsn string, cfg Config, m *metrics) (*Server, error) {
	pc, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	p := pc.ConnConfig.RuntimeParams
	p["application_name"] = "postrider"
	p["search_path"] = "" // a query outside a shard fails loudly
	p["statement_timeout"] = "10000"
	p["idle_in_transaction_session_timeout"] = "5000"
	pc.MaxConns = cfg.PoolConns
	pc.ConnConfig.ConnectTimeout = 2 * time.Second
	// The texts are the same in every shard, but a plan belongs to the search_path it was made under.
	pc.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pc.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		// Exec mode takes a parameter's type from Go's, and these two it does not know.
		c.TypeMap().RegisterDefaultPgType([16]byte{}, "uuid")
		c.TypeMap().RegisterDefaultPgType([][16]byte{}, "_uuid")
		return nil
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, err
	}
	wc := pc.ConnConfig.Config.Copy()
	for k, v := range map[string]string{
		"lock_timeout": lockTimeout, "statement_timeout": "1000", "synchronous_commit": "on",
		// A plan made while a partition is empty would scan it for ever.
		"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
	} {
		wc.RuntimeParams[k] = v
	}
	v := &Server{Name: name, begun: time.Now(), dsn: dsn, pool: pool, config: wc, log: cfg.Log.With(zap.String("server", name)), metrics: m,
		writers: make(chan *writer, writerConns), inUse: map[string]int{}, limit: max(int(cfg.PoolConns)/2, 1)}
	v.ctx, v.stop = context.WithCancel(context.Background())
	for range writerConns {
		v.writers <- nil
	}
	return v, nil
}

func (v *Server) close() {
	v.stop()
	for range writerConns {
		if w := <-v.writers; w != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = w.conn.Close(ctx)
			cancel()
		}
	}
	v.pool.Close()
}

// Up says that the breaker is closed.
func (v *Server) Up() bool { return !v.open.Load() }

// Beating says that this instance's heartbeat was stored here less than d ago, so that nobody has
// freed its claims.
func (v *Server) Beating(d time.Duration) bool {
	at := v.beat.Load()
	return at > 0 && time.Since(v.begun)-time.Duration(at) < d
}

// Sure says that this instance's heartbeats have been stored here without a gap of Quiet from a time until now: what it
// has held since then is its own. After a gap, of a frozen process or a lost network, another may have freed its claims.
func (v *Server) Sure(since time.Time) bool {
	return v.Beating(Quiet) && since.Sub(v.begun) >= time.Duration(v.beats.Load())
}

// writer is a connection that alone holds the prepared statements of each shard.
type writer struct {
	conn     *pgconn.PgConn
	prepared map[string]bool
}

func (v *Server) acquireWriter(ctx context.Context) (*writer, error) {
	select {
	case w := <-v.writers:
		if w != nil && !w.conn.IsClosed() {
			return w, nil
		}
		conn, err := pgconn.ConnectConfig(ctx, v.config)
		if err != nil {
			v.writers <- nil
			return nil, err
		}
		return &writer{conn: conn, prepared: map[string]bool{}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (v *Server) releaseWriter(w *writer) { v.writers <- w }

// failed tells the breaker of an error. If it speaks of the connection and not of the statement, the
// server is probed, and while the probe fails nobody waits for it.
func (v *Server) failed(err error) {
	if err == nil || !lostServer(err) || !v.probing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer v.probing.Store(false)
		for v.ctx.Err() == nil {
			err := v.probe()
			if err == nil {
				if v.open.Swap(false) {
					v.log.Info("server answers again")
					v.metrics.breaker.WithLabelValues(v.Name).Set(0)
				}
				return
			}
			if v.ctx.Err() == nil && !v.open.Swap(true) {
				v.log.Warn("server does not answer, its accounts get 503 until it does", zap.Error(err))
				v.metrics.breaker.WithLabelValues(v.Name).Set(1)
			}
			pause(v.ctx, 300*time.Millisecond)
		}
	}()
}

func (v *Server) probe() error {
	ctx, cancel := context.WithTimeout(v.ctx, probeTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, v.config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "select 1").ReadAll()
	return err
}

// lostServer says that an error is about the server or the way to it, not about the statement.
func lostServer(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return true
	}
	switch pe.Code {
	case "57P01", "57P02", "57P03", "08000", "08003", "08006": // shut down, crashed, starting, lost
		return true
	}
	return false
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// movedAway says that the shard is fenced or gone from this server: the map is old.
func movedAway(err error) bool {
	switch code(err) {
	case "SM001", "3F000", "42P01":
		return true
	}
	return false
}

// noRoom says that the server cannot store now: disk full, out of memory or connections, read-only.
func noRoom(err error) bool {
	c := code(err)
	return len(c) == 5 && (c[:2] == "53" || c == "25006" || c[:2] == "58")
}

// transient says that the same statement may pass a moment later: locked, deadlock, serialization, timed out.
func transient(err error) bool {
	switch code(err) {
	case "55P03", "40P01", "40001", "57014":
		return true
	}
	return false
}

// enter counts a transaction of a shard in; false means that the shard has its share of the pool.
func (v *Server) enter(shard string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inUse[shard] >= v.limit {
		return false
	}
	v.inUse[shard]++
	return true
}

func (v *Server) leave(shard string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inUse[shard]--; v.inUse[shard] == 0 {
		delete(v.inUse, shard)
	}
}
