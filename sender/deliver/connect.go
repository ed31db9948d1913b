package deliver

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// open connects and says hello, with TLS if the host offers it, or as the policy asks. If TLS fails and no policy is
// against it, the same host is asked again in the clear (RFC 7435: opportunistic), and for an hour not asked for TLS again.
func (c *Client) open(ctx context.Context, t target, until time.Time) (*session, result) {
	look, cancel := context.WithDeadline(ctx, until)
	p, bad := c.policy(look, t)
	cancel()
	if bad.is() {
		return nil, bad
	}
	secure := p.level > mayTLS || !c.clear.has(t.host)
	s, r := c.connect(ctx, t, until, &p, secure)
	if r.tlsFailed && p.level == mayTLS && ctx.Err() == nil && time.Now().Before(until) { // not cut off by us
		c.cfg.Log.Debug("TLS failed, going on in the clear", zap.String("host", t.host), zap.String("reason", r.Reply.Text))
		c.clear.add(t.host)
		s, r = c.connect(ctx, t, until, &p, false)
	}
	if s == nil {
		c.cfg.Log.Debug("connection failed", zap.String("host", t.host), zap.String("stage", r.Reply.Stage),
			zap.Int("code", r.Reply.Code), zap.String("reason", r.Reply.Text))
		c.metrics.failed.Inc()
		return nil, r
	}
	c.metrics.fresh.Inc()
	return s, result{}
}

func (c *Client) connect(ctx context.Context, t target, until time.Time, p *policy, secure bool) (*session, result) {
	quit(c.pool.grow())
	d := c.dialer
	d.Deadline = until
	if t.from != nil {
		d.LocalAddr = t.from.local
	}
	conn, err := d.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		c.pool.shrink()
		r := problem("connect", "4.4.1", "cannot connect to "+t.addr+": "+reason(err))
		r.Reply.Host, r.early, r.broken = t.host, true, true
		return nil, r
	}
	s := newSession(conn, t.host, &c.cfg)
	s.from, s.log = t.from, t.log
	s.begin(ctx, until)
	r := s.greet(c.tls, p, secure)
	if (s.tls || s.fault != tlsGood) && !p.wrong {
		c.reports.count(p, t.host, s.fault)
	}
	if r.is() {
		s.end()
		c.pool.drop(s)
		return nil, r
	}
	s.asked = t.asks != nil && t.asks.signed && (s.matched || p.level != mustMatch)
	return s, result{}
}
