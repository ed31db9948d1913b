package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	inFlight = 10_000           // jobs of a kind being done or waiting for a retry, in all processes
	pullFor  = 30 * time.Second // one request for a job
	beat     = 2 * time.Second  // two silent ones and the request is made anew
	lastLook = 500 * time.Millisecond
	patience = 5 // failures in a row that are nothing out of the ordinary
)

// Run does jobs of the kinds in handlers until ctx ends, and returns when those under way have ended and their answers
// are sent. Jobs of other kinds stay for other processes. A server that goes away is waited for; an error means a
// handler that cannot work.
func (q *Queue) Run(ctx context.Context, handlers map[string]Handler) error {
	workers, err := q.workers(handlers)
	if err != nil {
		return fmt.Errorf("run jobs: %w", err)
	}
	var running sync.WaitGroup
	for _, w := range workers {
		running.Go(func() { w.run(ctx) })
	}
	<-ctx.Done()
	running.Wait()
	q.flush()
	return nil
}

// workers makes one for each job that may run at once.
func (q *Queue) workers(handlers map[string]Handler) ([]*worker, error) {
	var all []*worker
	for kind, h := range handlers {
		h.Concurrency = cmp.Or(h.Concurrency, 1)
		h.Timeout = cmp.Or(h.Timeout, time.Minute)
		switch {
		case !token.MatchString(kind):
			return nil, fmt.Errorf("kind %q: %w", kind, errToken)
		case h.Do == nil:
			return nil, fmt.Errorf("kind %s has no Do", kind)
		case h.Concurrency < 1 || h.Concurrency > 256:
			return nil, fmt.Errorf("kind %s: concurrency %d must be 1 to 256", kind, h.Concurrency)
		case h.Timeout < 0:
			return nil, fmt.Errorf("kind %s: negative timeout", kind)
		}
		for range h.Concurrency {
			all = append(all, &worker{q: q, kind: kind, Handler: h})
		}
	}
	return all, nil
}

// worker does one job after the other.
type worker struct {
	Handler
	q    *Queue
	kind string
}

func (w *worker) run(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		jobs, err := w.open(ctx)
		if err == nil {
			attempt = 0
			err = w.each(ctx, jobs)
		}
		if ctx.Err() != nil {
			return
		}
		level := zap.DebugLevel
		if attempt == patience && w.q.nc.IsConnected() {
			level = zap.WarnLevel
		}
		w.q.log.Log(level, "no jobs from the queue, asking again", zap.String("kind", w.kind), zap.Error(err))
		wait(ctx, pause(attempt))
	}
}

// open asks for jobs one at a time: one that waited here behind another would run out of its time.
func (w *worker) open(ctx context.Context) (jetstream.MessagesContext, error) {
	if !w.q.nc.IsConnected() {
		return nil, errAway
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	consumer, err := w.q.js.CreateOrUpdateConsumer(ctx, streamJobs, jetstream.ConsumerConfig{
		Durable: w.kind, FilterSubject: "jobs." + w.kind + ".*", AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: w.q.cfg.AckWait, MaxAckPending: inFlight, MaxWaiting: 4096,
		MaxDeliver: -1, // counted by us: the server would keep the job for ever and tell nobody
	})
	if err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			w.q.lookNow()
		}
		return nil, err
	}
	return consumer.Messages(jetstream.PullMaxMessages(1), jetstream.PullExpiry(pullFor), jetstream.PullHeartbeat(beat))
}

// each does jobs until ctx ends or the connection breaks.
func (w *worker) each(ctx context.Context, jobs jetstream.MessagesContext) error {
	defer jobs.Stop()
	for ctx.Err() == nil {
		msg, err := jobs.Next(jetstream.NextContext(ctx))
		switch {
		case ctx.Err() != nil && err == nil:
			w.told(msg.Nak())
		case ctx.Err() != nil:
		case err != nil:
			return err
		default:
			w.one(ctx, msg)
		}
	}
	// What was already on its way here goes back, so that nobody waits for AckWait.
	jobs.Drain()
	for w.q.nc.IsConnected() {
		msg, err := jobs.Next(jetstream.NextMaxWait(lastLook))
		if err != nil {
			return err
		}
		w.told(msg.Nak())
	}
	return nil
}

