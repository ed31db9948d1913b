package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lane is a look at the jobs of one kind.
type Lane struct {
	Kind     string
	Pending  int           // jobs that nobody has taken yet
	InFlight int           // jobs being done, or waiting for their retry
	Dead     int           // jobs given up and still kept
	Oldest   time.Duration // age of the oldest job that is not done; 0 when there is none
}

// Stats is a look at the queue: its lanes, in the order of their kinds, and what they are together.
type Stats struct {
	Lanes    []Lane
	Pending  int
	InFlight int
	Dead     int
	Oldest   time.Duration
}

// listed is how many subjects a stream may have for them to be counted one by one.
const listed = 10_000

// Stats asks the server, for 2 s at most. A kind that no process has ever handled has a lane only while the queue holds
// no more than 10,000 different jobs; the sums count it always.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	st, err := q.stats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("queue statistics: %w", err)
	}
	return st, nil
}

func (q *Queue) stats(ctx context.Context) (Stats, error) {
	waiting, err := q.stream(ctx, streamJobs)
	if err != nil {
		return Stats{}, err
	}
	dead, err := q.stream(ctx, streamDead)
	if err != nil {
		return Stats{}, err
	}
	lanes := map[string]*Lane{}
	if err := handled(ctx, waiting, lanes); err != nil {
		return Stats{}, err
	}
	known := maps.Clone(lanes)
	err = perKind(ctx, waiting, lanes, func(l *Lane, n int) {
		if known[l.Kind] == nil {
			l.Pending += n
		}
	})
	if err != nil {
		return Stats{}, err
	}
	if err := perKind(ctx, dead, lanes, func(l *Lane, n int) { l.Dead += n }); err != nil {
		return Stats{}, err
	}
	st := Stats{Dead: int(dead.CachedInfo().State.Msgs)}
	for _, l := range lanes {
		if l.Oldest, err = oldest(ctx, waiting, l.Kind); err != nil {
			return Stats{}, err
		}
		st.Lanes = append(st.Lanes, *l)
		st.InFlight += l.InFlight
	}
	slices.SortFunc(st.Lanes, func(a, b Lane) int { return cmp.Compare(a.Kind, b.Kind) })
	state := waiting.CachedInfo().State
	st.Pending = max(int(state.Msgs)-st.InFlight, 0)
	if state.Msgs > 0 {
		st.Oldest = max(time.Since(state.FirstTime), 0)
	}
	return st, nil
}

// handled counts the jobs of the kinds that have a consumer.
func handled(ctx context.Context, stream jetstream.Stream, lanes map[string]*Lane) error {
	consumers := stream.ListConsumers(ctx)
	for c := range consumers.Info() {
		l := lane(lanes, c.Name)
		l.Pending, l.InFlight = l.Pending+int(c.NumPending), l.InFlight+c.NumAckPending
	}
	return consumers.Err()
}

// perKind counts the entries of a stream by their subjects.
func perKind(ctx context.Context, stream jetstream.Stream, lanes map[string]*Lane, add func(*Lane, int)) error {
	if stream.CachedInfo().State.NumSubjects > listed {
		return nil
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return err
	}
	for subject, n := range info.State.Subjects {
		kind, _ := laneOf(subject)
		add(lane(lanes, kind), int(n))
	}
	return nil
}

func lane(lanes map[string]*Lane, kind string) *Lane {
	if lanes[kind] == nil {
		lanes[kind] = &Lane{Kind: kind}
	}
	return lanes[kind]
}

func oldest(ctx context.Context, stream jetstream.Stream, kind string) (time.Duration, error) {
	msg, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject("jobs."+kind+".>"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return max(time.Since(rungAt(msg)), 0), nil
}

// rungAt is when a job first entered the queue.
func rungAt(msg *jetstream.RawStreamMsg) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(headerRung)); err == nil {
		return at
	}
	return msg.Time.UTC()
}
