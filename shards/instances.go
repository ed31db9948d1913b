package shards

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Silent is how long an instance's heartbeat may be missing before its claims are freed. An instance
// that could not store one for Quiet begins nothing new on that server: by the time another frees its
// claims it has long stopped using them.
const (
	Silent = 25 * time.Second
	Quiet  = 20 * time.Second
)

// The server's clock alone must not kill: set forward by an hour it makes all the living look silent, set back it makes
// the dead look alive. So each instance also watches the others' heartbeats by its own monotonic clock.
const (
	watched = 15 * time.Second // what must have been watched before the server is believed: three heartbeats
	stuck   = 40 * time.Second // what is believed without the server
	gone    = 3 * time.Minute  // after which nothing that an instance had sent can still be committed
	ancient = 3 * time.Hour    // and this of the server's clock will do for that, or one crash after another would leave rows for ever
)

// Instance is a process that holds, or held, claims.
type Instance struct {
	ID    [16]byte
	Floor [16]byte // nothing that was born claimed and is still in its hands has a smaller id
	Gone  bool     // long enough that nothing it had sent to the server can still be committed
}

const (
	beatSQL   = `insert into postrider.instances (id, floor) values ($1, $2) on conflict (id) do update set seen_at = now(), floor = $2`
	othersSQL = `
select id, floor, seen_at, seen_at < now() - make_interval(secs => $2), seen_at < now() - make_interval(secs => $3)
from postrider.instances where id <> $1 order by seen_at desc limit 1000`
	forgetSQL = `delete from postrider.instances where id = $1`
)

// beat stores this instance's heartbeat on every server.
func (s *Shards) beat(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.BeatEvery)
	defer tick.Stop()
	for {
		s.Beat(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Beat stores a heartbeat on every server now. One that does not answer within 2 s is left for the next
// time; its claims here rest meanwhile.
func (s *Shards) Beat(ctx context.Context) {
	floor := s.cfg.Instance // a UUIDv7 as old as the process: always a floor
	if s.cfg.Floor != nil {
		if f := s.cfg.Floor(); f != [16]byte{} {
			floor = f
		}
	}
	var all errgroup.Group
	for _, v := range s.Map().Servers() {
		all.Go(func() error {
			if !v.Up() {
				return nil
			}
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			at := time.Since(v.begun)
			if _, err := v.pool.Exec(ctx, beatSQL, s.cfg.Instance, floor); err != nil {
				v.failed(err)
				v.log.Debug("heartbeat not stored", zap.Error(err))
				return nil
			}
			if !v.Beating(Quiet) {
				v.beats.Store(int64(at))
			}
			v.beat.Store(int64(at))
			return nil
		})
	}
	_ = all.Wait()
}

// Dead lists the instances of a server whose claims may be freed: one statement on a tiny table, made to be called every
// 2 s, so that a killed process is listed within 30 s. It watches while it is called, at least every 15 s. In the first 15 s
// after a server was away it lists none: nobody could store a heartbeat meanwhile, and the living need time to be seen again.
func (s *Shards) Dead(ctx context.Context, v *Server) ([]Instance, error) {
	if !s.cfg.Sole && !v.Beating(Quiet) {
		return nil, nil
	}
	old := ancient
	if s.cfg.Sole {
		old = gone // nobody's commits are under way but those of processes that ended on this machine
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	asked := time.Since(v.begun)
	rows, _ := v.pool.Query(ctx, othersSQL, s.cfg.Instance, Silent.Seconds(), old.Seconds()) // an error shows in the rows
	others, err := pgx.CollectRows(rows, pgx.RowToStructByPos[heartbeat])
	if err != nil {
		v.failed(err)
		return nil, err
	}
	return v.vigil.dead(others, asked, time.Since(v.begun), time.Duration(v.beats.Load()), s.cfg.Sole), nil
}

// Forget removes an instance once all its claims on the server are free.
func (s *Shards) Forget(ctx context.Context, v *Server, id [16]byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := v.pool.Exec(ctx, forgetSQL, id)
	return err
}

// heartbeat is another instance's row as the server tells it.
type heartbeat struct {
	ID, Floor [16]byte
	Seen      time.Time // by the server's clock: only ever compared with itself
	Silent    bool      // by the server's clock
	Ancient   bool      // by the server's clock
}

// vigil remembers since when each other instance's heartbeat has stood still. Its times are since the Server was made,
// by the monotonic clock.
type vigil struct {
	mu     sync.Mutex
	sights map[[16]byte]sight
}

type sight struct {
	seen  time.Time
	since time.Duration
}

// dead judges the rows of a look that was asked for at one time and answered at another. What was watched before from,
// when this instance's own heartbeats came through again, does not count: the others' may not have come through either.
func (w *vigil) dead(others []heartbeat, asked, answered, from time.Duration, sole bool) []Instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Instance
	now := make(map[[16]byte]sight, len(others)) // those whose rows are gone are forgotten
	for _, o := range others {
		last, known := w.sights[o.ID]
		if !known || !last.seen.Equal(o.Seen) {
			last = sight{o.Seen, answered}
		}
		now[o.ID] = last
		still := asked - max(last.since, from)
		if sole || still >= stuck || o.Silent && still >= watched {
			out = append(out, Instance{o.ID, o.Floor, still >= gone || o.Ancient})
		}
	}
	w.sights = now
	return out
}
