package deliver

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Source is an address that mail is sent from. It must be one of this machine, and its hostname should resolve to it
// and back.
type Source struct {
	Address  netip.Addr
	Hostname string // our name in EHLO; empty for Config.Hostname
	Pool     string // whose mail leaves by it; empty for the default pool
	// Warmup is how many messages may leave by the address on its first day, its second, and so on; after the last of
	// them there is no limit. Days are those of UTC, and the first is that of Since. Each process counts for itself,
	// beginning with Sent.
	Warmup []int
	Since  time.Time
	Sent   int // messages that left today before this process began
}

// source is a Source at work.
type source struct {
	Source
	local *net.TCPAddr

	mu   sync.Mutex
	day  int64 // since 1970
	sent int   // messages that left on it, with those under way
}

// origin is what a message is sent from: an address, or one of each family. Messages from different origins share no
// connection. Without sources there is a single one, of neither family, and the system chooses the address.
type origin struct{ v4, v6 *source }

// origins are those of each pool.
type origins map[string][]*origin

// sourceSet is all of a client's sources.
type sourceSet struct {
	list  []*source
	pools origins
}

// newSources checks that the addresses are this machine's.
func newSources(list []Source, hostname string, now time.Time) (*sourceSet, error) {
	set := &sourceSet{pools: origins{}}
	if len(list) == 0 {
		set.pools[""] = []*origin{{}}
		return set, nil
	}
	v4, v6, seen := map[string][]*source{}, map[string][]*source{}, map[netip.Addr]bool{}
	for _, s := range list {
		s.Address = s.Address.Unmap()
		if s.Hostname == "" {
			s.Hostname = hostname
		}
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Address, err)
		}
		if seen[s.Address] {
			return nil, fmt.Errorf("source %s is listed twice: an address belongs to one pool", s.Address)
		}
		seen[s.Address] = true
		probe, err := net.ListenTCP("tcp", &net.TCPAddr{IP: s.Address.AsSlice()})
		if err != nil {
			return nil, fmt.Errorf("source %s is no address of this machine: %s", s.Address, reason(err))
		}
		_ = probe.Close()
		one := &source{Source: s, local: &net.TCPAddr{IP: s.Address.AsSlice()}, day: dayOf(now), sent: s.Sent}
		set.list = append(set.list, one)
		family := v6
		if s.Address.Is4() {
			family = v4
		}
		family[s.Pool] = append(family[s.Pool], one)
	}
	for _, s := range list {
		if set.pools[s.Pool] == nil {
			set.pools[s.Pool] = pair(v4[s.Pool], v6[s.Pool])
		}
	}
	return set, nil
}

func (s *Source) check() error {
	switch {
	case !s.Address.IsValid() || s.Address.IsUnspecified() || s.Address.IsMulticast() || s.Address.Zone() != "":
		return errors.New("the address must be a single one of this machine")
	case !wireSafe(s.Hostname):
		return fmt.Errorf("hostname %q must be a full name, such as out1.example.com", s.Hostname)
	case !wireSafe(s.Pool) || len(s.Pool) > 80 || strings.ContainsAny(s.Pool, `,"`):
		return fmt.Errorf("pool %q must be a word of at most 80 bytes", s.Pool)
	case s.Sent < 0:
		return errors.New("sent cannot be negative")
	case len(s.Warmup) > 0 && s.Since.IsZero():
		return errors.New("a warm-up needs the day on which it began")
	}
	for _, n := range s.Warmup {
		if n < 1 {
			return errors.New("each day of a warm-up allows at least one message")
		}
	}
	return nil
}

// pair puts addresses of the two families together, each at least once.
func pair(v4, v6 []*source) (out []*origin) {
	for i := range max(len(v4), len(v6)) {
		o := &origin{}
		if len(v4) > 0 {
			o.v4 = v4[i%len(v4)]
		}
		if len(v6) > 0 {
			o.v6 = v6[i%len(v6)]
		}
		out = append(out, o)
	}
	return out
}

// pick is the origin for a recipient: the same each time, since hosts that greylist want to see the one that they put
// off (RFC 6647 §5), or another one of the pool while that has sent what its warm-up allows. One message is counted
// on its first source until settle.
func (set *sourceSet) pick(pool, to string, now time.Time) (*origin, result) {
	list := set.pools[pool]
	if len(list) == 0 {
		return nil, problem("connect", "4.3.5", fmt.Sprintf("there is no source address in the pool %q: add one to the configuration, or choose another pool", pool))
	}
	first := 0
	if len(list) > 1 {
		h := fnv.New32a()
		_, _ = h.Write([]byte(strings.ToLower(to) + "\x00" + pool)) // it never fails
		first = int(h.Sum32()) % len(list)
	}
	for i := range list {
		if o := list[(first+i)%len(list)]; o.first().take(now) {
			return o, result{}
		}
	}
	r := problem("connect", "4.7.0", "the source addresses have sent what their warm-up allows today; next turn at 00:00 UTC")
	r.notBefore = now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	return nil, r
}

// first is the source that hosts are tried from first; nil for the system's choice.
func (o *origin) first() *source {
	if o == nil || o.v4 == nil && o.v6 == nil {
		return nil
	}
	return cmp.Or(o.v4, o.v6)
}

// to is the source for a target's family. There may be none.
func (o *origin) to(a netip.Addr) (s *source, ok bool) {
	switch {
	case o.first() == nil:
		return nil, true
	case a.Is4():
		return o.v4, o.v4 != nil
	}
	return o.v6, o.v6 != nil
}

// settle counts a message that left on the source that it left by, and no other.
func (o *origin) settle(r *result, now time.Time, left bool) {
	if first := o.first(); !left || r.from != first {
		first.add(now, -1)
	} else {
		return
	}
	if left {
		r.from.add(now, 1)
	}
}

// take counts a message, if the warm-up allows one more today.
func (s *source) take(now time.Time) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	if most, limited := s.allowed(now); limited && s.sent >= most {
		return false
	}
	s.sent++
	return true
}

func (s *source) add(now time.Time, n int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	s.sent = max(0, s.sent+n)
}

// turn begins a new day when it has come.
func (s *source) turn(now time.Time) {
	if day := dayOf(now); day != s.day {
		s.day, s.sent = day, 0
	}
}

// allowed is how many messages may leave today, if there is a limit.
func (s *source) allowed(now time.Time) (most int, limited bool) {
	day := max(dayOf(now)-dayOf(s.Since), 0)
	if day >= int64(len(s.Warmup)) {
		return 0, false
	}
	return s.Warmup[day], true
}

func dayOf(t time.Time) int64 { return t.Unix() / 86400 }

// SourceState is how a source does today.
type SourceState struct {
	Source
	Sent  int // messages that left today
	Limit int // messages that may; 0 for no limit
}

// Sources tells how much of their warm-up the sources have used, in the order of the configuration.
func (c *Client) Sources() []SourceState {
	now := time.Now()
	out := make([]SourceState, 0, len(c.sources.list))
	for _, s := range c.sources.list {
		s.mu.Lock()
		s.turn(now)
		most, _ := s.allowed(now)
		out = append(out, SourceState{s.Source, s.sent, most})
		s.mu.Unlock()
	}
	return out
}
