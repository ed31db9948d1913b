package domains

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

const (
	dueAtOnce = 20               // domains taken of a shard
	dueRounds = 50               // times in a row
	dueLease  = 10 * time.Minute // more than checking them can take
	dueChecks = 8                // of them at once
)

// Check looks a domain's records up now, for at most 12 s, stores what it found and tells. A check of the last three
// seconds is not repeated.
func (d *Domains) Check(ctx context.Context, account int64, domain string) (Domain, error) {
	name, err := d.Name(domain)
	if err != nil {
		return Domain{}, err
	}
	s, err := d.cfg.Store.Domain(ctx, account, name)
	if err != nil || s.Vouched || d.now().Sub(s.Checked) < fresh {
		return d.show(&s), tell(err)
	}
	wait, cancel := context.WithTimeout(ctx, fresh)
	defer cancel()
	if err := d.checks.Acquire(wait, 1); err != nil {
		return Domain{}, sender.Unavailable(err)
	}
	defer d.checks.Release(1)
	return d.check(ctx, &s)
}

func (d *Domains) check(ctx context.Context, s *store.Domain) (Domain, error) {
	limit, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	results := d.look(limit, d.records(s))
	if ctx.Err() != nil { // what was cut short says nothing
		return Domain{}, sender.Unavailable(ctx.Err())
	}
	var found verdict
	var lost bool
	out, err := d.change(ctx, s.Account, s.Name, func(s *store.Domain) error {
		before := s.Verified
		found = judge(s, results, d.now())
		lost = !before.IsZero() && s.Verified.IsZero()
		s.Results = encodeResults(results)
		return nil
	})
	if err != nil {
		return out, err
	}
	d.done.WithLabelValues(string(found)).Inc()
	if lost {
		d.done.WithLabelValues("lost").Inc()
		d.cfg.Log.Warn("a sending domain is verified no more", zap.Int64("account", s.Account), zap.String("domain", s.Name))
	}
	return out, nil
}

// Run checks the domains whose time has come, those of one shard after those of another, until ctx ends. Any number of
// processes may do so: each domain is taken by one.
func (d *Domains) Run(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, sh := range d.cfg.Shards.Map().Shards() {
			if ctx.Err() == nil && !sh.Fenced && sh.Server.Up() {
				d.checkDue(ctx, sh.Name)
			}
		}
	}
}

func (d *Domains) checkDue(ctx context.Context, shard string) {
	for range dueRounds {
		due, err := d.cfg.Store.DueDomains(ctx, shard, dueAtOnce, dueLease)
		if err != nil {
			d.cfg.Log.Debug("due domains cannot be read", zap.String("shard", shard), zap.Error(err))
			return
		}
		var all errgroup.Group
		all.SetLimit(dueChecks)
		for _, ref := range due {
			all.Go(func() error {
				s, err := d.cfg.Store.Domain(ctx, ref.Account, ref.Name)
				if err == nil {
					_, err = d.check(ctx, &s)
				}
				if err != nil {
					d.cfg.Log.Debug("a domain could not be checked", zap.String("shard", shard), zap.Error(err))
				}
				return nil
			})
		}
		_ = all.Wait()
		if len(due) < dueAtOnce || ctx.Err() != nil {
			return
		}
	}
}

// MarshalJSON is what operators' scripts read.
func (d Domain) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Domain      string     `json:"domain"`
		Account     int64      `json:"account"`
		Verified    bool       `json:"verified"`
		VerifiedAt  *time.Time `json:"verified_at"`
		CheckedAt   *time.Time `json:"checked_at"`
		Created     time.Time  `json:"created_at"`
		Rotating    bool       `json:"rotating"`
		Ed25519Only bool       `json:"ed25519_only"`
		Records     []Result   `json:"records"`
	}{d.Name, d.Account, !d.Verified.IsZero(), orNil(d.Verified), orNil(d.Checked), d.Created, d.Rotating, d.Ed25519Only, d.Records})
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