// one does one job and answers for it.
func (w *worker) one(ctx context.Context, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil { // not from a stream, so there is nobody to answer
		return
	}
	try := int(meta.NumDelivered)
	job, err := w.read(msg)
	switch {
	case err != nil:
		w.bury(msg, meta, "cannot be read: "+err.Error())
		return
	case try > w.q.cfg.MaxDeliver:
		w.bury(msg, meta, fmt.Sprintf("given out %d times and never answered for: its handler hangs or ends the process", w.q.cfg.MaxDeliver))
		return
	}
	defer w.keepAlive(ctx, msg)()
	res := w.try(ctx, job, try)
	for res.verdict == snooze && ctx.Err() == nil {
		switch {
		case w.giveBack(ctx, job, res.after):
			res = Done()
		case ctx.Err() == nil: // no room to put it down, so it stays here
			res = w.try(ctx, job, try)
		}
	}
	switch {
	case res.verdict == done:
		w.told(msg.Ack())
	case res.verdict == dead:
		w.bury(msg, meta, res.reason)
	case ctx.Err() != nil: // cut short by us: no failure of the job's
		w.told(msg.Nak())
	case try >= w.q.cfg.MaxDeliver:
		w.bury(msg, meta, cmp.Or(res.reason, "asked for a retry")+fmt.Sprintf(" at try %d of %d", try, w.q.cfg.MaxDeliver))
	default:
		w.told(msg.NakWithDelay(min(max(res.after, 0), maxDelay)))
	}
}

func (w *worker) read(msg jetstream.Msg) (Job, error) {
	ids, err := decodeIDs(msg.Data())
	return Job{Kind: w.kind, Shard: shardOf(msg.Subject()), IDs: ids}, err
}

func shardOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// try runs the handler. A panic is a retry, sooner at first: 100 ms, 400 ms, 1.6 s, at most a minute.
func (w *worker) try(ctx context.Context, job Job, n int) (res Result) {
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	begun := time.Now()
	defer func() {
		if p := recover(); p != nil {
			what := describe(p)
			res = Result{verdict: retry, reason: what, after: min(100*time.Millisecond<<(2*min(n-1, 10)), time.Minute)}
			w.q.metrics.panics.WithLabelValues(w.kind).Inc()
			w.q.log.Error("job handler panicked", zap.String("kind", w.kind), zap.String("shard", job.Shard), zap.Int("try", n),
				zap.String("reason", what), zap.ByteString("stack", debug.Stack()))
			w.q.log.Debug("panic value", zap.Any("value", p))
		}
		w.q.metrics.ended(w.kind, res, time.Since(begun))
	}()
	return w.Do(ctx, job)
}

// describe names a panic. Only the runtime's own words are told: another value may hold an address.
func describe(p any) string {
	if e, ok := p.(runtime.Error); ok {
		return "panic: " + e.Error()
	}
	return fmt.Sprintf("panic with a %T", p)
}

// keepAlive tells the server that the job is being done, until the function it returns is called. It gives up when
// a handler has long outrun its time, so that the job can go elsewhere.
func (w *worker) keepAlive(ctx context.Context, msg jetstream.Msg) func() {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), w.Timeout+maxSnooze)
	go func() {
		tick := time.NewTicker(w.q.cfg.AckWait / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.told(msg.InProgress())
			}
		}
	}()
	return stop
}

// giveBack waits and then rings anew, after which the job at hand is done with.
func (w *worker) giveBack(ctx context.Context, job Job, after time.Duration) bool {
	wait(ctx, min(max(after, 0), maxSnooze))
	return ctx.Err() == nil && w.q.Ring(ctx, job) == nil
}

// told notes an answer that did not go out. The job then runs again, here or elsewhere.
func (w *worker) told(err error) {
	if err != nil {
		w.q.log.Debug("job not answered for", zap.String("kind", w.kind), zap.Error(err))
	}
}
