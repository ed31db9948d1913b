package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// The streams. A job's subject is jobs.<kind>.<shard>, a dead one's dead.<kind>.<shard>, an event's events.<shard>.
const (
	streamJobs   = "JOBS"
	streamDead   = "DEAD"
	streamEvents = "EVENTS"
)

const (
	day        = 24 * time.Hour
	doubles    = 2 * time.Minute // how long the id of an event entry is remembered: 168 bytes each
	watchEvery = 5 * time.Second
)

// streamConfigs describes the streams. A full JOBS refuses, so that who rings learns of it; the others are logs and
// drop what is oldest.
func streamConfigs(maxDisk int64) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{Name: streamJobs, Subjects: []string{"jobs.*.*"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			MaxAge: 7 * day, MaxBytes: maxDisk / 4, Duplicates: doubles},
		{Name: streamDead, Subjects: []string{"dead.*.*"}, Discard: jetstream.DiscardOld, MaxAge: 30 * day, MaxBytes: maxDisk / 16, Duplicates: doubles},
		{Name: streamEvents, Subjects: []string{"events.*"}, Discard: jetstream.DiscardOld, MaxAge: 7 * day, MaxBytes: maxDisk / 2, Duplicates: doubles},
	}
}

// streams makes the streams that are not there and measures those that are. With update, an existing one is also brought
// to this version's settings.
func (q *Queue) streams(ctx context.Context, update bool) error {
	if !q.nc.IsConnected() {
		return errAway
	}
	made := false
	var errs []error
	for _, cfg := range streamConfigs(cmp.Or(q.cfg.MaxDisk, defaultDisk)) {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		stream, err := q.js.Stream(ctx, cfg.Name)
		switch {
		case err == nil && update:
			err = q.update(ctx, cfg, stream.CachedInfo().Config)
		case err == nil:
			q.metrics.measure(stream.CachedInfo())
		case errors.Is(err, jetstream.ErrStreamNotFound):
			cfg.Replicas, made = q.replicas(), true
			_, err = q.js.CreateOrUpdateStream(ctx, cfg)
		}
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("stream %s of at most %d bytes: %w", cfg.Name, cfg.MaxBytes, err))
		}
	}
	if made && q.cfg.Server != nil {
		errs = append(errs, q.cfg.Server.flush())
	}
	return errors.Join(errs...)
}

// update leaves alone what is the operator's choice.
func (q *Queue) update(ctx context.Context, want, is jetstream.StreamConfig) error {
	want.Replicas = is.Replicas
	if q.cfg.MaxDisk == 0 {
		want.MaxBytes = is.MaxBytes
	}
	_, err := q.js.UpdateStream(ctx, want)
	return err
}

// replicas is 3 in a cluster, which then outlives one of its servers.
func (q *Queue) replicas() int {
	if q.nc.ConnectedClusterName() != "" {
		return 3
	}
	return 1
}

func (q *Queue) lookNow() {
	select {
	case q.look <- struct{}{}:
	default:
	}
}

// watch makes the streams again whenever they are gone: the server may have come back with an empty folder. err is
// how the first look ended; only changes are told.
func (q *Queue) watch(ctx context.Context, err error) {
	defer close(q.ended)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	if err != nil {
		q.log.Warn("queue not ready, jobs wait in their rows until it is", zap.Error(err))
	}
	q.metrics.up(err == nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.look:
		case <-tick.C:
		}
		was := err
		err = q.streams(ctx, was != nil)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && was == nil:
			q.log.Warn("queue not ready, jobs wait in their rows until it is", zap.Error(err))
		case err == nil && was != nil:
			q.log.Info("queue ready")
		}
		q.metrics.up(err == nil)
	}
}

// Stats is a look at the queue.
type Stats struct {
	Pending  int           // jobs that nobody has taken yet
	InFlight int           // jobs being done, or waiting for their retry
	Dead     int           // jobs given up and still kept
	Oldest   time.Duration // age of the oldest job that is not done; 0 when there is none
}

// Stats asks the server, for 2 s at most.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if !q.nc.IsConnected() {
		return Stats{}, fmt.Errorf("queue statistics: %w", errAway)
	}
	var st Stats
	stream, err := q.js.Stream(ctx, streamJobs)
	if err != nil {
		return Stats{}, fmt.Errorf("queue statistics: %w", err)
	}
	gone, err := q.js.Stream(ctx, streamDead)
	if err != nil {
		return Stats{}, fmt.Errorf("queue statistics: %w", err)
	}
	consumers := stream.ListConsumers(ctx)
	for c := range consumers.Info() {
		st.InFlight += c.NumAckPending
	}
	if err := consumers.Err(); err != nil {
		return Stats{}, fmt.Errorf("queue statistics: %w", err)
	}
	state := stream.CachedInfo().State
	st.Pending = max(int(state.Msgs)-st.InFlight, 0)
	st.Dead = int(gone.CachedInfo().State.Msgs)
	if state.Msgs > 0 {
		st.Oldest = max(time.Since(state.FirstTime), 0)
	}
	return st, nil
}
