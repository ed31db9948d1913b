package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Waiting is a job in the queue: one that nobody has taken yet, or one being done or waiting for its retry.
type Waiting struct {
	Number uint64    `json:"number"`
	Kind   string    `json:"kind"`
	Shard  string    `json:"shard"`
	Tries  int       `json:"tries"` // before it was last put into the queue
	Rung   time.Time `json:"rung_at"`
	Items  int       `json:"items"` // how many ids it carries; 0 for a bell
	IDs    []string  `json:"ids"`   // in hex
}

// Peek lists the oldest jobs in the queue, oldest first, without taking them.
func (q *Queue) Peek(ctx context.Context, f Filter) ([]Waiting, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	stream, err := q.stream(ctx, streamJobs)
	if err != nil {
		return nil, err
	}
	var out []Waiting
	for _, subject := range []string{f.subject("jobs"), f.subject("jobs") + ".*"} { // bells, and jobs with ids
		for n, next := 0, uint64(1); n < f.limit(); n++ {
			msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("look into the queue: %w", q.why(err))
			}
			out, next = append(out, waiting(msg)), msg.Sequence+1
		}
	}
	slices.SortFunc(out, func(a, b Waiting) int { return cmp.Compare(a.Number, b.Number) })
	return out[:min(len(out), f.limit())], nil
}

func waiting(msg *jetstream.RawStreamMsg) Waiting {
	w := Waiting{Number: msg.Sequence, Rung: rungAt(msg)}
	w.Kind, w.Shard = laneOf(msg.Subject)
	w.Tries, _ = strconv.Atoi(msg.Header.Get(headerTries)) // written by us
	if ids, err := decodeIDs(msg.Data); err == nil {
		w.IDs, w.Items = inHex(ids), len(ids)
	}
	return w
}

// Wipe removes every job from the queue, those being done too; these end undisturbed. Dead jobs and the event stream
// stay. What was lost by it, the sweeper rings for again.
func (q *Queue) Wipe(ctx context.Context) error {
	stream, err := q.stream(ctx, streamJobs)
	if err != nil {
		return fmt.Errorf("wipe the queue: %w", err)
	}
	if err := stream.Purge(ctx); err != nil {
		return fmt.Errorf("wipe the queue: %w", q.why(err))
	}
	return nil
}
