package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/postrider/postrider/sender/api"
	"github.com/postrider/postrider/sender/deliver"
)

// rules are the configuration's limits for some destinations.
func (d deliveryConfig) rules() []deliver.Rule {
	out := make([]deliver.Rule, len(d.Rules))
	for i, r := range d.Rules {
		out[i] = deliver.Rule{Match: r.Match, Connections: r.Connections, MessagesPerConnection: r.PerConnection, RatePerSecond: r.Rate, Pause: r.Pause}
	}
	return out
}

// sources are the addresses that mail is sent from.
func (d deliveryConfig) sources() ([]deliver.Source, error) {
	out := make([]deliver.Source, len(d.Sources))
	for i, s := range d.Sources {
		at, err := netip.ParseAddr(s.Address)
		if err != nil {
			return nil, fmt.Errorf("delivery.sources[%d].address: %w", i, err)
		}
		out[i] = deliver.Source{Address: at, Hostname: s.Hostname, Pool: s.Pool, Warmup: s.Warmup}
		if s.Since == "" && len(s.Warmup) == 0 {
			continue
		}
		if out[i].Since, err = time.Parse(time.DateOnly, s.Since); err != nil {
			return nil, fmt.Errorf("delivery.sources[%d].since must be the first day of its warm-up, such as 2026-11-24", i)
		}
	}
	return out, nil
}

// pools finds the pool of a message: the one that it asks for, if there is such a pool and it is not other accounts' own, or
// its account's.
func (d deliveryConfig) pools() (func(account int64, asked string) string, error) {
	known, of, taken := map[string]bool{}, map[int64]string{}, map[string]bool{}
	for _, s := range d.Sources {
		known[s.Pool] = true
	}
	for text, pool := range d.Pools {
		account, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return nil, fmt.Errorf("delivery.account_pools: %q is no account number", text)
		case !known[pool]:
			return nil, fmt.Errorf("delivery.account_pools: account %d has the pool %q, which no source belongs to", account, pool)
		}
		of[account], taken[pool] = pool, true
	}
	return func(account int64, asked string) string {
		if asked == "Main Pool" && known[""] { // as the API calls the default pool
			return ""
		}
		if asked != "" && known[asked] && !taken[asked] { // what is some accounts' own is for no others
			return asked
		}
		return of[account]
	}, nil
}

// addresses are the sources as the API tells of them.
func addresses(sources []deliver.SourceState) []api.Address {
	out := make([]api.Address, len(sources))
	for i, s := range sources {
		out[i] = api.Address{IP: s.Address.String(), Hostname: s.Hostname, Pool: s.Pool, WarmingUp: s.Limit > 0, SentToday: s.Sent, LimitToday: s.Limit}
		if len(s.Warmup) > 0 {
			out[i].WarmupStart, out[i].WarmupEnd = s.Since, s.Since.AddDate(0, 0, len(s.Warmup))
		}
	}
	return out
}

// resolver asks the configured servers, or the system's if there are none.
func (d deliveryConfig) resolver() *net.Resolver {
	if len(d.Resolvers) == 0 {
		return nil
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.Resolvers[0])
	}}
}
