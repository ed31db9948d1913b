package deliver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/sender"
)

// laterError says that a site takes nobody until a time.
type laterError struct {
	until time.Time
	text  string
}

func (e *laterError) Error() string { return e.text }

// clock is a time as a reply tells it.
func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

// later is the answer to whoever comes while the site is shut. While somebody looks, it is worth coming back soon.
func (st *site) later(now time.Time) error {
	until := st.pace.shut
	if least := now.Add(shutLeast / 2); until.Before(least) {
		until = least
	}
	return &laterError{until, st.outline() + "; next look at " + clock(until)}
}

// outline is why a site rests, for a message that is not the one of which the site said so: its words may name another
// customer's recipient.
func (st *site) outline() string {
	last := &st.pace.last
	if last.Code == 0 {
		return st.domain + " is not answering"
	}
	return strings.TrimSpace(fmt.Sprintf("the mail hosts of %s answered %d %s to other mail", st.domain, last.Code, last.Enhanced))
}

// why says in words what the site said or did last.
func (st *site) why() string {
	last := &st.pace.last
	if last.Code == 0 {
		return st.domain + " is not answering (" + last.Text + ")"
	}
	words := st.domain + " answered " + string([]byte{byte('0' + last.Code/100), byte('0' + last.Code/10%10), byte('0' + last.Code%10)})
	for _, part := range []string{last.Enhanced, last.Text} {
		if part != "" {
			words += " " + part
		}
	}
	return words
}

// notBefore is when a site that is shut will be looked at; zero if it is open.
func (p *pool) notBefore(st *site) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return st.pace.shut
}

// SiteState is how mail to a site goes.
type SiteState struct {
	Domain  string // a recipients' domain of the site, the one that came last
	Hosts   string // the site's mail hosts, parted by commas
	Source  string // the address that we send from, if sources are configured
	Limit   int    // connections that may be in use at once
	Used    int    // those that are
	Idle    int    // connections that are open and wait for a message
	Waiting int    // messages that wait for a connection
	// Paused is until when nobody goes there, since the site does not answer or blocks us; zero if it is open.
	Paused time.Time
	Last   sender.Reply // what the site said or did last other than taking mail
	LastAt time.Time
}

// String says it in a sentence.
func (s SiteState) String() string {
	st := site{domain: s.Domain, pace: pace{last: s.Last}}
	switch {
	case !s.Paused.IsZero():
		return st.why() + "; next look at " + clock(s.Paused)
	case !s.LastAt.IsZero():
		return s.Domain + " takes mail; at " + clock(s.LastAt) + " " + st.why()
	}
	return s.Domain + " takes mail"
}

func (st *site) state() SiteState {
	s := SiteState{Domain: st.domain, Hosts: st.key.hosts, Limit: st.pace.limit, Used: st.pace.inside, Idle: len(st.idle),
		Waiting: st.queue.Len(), Paused: st.pace.shut, Last: st.pace.last, LastAt: st.pace.lastAt}
	if first := st.key.from.first(); first != nil {
		s.Source = first.Address.String()
	}
	return s
}

// Sites tells of all sites that are in use or have something to be told of, those that are paused first, then by name.
func (c *Client) Sites() []SiteState { return c.pool.states(func(siteKey) bool { return true }) }

// Site tells of the sites that a domain's mail goes to, one for each source address that it has lately been sent from.
func (c *Client) Site(domain string) []SiteState {
	hosts, rule := c.siteOf(domain)
	return c.pool.states(func(k siteKey) bool { return k.hosts == hosts && k.rule == rule })
}

// Wait is when mail from a pool's addresses to a domain may be tried again; zero for now. It asks nobody: of a domain
// whose hosts are not known it knows nothing.
func (c *Client) Wait(domain, pool string) (until time.Time) {
	hosts, rule := c.siteOf(domain)
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for _, o := range c.sources.pools[pool] {
		st := c.pool.sites[siteKey{hosts, o, rule}]
		if st == nil || !st.pace.shut.After(time.Now()) {
			return time.Time{}
		}
		if until.IsZero() || st.pace.shut.Before(until) {
			until = st.pace.shut
		}
	}
	return until
}

// siteOf names the site of a domain, as far as it is known without asking.
func (c *Client) siteOf(domain string) (hosts string, rule *Rule) {
	domain = strings.ToLower(domain)
	if c.fixed != nil {
		hosts = c.fixed.site
	} else if a := c.dns.kept(question{domain, dns.TypeMX}); a != nil && a.route != nil {
		hosts = a.route.site
	}
	return hosts, c.pool.rules.named(domain, hosts)
}

func (p *pool) states(wanted func(siteKey) bool) []SiteState {
	p.mu.Lock()
	var out []SiteState
	for key, st := range p.sites {
		if wanted(key) {
			out = append(out, st.state())
		}
	}
	p.mu.Unlock()
	slices.SortFunc(out, func(a, b SiteState) int { return strings.Compare(a.rank(), b.rank()) })
	return out
}

// rank sorts states: what is paused comes first.
func (s *SiteState) rank() string {
	if s.Paused.IsZero() {
		return "1 " + s.Domain + " " + s.Source
	}
	return "0 " + s.Domain + " " + s.Source
}
