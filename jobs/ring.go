package jobs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Ring puts at most MaxRing jobs into the queue and returns when the server has them, or after 2 s. A bell takes the
// place of one that waits for the same kind and shard. An error says how many jobs it did not confirm: some of those
// may be in all the same. ErrFull means that there is no room.
func (q *Queue) Ring(ctx context.Context, jobs ...Job) error {
	if len(jobs) > MaxRing {
		return fmt.Errorf("ring %d jobs: %d at most, ring in parts", len(jobs), MaxRing)
	}
	for _, j := range jobs {
		if err := j.check(); err != nil {
			return fmt.Errorf("ring: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	select {
	case q.rings <- struct{}{}:
		defer func() { <-q.rings }()
	case <-ctx.Done():
		return fmt.Errorf("ring %d jobs: %w", len(jobs), q.why(ctx.Err()))
	}
	for at := 0; at < len(jobs); {
		part := jobs[at:min(at+window, len(jobs))]
		taken, err := q.put(ctx, part)
		at += taken
		q.metrics.rung(taken, err)
		if err != nil {
			return fmt.Errorf("ring: %d of %d jobs not taken: %w", len(jobs)-at, len(jobs), err)
		}
	}
	return nil
}

// put sends jobs all at once and waits for every answer; it says how many were taken and why one was not.
func (q *Queue) put(ctx context.Context, jobs []Job) (taken int, err error) {
	if !q.nc.IsConnected() {
		return 0, q.away()
	}
	if err := q.cfg.Server.room(); err != nil {
		return 0, err
	}
	acks := make([]jetstream.PubAckFuture, 0, len(jobs))
	for _, j := range jobs {
		ack, e := q.js.PublishMsgAsync(&nats.Msg{Subject: j.subject(), Data: j.encode()})
		if e != nil {
			err = q.why(e)
			break
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
			taken++
		case e := <-ack.Err():
			err = q.why(e)
		case <-ctx.Done():
			return taken, q.why(ctx.Err())
		}
	}
	return taken, err
}

// goOn puts a job into the queue that has been there before, to be done after a while.
func (q *Queue) goOn(ctx context.Context, d delivery, ids [][16]byte, tries int, after time.Duration) error {
	if !q.nc.IsConnected() {
		return q.away()
	}
	if err := q.cfg.Server.room(); err != nil {
		return err
	}
	j := Job{Kind: d.Kind, Shard: d.Shard, IDs: ids}
	msg := nats.NewMsg(j.subject())
	msg.Data = j.encode()
	msg.Header.Set(headerTries, strconv.Itoa(tries))
	msg.Header.Set(headerRung, d.rung.Format(time.RFC3339Nano))
	if after > 0 {
		msg.Header.Set(headerNotBefore, time.Now().Add(after).UTC().Format(time.RFC3339Nano))
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	_, err := q.js.PublishMsg(ctx, msg)
	return q.why(err)
}

// PublishEvents appends an entry to the event stream, where a shard's entries stay in the order of the calls, one
// after another. A repeat with the same dedupeID (1 to 64 bytes) within 2 minutes is dropped. It answers within 2 s;
// after an error the entry may be in the stream all the same.
func (q *Queue) PublishEvents(ctx context.Context, shard string, payload []byte, dedupeID string) error {
	switch {
	case !token.MatchString(shard):
		return fmt.Errorf("publish events: shard %q: %w", shard, errToken)
	case len(payload) > MaxPayload:
		return fmt.Errorf("publish events: %d bytes in one entry: %d at most, make several", len(payload), MaxPayload)
	case dedupeID == "" || len(dedupeID) > 64:
		return errors.New("publish events: the dedupe id must be 1 to 64 bytes")
	case !q.nc.IsConnected():
		return fmt.Errorf("publish events: %w", q.away())
	}
	if err := q.cfg.Server.room(); err != nil {
		return fmt.Errorf("publish events: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	// In hex, because the id may be any bytes and travels in a header line.
	_, err := q.js.Publish(ctx, "events."+shard, payload, jetstream.WithMsgID(shard+"."+hex.EncodeToString([]byte(dedupeID))))
	if err != nil {
		return fmt.Errorf("publish events: %w", q.why(err))
	}
	return nil
}

const codeStoreFailed = 10077 // JSStreamStoreFailedF: a limit of a stream that refuses what is new

// why gives the client's errors our meaning.
func (q *Queue) why(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == codeStoreFailed:
		return fmt.Errorf("%w (%s)", ErrFull, api.Description)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		q.lookNow()
		return fmt.Errorf("the stream is not there and is being made again: %w", err)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected):
		return q.away()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		if full := q.cfg.Server.room(); full != nil {
			return full
		}
		return fmt.Errorf("no answer from the queue in time: %w", err)
	}
	return err
}
