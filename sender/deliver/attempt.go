package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/postrider/postrider/sender"
)

// Result is an outcome with what else is known about the attempt.
type Result struct {
	sender.Outcome
	// Class is what the host's reply was about: delivered, soft, busy, recipient, content, policy, config, or empty if no
	// host answered. With policy the address we send from is blocked or too fast, which says nothing about the recipient.
	Class string
	// NotBefore is when a next attempt makes sense at the earliest; zero for any time.
	NotBefore time.Time
	// Source is the address that it was sent from, if sources are configured.
	Source string
	// Transcript is the dialogue, without content, of at most about 4 KiB; of delivered mail only if it was asked for.
	Transcript string
}

// Deliver makes one attempt. When ctx ends, its connection is closed at once and the outcome is deferred; Unknown
// then says that the message may have arrived. Whatever the remote side does, it is back within Timeouts.Total and
// the 20 s that a DNS look-up may take.
func (c *Client) Deliver(ctx context.Context, e Envelope) sender.Outcome {
	return c.Try(ctx, e).Outcome
}

// Try makes one attempt as Deliver does, and tells more of it.
func (c *Client) Try(ctx context.Context, e Envelope) Result {
	start := time.Now()
	log := c.transcripts.Get().(*transcript)
	log.reset()
	defer c.transcripts.Put(log)
	r := c.deliver(ctx, &e, log, start.Add(c.cfg.Timeouts.Total))
	out := Result{Outcome: r.Outcome, Class: r.class.String(), NotBefore: r.notBefore}
	out.Took = time.Since(start)
	if r.from != nil {
		out.Source = r.from.Address.String()
	}
	if e.Transcript || r.Verdict != sender.OutcomeDelivered {
		out.Transcript = log.String()
	}
	c.metrics.attempt(&out.Outcome)
	return out
}

func (c *Client) deliver(ctx context.Context, e *Envelope, log *transcript, until time.Time) result {
	if ctx.Err() != nil {
		return cancelled("connect")
	}
	domain, bad := c.prepare(e)
	if bad.is() {
		return bad
	}
	rt, bad := c.route(ctx, domain)
	if bad.is() {
		return bad
	}
	rt = c.demanded(ctx, rt, domain, e)
	from, bad := c.sources.pick(e.Pool, e.To, time.Now())
	if bad.is() {
		return bad
	}
	r := c.visit(ctx, rt, trip{e: e, domain: domain, from: from, log: log, until: until})
	from.settle(&r, time.Now(), r.Verdict == sender.OutcomeDelivered)
	return r
}

// trip is what goes with a message from host to host.
type trip struct {
	e      *Envelope
	domain string // the recipient's, in ASCII
	from   *origin
	log    *transcript
	until  time.Time
}

// visit makes the attempt at its site, when the site lets it in.
func (c *Client) visit(ctx context.Context, rt *route, t trip) (r result) {
	key := siteKey{rt.site, t.from, c.pool.rules.named(t.domain, rt.site)}
	st, v, err := c.pool.enter(ctx, key, t.domain, t.until)
	var later *laterError
	switch {
	case errors.As(err, &later):
		r = problem("connect", "4.4.1", later.text)
		r.notBefore = later.until
		return r
	case ctx.Err() != nil && err != nil:
		return cancelled("connect")
	case err != nil:
		return problem("connect", "4.4.5", "no connection came free in time: the site takes mail more slowly than it is sent")
	}
	defer func() {
		if r.Verdict != sender.OutcomeDelivered && r.Reply.Code != 0 && st.limits.pausesAfter(r.Reply.Text) {
			r.class = classPolicy
		}
		s := r.signal()
		if c.fixed != nil {
			s = s.ofRelay(r.Reply.Stage)
		}
		c.pool.leave(st, v, s, &r.Reply)
		if r.Verdict == sender.OutcomeDeferred && r.notBefore.IsZero() {
			r.notBefore = c.pool.notBefore(st)
		}
	}()
	if s := c.pool.take(st, &rt.demand); s != nil {
		s.log = t.log
		t.log.note("on an open connection to ", s.host)
		s.begin(ctx, t.until)
		r = c.send(s, st, t.e)
		if !r.early {
			c.metrics.reused.Inc()
			return r
		}
		c.metrics.stale.Inc() // closed while it waited: no fault of the message, so not an attempt
	}
	return c.sendFresh(ctx, rt, st, &v, t)
}

// sendFresh tries the hosts of a route in turn, until one takes the message or refuses it.
func (c *Client) sendFresh(ctx context.Context, rt *route, st *site, v *visit, t trip) result {
	w := c.walk(rt)
	w.from, w.log = t.from, t.log
	slowed := false
	for {
		switch {
		case ctx.Err() != nil:
			return cancelled("connect")
		case !time.Now().Before(t.until):
			return w.outOfTime()
		}
		to, ok := w.next(ctx)
		if !ok {
			return w.outcome()
		}
		t.log.note("to ", to.host)
		r := c.call(ctx, st, v, to, t)
		slowed = slowed || r.class == classBusy
		if r.from = to.from; !r.early {
			r.slowed = slowed
			return r
		}
		t.log.note("not at "+to.host+" ("+to.addr+"): ", r.Reply.Text)
		w.tried(r)
	}
}

// call tries one host.
func (c *Client) call(ctx context.Context, st *site, v *visit, to target, t trip) result {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	o := c.pool.connecting(cut)
	s, r := c.open(ctx, to, t.until)
	err := o.back(ctx, v, t.until)
	switch {
	case err == nil && s == nil:
		return r
	case err == nil:
		c.pool.answers(st)
		return c.send(s, st, t.e)
	case s != nil:
		s.end()
		c.pool.drop(s)
	}
	r = problem("connect", "4.4.1", "no answer so far, and too many other messages wait for hosts that do not answer")
	if !errors.Is(err, errGivenUp) {
		r = problem("connect", "4.4.5", "no connection came free in time: too many messages are on their way")
	}
	r.Reply.Host, r.broken = to.host, errors.Is(err, errGivenUp)
	return r
}

// send makes the transaction on a connection, and keeps the connection if it is still good.
func (c *Client) send(s *session, st *site, e *Envelope) result {
	r := s.transact(e)
	r.from, s.log = s.from, nil
	switch alive := s.end(); {
	case !alive || r.broken || s.br.Buffered() > 0: // bytes that nobody asked for: never take them for an answer
		c.pool.drop(s)
	case s.used >= st.limits.reuse:
		s.quit()
		c.pool.drop(s)
	default:
		c.pool.put(st, s)
	}
	return r
}
