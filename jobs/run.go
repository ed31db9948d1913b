package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
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
		return nil, w.q.away()
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	consumer, err := w.q.js.CreateOrUpdateConsumer(ctx, streamJobs, jetstream.ConsumerConfig{
		Durable: w.kind, FilterSubject: "jobs." + w.kind + ".>", AckPolicy: jetstream.AckExplicitPolicy,
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

// delivery is a job as it was given out.
type delivery struct {
	Job
	msg     jetstream.Msg
	try     int // the number of this try, from 1
	rung    time.Time
	seq     uint64
	stored  time.Time
	wound   bool // this delivery is no try: it winds the timer of a job that is to wait
	waitFor time.Duration
}

// read reads a delivery as far as it can be read.
func (w *worker) read(msg jetstream.Msg, meta *jetstream.MsgMetadata) (delivery, error) {
	kind, shard := laneOf(msg.Subject())
	d := delivery{Job: Job{Kind: kind, Shard: shard}, msg: msg, try: int(meta.NumDelivered), rung: meta.Timestamp.UTC(),
		seq: meta.Sequence.Stream, stored: meta.Timestamp}
	if tries, err := strconv.Atoi(msg.Headers().Get(headerTries)); err == nil {
		d.try += max(tries, 0)
	}
	if rung, err := time.Parse(time.RFC3339Nano, msg.Headers().Get(headerRung)); err == nil {
		d.rung = rung
	}
	if at, err := time.Parse(time.RFC3339Nano, msg.Headers().Get(headerNotBefore)); err == nil {
		d.try--
		d.wound, d.waitFor = meta.NumDelivered == 1, min(max(time.Until(at), 0), maxDelay)
	}
	var err error
	d.IDs, err = decodeIDs(msg.Data())
	return d, err
}

// one does one job and answers for it.
func (w *worker) one(ctx context.Context, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil { // not from a stream, so there is nobody to answer
		return
	}
	d, err := w.read(msg, meta)
	switch {
	case err != nil:
		w.bury(d, "cannot be read: "+err.Error())
	case d.wound:
		w.told(msg.NakWithDelay(d.waitFor))
	case d.try > w.q.cfg.MaxDeliver:
		w.bury(d, fmt.Sprintf("given out %d times and never answered for: its handler hangs or ends the process", w.q.cfg.MaxDeliver))
	default:
		w.do(ctx, d)
	}
}

func (w *worker) do(ctx context.Context, d delivery) {
	res, late := w.try(ctx, d)
	for !late && res.verdict == snooze && ctx.Err() == nil {
		switch {
		case w.giveBack(ctx, d, res.after):
			res = Done()
		case ctx.Err() == nil: // no room to put it down, so it stays here
			res, late = w.try(ctx, d)
		}
	}
	if late && res.verdict != done {
		w.q.log.Warn("job handler outlived its time and lost the job to another", zap.String("kind", w.kind), zap.String("shard", d.Shard))
		return
	}
	if parts := res.split(d.IDs); len(parts) > 1 {
		res = w.apart(ctx, d, parts)
	}
	switch {
	case res.verdict == done:
		w.told(d.msg.Ack())
	case res.verdict == dead:
		w.bury(d, res.reason)
	case ctx.Err() != nil: // cut short by us: no failure of the job's
		w.told(d.msg.Nak())
	case d.try >= w.q.cfg.MaxDeliver:
		w.bury(d, w.spent(d, res))
	default:
		w.told(d.msg.NakWithDelay(min(max(res.after, 0), maxDelay)))
	}
}

// try runs the handler, and says whether the job may be with another by now. A panic is a retry, sooner at first:
// 100 ms, 400 ms, 1.6 s, at most a minute.
func (w *worker) try(ctx context.Context, d delivery) (res Result, late bool) {
	defer w.keepAlive(ctx, d, w.Timeout)()
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	begun := time.Now()
	defer func() {
		if p := recover(); p != nil {
			what := describe(p)
			res = Result{verdict: retry, reason: what, after: min(100*time.Millisecond<<(2*min(d.try-1, 10)), time.Minute)}
			w.q.metrics.panics.WithLabelValues(w.kind).Inc()
			w.q.log.Error("job handler panicked", zap.String("kind", w.kind), zap.String("shard", d.Shard), zap.Int("try", d.try),
				zap.String("reason", what), zap.ByteString("stack", debug.Stack()))
			w.q.log.Debug("panic value", zap.Any("value", p))
		}
		late = time.Since(begun) > w.Timeout+w.q.cfg.AckWait*2/3
		w.q.metrics.ended(w.kind, res, time.Since(begun))
		if parts := res.split(d.IDs); len(parts) == 1 {
			res = parts[0].Result
		}
	}()
	return w.Do(ctx, d.Job), false
}

// describe names a panic. Only the runtime's own words are told: another value may hold an address.
func describe(p any) string {
	if e, ok := p.(runtime.Error); ok {
		return "panic: " + e.Error()
	}
	return fmt.Sprintf("panic with a %T", p)
}

// keepAlive tells the server that the job is being done, for as long as it may take and until the function it returns is
// called. The last word holds for AckWait, so that a handler that ends with its time can still answer, and the job of one
// that hangs goes elsewhere.
func (w *worker) keepAlive(ctx context.Context, d delivery, most time.Duration) func() {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), most)
	go func() {
		tick := time.NewTicker(w.q.cfg.AckWait / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.told(d.msg.InProgress())
			}
		}
	}()
	return stop
}

// giveBack waits and then rings anew, after which the job at hand is done with.
func (w *worker) giveBack(ctx context.Context, d delivery, after time.Duration) bool {
	defer w.keepAlive(ctx, d, maxSnooze+deadline)()
	wait(ctx, min(max(after, 0), maxSnooze))
	return ctx.Err() == nil && w.q.goOn(ctx, d, d.IDs, d.try-1, 0) == nil
}

// told notes an answer that did not go out. The job then runs again, here or elsewhere.
func (w *worker) told(err error) {
	if err != nil {
		w.q.log.Debug("job not answered for", zap.String("kind", w.kind), zap.Error(err))
	}
}
