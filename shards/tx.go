package shards

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// parking is how long a transaction waits for a shard that is fenced, moving or full of others.
const parking = 4 * time.Second

// Write runs fn in a read-write transaction of the account's shard; unqualified names mean the
// shard's tables. fn may run again after a fence, a deadlock or a lost connection before commit.
func (s *Shards) Write(ctx context.Context, account int64, fn func(context.Context, pgx.Tx) error) error {
	return s.run(ctx, func() (*Shard, error) { return s.Of(account), nil }, pgx.ReadWrite, fn)
}

// Read runs fn in a read-only transaction of the account's shard.
func (s *Shards) Read(ctx context.Context, account int64, fn func(context.Context, pgx.Tx) error) error {
	return s.run(ctx, func() (*Shard, error) { return s.Of(account), nil }, pgx.ReadOnly, fn)
}

// WriteShard is Write for work that belongs to a whole shard.
func (s *Shards) WriteShard(ctx context.Context, shard string, fn func(context.Context, pgx.Tx) error) error {
	return s.run(ctx, s.named(shard), pgx.ReadWrite, fn)
}

// ReadShard is Read for work that belongs to a whole shard.
func (s *Shards) ReadShard(ctx context.Context, shard string, fn func(context.Context, pgx.Tx) error) error {
	return s.run(ctx, s.named(shard), pgx.ReadOnly, fn)
}

func (s *Shards) named(name string) func() (*Shard, error) {
	return func() (*Shard, error) {
		if sh := s.Map().Shard(name); sh != nil {
			return sh, nil
		}
		return nil, fmt.Errorf("no shard is called %q", name)
	}
}

func (s *Shards) run(ctx context.Context, find func() (*Shard, error), mode pgx.TxAccessMode, fn func(context.Context, pgx.Tx) error) error {
	limit, cancel := context.WithTimeout(ctx, parking)
	defer cancel()
	for try := 1; ; try++ {
		sh, err := find()
		if err != nil {
			return err
		}
		err = s.once(limit, sh, mode, fn)
		switch {
		case err == nil:
			return nil
		case movedAway(err):
			s.nudge()
		case transient(err), errors.Is(err, errShare):
		case try == 1 && lostServer(err) && early(err) && !pgconn.Timeout(err):
			continue // a pool connection that died while idle is no news, and nothing was committed
		case lostServer(err) && code(err) == "" && !errors.Is(err, ErrUnavailable) && !isConn(err):
			return err // fn's own error
		case lostServer(err), noRoom(err):
			return fmt.Errorf("%w: %s: %w", ErrUnavailable, sh.Server.Name, err)
		default:
			return err
		}
		if limit.Err() != nil || try > 200 {
			return fmt.Errorf("%w: %s: %w", ErrUnavailable, sh.Name, err)
		}
		pause(limit, min(time.Duration(try)*5*time.Millisecond, 50*time.Millisecond))
	}
}

var errShare = errors.New("the shard has its share of the connections in use")

// connError marks what went wrong with a connection, to tell it from fn's own errors. early says that no commit was
// sent.
type connError struct {
	err   error
	early bool
}

func (e connError) Error() string { return e.err.Error() }
func (e connError) Unwrap() error { return e.err }

func isConn(err error) bool {
	var c connError
	return errors.As(err, &c)
}

func early(err error) bool {
	var c connError
	return errors.As(err, &c) && c.early
}

func (s *Shards) once(ctx context.Context, sh *Shard, mode pgx.TxAccessMode, fn func(context.Context, pgx.Tx) error) error {
	v := sh.Server
	if !v.Up() {
		return fmt.Errorf("%w: %s does not answer", ErrUnavailable, v.Name)
	}
	if !v.enter(sh.Name) {
		return errShare
	}
	defer v.leave(sh.Name)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := v.pool.Acquire(ctx)
	if err != nil {
		v.failed(err)
		return connError{err, true}
	}
	defer conn.Release()
	begin := "begin; set local search_path = " + sh.Name
	if mode == pgx.ReadOnly {
		begin = "begin read only; set local search_path = " + sh.Name
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		v.failed(err)
		return connError{err, true}
	}
	err = fn(ctx, tx)
	commit := err == nil
	if commit {
		err = tx.Commit(ctx)
	} else if rollback := tx.Rollback(ctx); rollback != nil || ctx.Err() != nil {
		err = connError{err, true} // the connection is gone with the transaction
	}
	if conn.Conn().IsClosed() && err != nil {
		v.failed(err)
		return connError{err, !commit}
	}
	return err
}
