package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// The streams. A bell's subject is jobs.<kind>.<shard>, that of a job with ids jobs.<kind>.<shard>.<its own>, a dead one's
// dead.<kind>.<shard>, an event's events.<shard>.
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
// drop what is oldest. JOBS keeps one entry a subject, so a bell takes the place of the one that waits, or is being heard.
func streamConfigs(maxDisk int64) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{Name: streamJobs, Subjects: []string{"jobs.*.*", "jobs.*.*.*"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			MaxMsgsPerSubject: 1, MaxAge: 7 * day, MaxBytes: maxDisk / 4, Duplicates: doubles},
		{Name: streamDead, Subjects: []string{"dead.*.*"}, Discard: jetstream.DiscardOld, MaxAge: 30 * day, MaxBytes: maxDisk / 16, Duplicates: doubles},
		{Name: streamEvents, Subjects: []string{"events.*"}, Discard: jetstream.DiscardOld, MaxAge: 7 * day, MaxBytes: maxDisk / 2, Duplicates: doubles},
	}
}

// streams makes the streams that are not there and measures those that are. With update, an existing one is also brought
// to this version's settings.
func (q *Queue) streams(ctx context.Context, update bool) error {
	if !q.nc.IsConnected() {
		return q.away()
	}
	made := false
	var errs []error
	for _, cfg := range streamConfigs(cmp.Or(q.cfg.MaxDisk, defaultDisk)) {
		stream, err := q.stream(ctx, cfg.Name)
		switch {
		case err == nil && update:
			err = q.update(ctx, cfg, stream)
		case err == nil:
			q.metrics.measure(stream.CachedInfo())
		case errors.Is(err, jetstream.ErrStreamNotFound):
			cfg.Replicas, made = q.replicas(), true
			err = q.ensure(ctx, cfg)
		}
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
func (q *Queue) update(ctx context.Context, want jetstream.StreamConfig, stream jetstream.Stream) error {
	is := stream.CachedInfo().Config
	want.Replicas = is.Replicas
	if q.cfg.MaxDisk == 0 {
		want.MaxBytes = is.MaxBytes
	}
	if want.MaxMsgsPerSubject == 1 && is.MaxMsgsPerSubject != 1 {
		if err := q.bringOver(ctx, want, stream); err != nil {
			return fmt.Errorf("bring jobs over from an older version: %w", err)
		}
	}
	return q.ensure(ctx, want)
}

func (q *Queue) ensure(ctx context.Context, cfg jetstream.StreamConfig) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	_, err := q.js.CreateOrUpdateStream(ctx, cfg)
	return err
}

// bringOver gives the jobs with ids subjects of their own, which an older version put on that of the bell, before all but
// the last would go. Cut off half-way, it goes on at the next look; a job may be doubled by that.
func (q *Queue) bringOver(ctx context.Context, want jetstream.StreamConfig, stream jetstream.Stream) error {
	want.MaxMsgsPerSubject, want.MaxBytes = -1, -1 // a full stream too
	if err := q.ensure(ctx, want); err != nil {
		return err
	}
	for next := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject("jobs.*.*"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		next = msg.Sequence + 1
		if ids, err := decodeIDs(msg.Data); err == nil && len(ids) == 0 {
			continue
		}
		if _, err := q.js.Publish(ctx, msg.Subject+"."+strconv.FormatUint(msg.Sequence, 36), msg.Data); err != nil {
			return err
		}
		if err := stream.DeleteMsg(ctx, msg.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return err
		}
	}
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

// watch makes the streams again whenever they are gone: the server may have come back with an empty folder. Only changes
// are told.
func (q *Queue) watch(ctx context.Context) {
	defer close(q.ended)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	err := *q.state.Load()
	if err != nil {
		q.log.Warn("queue not ready, jobs wait in their rows until it is", zap.Error(err))
	}
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
		q.note(err)
		if st, err := q.Stats(ctx); err == nil {
			q.metrics.lanes(st.Lanes)
		}
	}
}
