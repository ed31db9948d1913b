package shards

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Silent is how long an instance's heartbeat may be missing before its claims are freed. An instance
// that could not store one for Quiet begins nothing new on that server: by the time another frees its
// claims it has long stopped using them.
const (
	Silent = 30 * time.Second
	Quiet  = 20 * time.Second
)

// Instance is a process that holds, or held, claims.
type Instance struct {
	ID    [16]byte
	Floor [16]byte // nothing that was born claimed and is still in its hands has a smaller id
	Gone  bool     // long enough that nothing it had sent to the server can still be committed
}

const (
	beatSQL   = `insert into postrider.instances (id, floor) values ($1, $2) on conflict (id) do update set seen_at = now(), floor = $2`
	deadSQL   = `select id, floor, seen_at < now() - interval '3 minutes' from postrider.instances where id <> $1 and ($2 or seen_at < now() - make_interval(secs => $3))`
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

// Dead lists the instances of a server whose claims may be freed. After a server was away, none: nobody could store a
// heartbeat meanwhile, and the living need time to be seen again.
func (s *Shards) Dead(ctx context.Context, v *Server) ([]Instance, error) {
	if !s.cfg.Sole && (!v.Beating(Quiet) || time.Since(v.begun)-time.Duration(v.beats.Load()) < Silent) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	rows, err := v.pool.Query(ctx, deadSQL, s.cfg.Instance, s.cfg.Sole, Silent.Seconds())
	if err != nil {
		v.failed(err)
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Instance])
}

// Forget removes an instance once all its claims on the server are free.
func (s *Shards) Forget(ctx context.Context, v *Server, id [16]byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := v.pool.Exec(ctx, forgetSQL, id)
	return err
}
