package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DeadJob is a job that was given up.
type DeadJob struct {
	Number uint64    `json:"number"` // by which it is replayed
	Kind   string    `json:"kind"`
	Shard  string    `json:"shard"`
	Reason string    `json:"reason"`
	Tries  int       `json:"tries"`
	Rung   time.Time `json:"rung_at"`
	Died   time.Time `json:"dead_at"`
}

// MaxDead is how many dead jobs are listed at most.
const MaxDead = 1000

// ErrNoDead says that there is no dead job of that number.
var ErrNoDead = errors.New("no dead job has this number")

// DeadJobs lists the jobs that were given up, the newest first, at most MaxDead.
func (q *Queue) DeadJobs(ctx context.Context) ([]DeadJob, error) {
	stream, err := q.graves(ctx)
	if err != nil {
		return nil, err
	}
	state := stream.CachedInfo().State
	var out []DeadJob
	for seq := state.LastSeq; seq >= state.FirstSeq && seq > 0 && len(out) < MaxDead; seq-- {
		msg, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // replayed
		}
		if err != nil {
			return nil, fmt.Errorf("read dead job %d: %w", seq, err)
		}
		out = append(out, deadJob(msg))
	}
	return out, nil
}

// Replay gives a dead job to the handlers once more. It is doubled rather than lost when this is cut off half-way.
func (q *Queue) Replay(ctx context.Context, number uint64) (DeadJob, error) {
	stream, err := q.graves(ctx)
	if err != nil {
		return DeadJob{}, err
	}
	msg, err := stream.GetMsg(ctx, number)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadJob{}, ErrNoDead
	}
	if err != nil {
		return DeadJob{}, fmt.Errorf("read dead job %d: %w", number, err)
	}
	job := deadJob(msg)
	ids, err := decodeIDs(msg.Data)
	if err != nil {
		return job, fmt.Errorf("dead job %d: %w", number, err)
	}
	if err := q.Ring(ctx, Job{Kind: job.Kind, Shard: job.Shard, IDs: ids}); err != nil {
		return job, err
	}
	if err := stream.DeleteMsg(ctx, number); err != nil {
		return job, fmt.Errorf("rung, but still listed as dead: %w", err)
	}
	return job, nil
}

func (q *Queue) graves(ctx context.Context) (jetstream.Stream, error) {
	if !q.nc.IsConnected() {
		return nil, errAway
	}
	stream, err := q.js.Stream(ctx, streamDead)
	if err != nil {
		return nil, fmt.Errorf("dead jobs: %w", err)
	}
	return stream, nil
}

func deadJob(msg *jetstream.RawStreamMsg) DeadJob {
	j := DeadJob{Number: msg.Sequence, Died: msg.Time.UTC(), Reason: msg.Header.Get(headerReason), Shard: shardOf(msg.Subject)}
	j.Kind, _, _ = strings.Cut(strings.TrimPrefix(msg.Subject, "dead."), ".")
	j.Tries, _ = strconv.Atoi(msg.Header.Get(headerTries)) // written by us
	j.Rung, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(headerRung))
	return j
}
