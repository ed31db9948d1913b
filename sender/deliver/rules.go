package deliver

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Rule sets limits for some destinations. The first rule of the list that matches is the only one that counts; the zero
// value of a limit means the general one.
type Rule struct {
	// Match is a recipients' domain or the full name of a mail host ("example.com"), or an ending of the names of mail
	// hosts ("*.google.com"). A domain that a rule names has its limits and connections for itself; the others share those
	// of their mail hosts.
	Match                 string
	Connections           int      // at once, from one source address
	MessagesPerConnection int      //
	RatePerSecond         float64  // messages a second, from one source address
	Pause                 []string // regular expressions: a reply other than 2xx in which one is found pauses the site
}

// limits are what holds for a site.
type limits struct {
	start, most, reuse int
	every              time.Duration // between two messages; 0 for no limit
	pauses             []*regexp.Regexp
	proved             bool // the first attempts need not wait for one to find out whether anybody answers
}

// rules finds the limits of sites.
type rules struct {
	usual  limits
	list   []Rule
	limit  []limits // of list, by position
	domain map[string]int
}

// The bounds of a rate: a message in a day, and more than any connection can carry.
const rateLeast, rateMost = 1.0 / 86400, 100_000

func newRules(list []Rule, usual limits) (*rules, error) {
	r := &rules{usual: usual, list: slices.Clone(list), domain: map[string]int{}}
	for i := range r.list {
		rule := &r.list[i]
		rule.Match = strings.ToLower(strings.TrimSuffix(rule.Match, "."))
		l, err := rule.over(usual)
		if err != nil {
			return nil, fmt.Errorf("rule %d, for %q: %w", i+1, rule.Match, err)
		}
		r.limit = append(r.limit, l)
		if _, twice := r.domain[rule.Match]; !twice {
			r.domain[rule.Match] = i
		}
	}
	return r, nil
}

// over checks a rule and lays it over the usual limits.
func (rule *Rule) over(l limits) (limits, error) {
	name := strings.TrimPrefix(rule.Match, "*.")
	switch {
	case name == "" || !wireSafe(name) || !ascii(name) || strings.ContainsAny(name, "*@/:"):
		return l, errors.New(`match must be a domain or a host ("example.com"), or the ending of host names ("*.example.com"), in ASCII`)
	case rule.Connections < 0 || rule.MessagesPerConnection < 0:
		return l, errors.New("connections and messages a connection cannot be negative")
	case rule.RatePerSecond != 0 && (rule.RatePerSecond < rateLeast || rule.RatePerSecond > rateMost):
		return l, errors.New("the rate must lie between a message in a day (0.0000116) and 100,000 a second")
	}
	if rule.Connections > 0 {
		l.most = rule.Connections
	}
	if rule.MessagesPerConnection > 0 {
		l.reuse = rule.MessagesPerConnection
	}
	if rule.RatePerSecond > 0 {
		l.every = time.Duration(float64(time.Second) / rule.RatePerSecond)
	}
	for _, expr := range rule.Pause {
		re, err := regexp.Compile("(?i)" + expr)
		if err != nil {
			return l, fmt.Errorf("pause pattern %q: %w", expr, err)
		}
		l.pauses = append(l.pauses, re)
	}
	return l, nil
}

// named is the rule for a domain by its own name, unless an earlier one is for its hosts.
func (r *rules) named(domain, hosts string) *Rule {
	i, ok := r.domain[domain]
	if !ok {
		return nil
	}
	if j := r.hosted(hosts); j >= 0 && j < i {
		return nil
	}
	return &r.list[i]
}

// hosted is the position of the first rule for one of the hosts, or -1.
func (r *rules) hosted(hosts string) int {
	return slices.IndexFunc(r.list, func(rule Rule) bool {
		ending, wild := strings.CutPrefix(rule.Match, "*")
		for host := range strings.SplitSeq(hosts, ",") {
			if wild && strings.HasSuffix(host, ending) || host == rule.Match {
				return true
			}
		}
		return false
	})
}

// limits are those of a site.
func (r *rules) limits(key siteKey) limits {
	if key.rule != nil {
		return r.limit[slices.IndexFunc(r.list, func(rule Rule) bool { return rule.Match == key.rule.Match })]
	}
	if i := r.hosted(key.hosts); i >= 0 {
		return r.limit[i]
	}
	return r.usual
}

// pauses says that the operator takes such a reply for a block.
func (l *limits) pausesAfter(text string) bool {
	return slices.ContainsFunc(l.pauses, func(re *regexp.Regexp) bool { return re.MatchString(text) })
}
