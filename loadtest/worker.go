package loadtest

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"
)

// worker sends over one connection at a time and makes a new one when it broke.
type worker struct {
	*run
	number  int
	conn    conn
	results results
	backoff time.Duration
}

func (w *worker) work(ctx context.Context, pacer *Pacer) {
	defer w.hangUp()
	for {
		seq, due, ok := pacer.Next(ctx)
		if !ok || seq >= maxSerials/w.Recipients {
			return
		}
		s := submission{seq: seq, first: seq * w.Recipients, due: due}
		if w.SendAt != nil {
			s.at = w.SendAt(seq)
		}
		w.submit(ctx, s)
	}
}

// submit sends one submission, once: a failure is counted, not tried again.
func (w *worker) submit(ctx context.Context, s submission) {
	if w.conn == nil {
		if err := w.redial(ctx); err != nil {
			w.fail(ctx, "connect", err)
			return
		}
	}
	a, err := w.conn.send(s, time.Now().Add(w.Timeout))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.fail(ctx, "timeout", err)
	case err != nil:
		w.fail(ctx, "connection", err)
	default:
		w.record(s, a)
	}
	if err != nil || a.last {
		w.hangUp()
	}
}

func (w *worker) record(s submission, a answer) {
	for _, i := range a.taken {
		w.accepted.add(s.first + i)
	}
	if len(a.taken) > 0 {
		w.results.accept(time.Since(s.due))
		if w.seen != nil {
			w.seen(s, a.text)
		}
	}
	if n := w.Recipients - len(a.taken); n > 0 {
		w.failed.Add(int64(n))
		w.results.fail(strconv.Itoa(a.code), n, string(a.text))
	}
}

func (w *worker) fail(ctx context.Context, status string, err error) {
	if ctx.Err() != nil {
		status = "interrupted"
	}
	w.failed.Add(int64(w.Recipients))
	w.results.fail(status, w.Recipients, err.Error())
}

func (w *worker) dial(ctx context.Context) error {
	dctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	c, err := w.target.dial(dctx, w.number)
	if err != nil {
		return err
	}
	// The end of the run ends whatever the connection waits for.
	stop := context.AfterFunc(ctx, c.interrupt)
	w.conn = watched{c, stop}
	return nil
}

// redial waits longer after each failure, so that a system that is down is not hammered.
func (w *worker) redial(ctx context.Context) error {
	if w.backoff > 0 && !pause(ctx, w.backoff) {
		return ctx.Err()
	}
	if err := w.dial(ctx); err != nil {
		w.backoff = min(max(2*w.backoff, 50*time.Millisecond), 2*time.Second)
		return err
	}
	w.backoff = 0
	return nil
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.close()
		w.conn = nil
	}
}
