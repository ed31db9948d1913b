package jobs

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DeadJob is a job that was given up.
type DeadJob struct {
	Number uint64    `json:"number"` // by which it is shown and replayed
	Kind   string    `json:"kind"`
	Shard  string    `json:"shard"`
	Reason string    `json:"reason"`
	Tries  int       `json:"tries"`
	Rung   time.Time `json:"rung_at"`
	Died   time.Time `json:"dead_at"`
	Items  int       `json:"items"` // how many ids it carries; 0 for a bell
	IDs    []string  `json:"ids"`   // in hex
}

// Filter chooses jobs. What is empty chooses all.
type Filter struct {
	Kind   string
	Shard  string
	Reason string // of dead jobs: a part of it
	Limit  int    // of a list: 1 to MaxList, which is also the default
}

// MaxList is how many jobs are listed at most.
const MaxList = 1000

// ErrNoDead says that there is no dead job of that number.
var ErrNoDead = errors.New("no dead job has this number; see postrider jobs dead list")

var errUnreadable = errors.New("cannot be read by this version, so it cannot be replayed")

// Check says what of a filter cannot be.
func (f Filter) Check() error {
	for _, s := range []string{f.Kind, f.Shard} {
		if s != "" && !token.MatchString(s) {
			return fmt.Errorf("choose jobs of %q: kind and shard %w", s, errToken)
		}
	}
	if f.Limit < 0 || f.Limit > MaxList {
		return fmt.Errorf("choose %d jobs: the limit must be 1 to %d", f.Limit, MaxList)
	}
	return nil
}

func (f Filter) limit() int { return cmp.Or(f.Limit, MaxList) }

// subject is the filter of those in a stream whose subjects begin with prefix.
func (f Filter) subject(prefix string) string {
	return prefix + "." + cmp.Or(f.Kind, "*") + "." + cmp.Or(f.Shard, "*")
}

// DeadJobs lists the newest of the jobs that were given up, newest first. It reads all that have the kind and shard.
func (q *Queue) DeadJobs(ctx context.Context, f Filter) ([]DeadJob, error) {
	var last []DeadJob // the newest so far, as a ring
	n := 0
	err := q.walk(ctx, f, func(d DeadJob) error {
		if len(last) < f.limit() {
			last = append(last, d)
		} else {
			last[n%len(last)] = d
		}
		n++
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]DeadJob, len(last))
	for i := range out {
		out[i] = last[(n-1-i)%len(last)]
	}
	return out, nil
}

// Dead is one job that was given up, or ErrNoDead.
func (q *Queue) Dead(ctx context.Context, number uint64) (DeadJob, error) {
	stream, err := q.stream(ctx, streamDead)
	if err != nil {
		return DeadJob{}, err
	}
	return exhume(ctx, stream, number)
}

// Replay gives a dead job to the handlers once more. It is doubled rather than lost when this is cut off half-way.
func (q *Queue) Replay(ctx context.Context, number uint64) (DeadJob, error) {
	stream, err := q.stream(ctx, streamDead)
	if err != nil {
		return DeadJob{}, err
	}
	d, err := exhume(ctx, stream, number)
	if err != nil {
		return d, err
	}
	return d, q.replay(ctx, stream, d)
}

// ReplayAll replays every dead job that f chooses, whatever its limit, oldest first, and says how many. Those that die
// again meanwhile are not replayed again. What cannot be replayed, as it cannot be read, stays.
func (q *Queue) ReplayAll(ctx context.Context, f Filter) (int, error) {
	stream, err := q.stream(ctx, streamDead)
	if err != nil {
		return 0, err
	}
	n := 0
	err = q.walk(ctx, f, func(d DeadJob) error {
		err := q.replay(ctx, stream, d)
		if errors.Is(err, errUnreadable) {
			return nil
		}
		if err == nil {
			n++
		}
		return err
	})
	return n, err
}

func (q *Queue) replay(ctx context.Context, stream jetstream.Stream, d DeadJob) error {
	if d.IDs == nil {
		return fmt.Errorf("dead job %d: %w", d.Number, errUnreadable)
	}
	job := Job{Kind: d.Kind, Shard: d.Shard, IDs: make([][16]byte, len(d.IDs))}
	for i, id := range d.IDs {
		_, _ = hex.Decode(job.IDs[i][:], []byte(id)) // encoded by us
	}
	if err := q.Ring(ctx, job); err != nil {
		return fmt.Errorf("replay dead job %d: %w", d.Number, err)
	}
	if err := stream.DeleteMsg(ctx, d.Number); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("dead job %d: rung, but still listed as dead: %w", d.Number, err)
	}
	return nil
}

const together = 250 // dead jobs read at once, 16 kB each at most

// walk shows fn the dead jobs that f chooses, oldest first, up to the newest of now.
func (q *Queue) walk(ctx context.Context, f Filter, fn func(DeadJob) error) error {
	if err := f.Check(); err != nil {
		return err
	}
	stream, err := q.stream(ctx, streamDead)
	if err != nil {
		return err
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, FilterSubject: f.subject("dead"),
		InactiveThreshold: 30 * time.Second, MemoryStorage: true, Replicas: 1})
	if err != nil {
		return fmt.Errorf("dead jobs: %w", q.why(err))
	}
	defer func() { // the server forgets it by itself as well
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
		defer cancel()
		_ = stream.DeleteConsumer(end, consumer.CachedInfo().Name)
	}()
	for left := int(consumer.CachedInfo().NumPending); left > 0; {
		batch, err := consumer.Fetch(min(left, together), jetstream.FetchContext(ctx))
		if err != nil {
			return fmt.Errorf("dead jobs: %w", q.why(err))
		}
		got := 0
		for msg := range batch.Messages() {
			got++
			if d := fromMsg(msg); strings.Contains(d.Reason, f.Reason) {
				if err := fn(d); err != nil {
					return err
				}
			}
		}
		if err := batch.Error(); err != nil || got == 0 {
			return fmt.Errorf("dead jobs: %w", q.why(errors.Join(err, ctx.Err())))
		}
		left -= got
	}
	return nil
}

func exhume(ctx context.Context, stream jetstream.Stream, number uint64) (DeadJob, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	msg, err := stream.GetMsg(ctx, number)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadJob{}, ErrNoDead
	}
	if err != nil {
		return DeadJob{}, fmt.Errorf("read dead job %d: %w", number, err)
	}
	return deadJob(msg.Sequence, msg.Time, msg.Subject, msg.Header.Get, msg.Data), nil
}

func fromMsg(msg jetstream.Msg) DeadJob {
	meta, err := msg.Metadata()
	if err != nil {
		return DeadJob{}
	}
	return deadJob(meta.Sequence.Stream, meta.Timestamp, msg.Subject(), msg.Headers().Get, msg.Data())
}

func deadJob(number uint64, died time.Time, subject string, header func(string) string, data []byte) DeadJob {
	d := DeadJob{Number: number, Died: died.UTC(), Reason: header(headerReason)}
	d.Kind, d.Shard = laneOf(subject)
	d.Tries, _ = strconv.Atoi(header(headerTries)) // written by us
	d.Rung, _ = time.Parse(time.RFC3339Nano, header(headerRung))
	if ids, err := decodeIDs(data); err == nil {
		d.IDs, d.Items = inHex(ids), len(ids)
	}
	return d
}

func inHex(ids [][16]byte) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = hex.EncodeToString(id[:])
	}
	return out
}

// stream finds one of the streams, within 2 s.
func (q *Queue) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if !q.nc.IsConnected() {
		return nil, q.away()
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	stream, err := q.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, q.why(err))
	}
	return stream, nil
}
