package deliver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

// Limits of the memory of MTA-STS policies.
const (
	stsWait    = 5 * time.Second  // how long a message waits for the policy of a domain that is new to us
	stsTime    = 60 * time.Second // a whole look-up: RFC 8461 §3.3
	stsFetches = 64               // at a time
	stsKept    = 10_000           // policies
	stsAbsent  = 50_000           // domains without one
	stsNone    = 10 * time.Minute // a domain without a policy is asked again after
	stsRetry   = 5 * time.Minute  // one whose policy could not be had, or whose record may have changed
	stsRenew   = 24 * time.Hour   // a policy is fetched again after, or when half its life is over
	stsSweep   = time.Minute
	stsBatch   = 100 // policies renewed by one sweep
)

// stsPolicies remembers the MTA-STS policies of domains (RFC 8461). A policy holds until it expires, whatever became of
// its DNS record and its host since; a domain whose first policy cannot be had has none (§5.1).
type stsPolicies struct {
	dns     *resolver
	fetch   func(ctx context.Context, domain string) (*stsPolicy, tlsFault, error)
	reports *tlsReports
	log     *zap.Logger
	slots   *semaphore.Weighted
	wait    time.Duration // stsWait
	flight  singleflight.Group

	mu    sync.Mutex
	known map[string]*stsEntry
	none  map[string]time.Time // domains without a policy, and when to ask again
}

// stsEntry is a policy, which is never changed, and when to see whether there is a new one.
type stsEntry struct {
	*stsPolicy
	look time.Time
}

func newSTSPolicies(r *resolver, fetch *stsFetcher, reports *tlsReports, log *zap.Logger) *stsPolicies {
	return &stsPolicies{dns: r, fetch: fetch.fetch, reports: reports, log: log, slots: semaphore.NewWeighted(stsFetches), wait: stsWait,
		known: map[string]*stsEntry{}, none: map[string]time.Time{}}
}

// policy is the policy that holds for a domain now, or nil. It waits for that of a new domain, at most stsWait.
func (m *stsPolicies) policy(ctx context.Context, domain string) *stsPolicy {
	now := time.Now()
	m.mu.Lock()
	e, until := m.known[domain], m.none[domain]
	known := e != nil && now.Before(e.expires)
	renew := known && now.After(e.look)
	if renew {
		e.look = now.Add(stsRetry)
	}
	m.mu.Unlock()
	switch {
	case known && !renew:
		return e.applied()
	case !known && now.Before(until):
		return nil
	}
	learned := m.flight.DoChan(domain, func() (any, error) { return m.learn(domain), nil })
	if known {
		return e.applied()
	}
	late := time.NewTimer(m.wait)
	defer late.Stop()
	select {
	case r := <-learned:
		return r.Val.(*stsPolicy).applied()
	case <-late.C:
	case <-ctx.Done():
	}
	return nil
}

// learn asks for a domain's policy and remembers what came of it. It returns the policy that holds now.
func (m *stsPolicies) learn(domain string) *stsPolicy {
	ctx, cancel := context.WithTimeout(context.Background(), stsTime) // it has more than one asker
	defer cancel()
	now := time.Now()
	m.mu.Lock()
	e := m.known[domain]
	m.mu.Unlock()
	if e != nil && !now.Before(e.expires) {
		e = nil
	}
	id, err := m.id(ctx, domain)
	switch {
	case err != nil || id == "" && e != nil:
		return m.keep(domain, e, stsRetry)
	case id == "":
		return m.keep(domain, nil, stsNone)
	case e != nil && e.id == id && now.Before(e.renew):
		return m.keep(domain, e, stsRetry)
	}
	if m.slots.Acquire(ctx, 1) != nil {
		return m.keep(domain, e, stsRetry)
	}
	defer m.slots.Release(1)
	p, fault, err := m.fetch(ctx, domain)
	if err != nil {
		m.log.Debug("MTA-STS policy cannot be had", zap.String("domain", domain), zap.Error(err))
		m.reports.count(&policy{kind: policySTS, domain: domain}, "", fault)
		return m.keep(domain, e, stsRetry)
	}
	p.id = id
	return m.keep(domain, &stsEntry{stsPolicy: p}, stsRetry)
}

// keep remembers a policy, or with nil that there is none, and when to ask again.
func (m *stsPolicies) keep(domain string, e *stsEntry, after time.Duration) *stsPolicy {
	m.mu.Lock()
	defer m.mu.Unlock()
	look := time.Now().Add(after)
	if e == nil {
		makeRoom(m.none, stsAbsent, domain, func(t time.Time) bool { return time.Now().After(t) })
		m.none[domain] = look
		return nil
	}
	e.look = look
	delete(m.none, domain)
	makeRoom(m.known, stsKept, domain, func(e *stsEntry) bool { return time.Now().After(e.expires) })
	m.known[domain] = e
	return e.stsPolicy
}

// makeRoom takes an entry out of a full map, one that is over if it is found soon.
func makeRoom[V any](m map[string]V, most int, key string, over func(V) bool) {
	if _, old := m[key]; old || len(m) < most {
		return
	}
	var victim string
	looked := 0
	for k, v := range m { // the order is random
		victim = k
		if looked++; looked == 8 || over(v) {
			break
		}
	}
	delete(m, victim)
}

// id is the id in a domain's _mta-sts record, or empty if it has none (RFC 8461 §3.1).
func (m *stsPolicies) id(ctx context.Context, domain string) (string, error) {
	a := m.dns.resolve(ctx, "_mta-sts."+domain, dns.TypeTXT) // its answer is kept here, not there
	if a.finding == noAnswer {
		return "", errors.New(a.why)
	}
	return stsID(a.texts), nil
}

// run renews policies in time, also those that no mail asks for now, until ctx ends.
func (m *stsPolicies) run(ctx context.Context) {
	tick := time.NewTicker(stsSweep)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, domain := range m.due(now) {
				m.flight.DoChan(domain, func() (any, error) { return m.learn(domain), nil })
			}
		case <-ctx.Done():
			return
		}
	}
}

// due are the domains whose policies are to be fetched again. What has expired is forgotten.
func (m *stsPolicies) due(now time.Time) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for domain, until := range m.none {
		if now.After(until) {
			delete(m.none, domain)
		}
	}
	for domain, e := range m.known {
		switch {
		case now.After(e.expires):
			delete(m.known, domain)
		case now.After(e.renew) && now.After(e.look) && len(list) < stsBatch:
			e.look = now.Add(stsRetry)
			list = append(list, domain)
		}
	}
	return list
}

// stsPolicy is what a domain says about its mail hosts. It is never changed once it is kept.
type stsPolicy struct {
	id      string
	mode    string // enforce, testing or none
	enforce bool
	hosts   []string // names, or *.name for any one label before it; lower case
	age     string   // max_age as published
	renew   time.Time
	expires time.Time
}

// applied is the policy, or nil if its domain has taken it back (mode none).
func (p *stsPolicy) applied() *stsPolicy {
	if p == nil || p.mode == "none" {
		return nil
	}
	return p
}

// match says that a host is one of those that the policy names (RFC 8461 §4.1).
func (p *stsPolicy) match(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	for _, h := range p.hosts {
		if h == host || parent != "" && h == "*."+parent {
			return true
		}
	}
	return false
}

// lines are what the policy says, as it is quoted in reports.
func (p *stsPolicy) lines() []string {
	out := []string{"version: STSv1", "mode: " + p.mode, "max_age: " + p.age}
	for _, h := range p.hosts {
		out = append(out, "mx: "+h)
	}
	return out
}
