package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

// Address is one that mail is sent from.
type Address struct {
	IP          string
	Hostname    string // that it greets with
	Pool        string // empty for the default pool
	WarmingUp   bool   // the number of messages a day is limited, and grows
	WarmupStart time.Time
	WarmupEnd   time.Time
	SentToday   int // messages, since midnight UTC
	LimitToday  int // messages; 0 for no limit
}

const mainPool = "Main Pool" // Mandrill's name of the default pool

func (d *Address) pool() string {
	if d.Pool == "" {
		return mainPool
	}
	return d.Pool
}

// dedicatedIP is an address in the shape of Mandrill's API. The counts of today are ours alone.
type dedicatedIP struct {
	IP         string    `json:"ip"`
	CreatedAt  string    `json:"created_at"` // beginning of the warm-up, or else of this process
	Pool       string    `json:"pool"`
	Domain     string    `json:"domain"`
	CustomDNS  customDNS `json:"custom_dns"`
	Warmup     warmup    `json:"warmup"`
	SentToday  int       `json:"sent_today"`
	LimitToday *int      `json:"limit_today"` // null for no limit
}

type customDNS struct {
	Enabled bool    `json:"enabled"`
	Valid   bool    `json:"valid"`
	Error   *string `json:"error"`
}

type warmup struct {
	WarmingUp bool    `json:"warming_up"`
	StartAt   *string `json:"start_at"`
	EndAt     *string `json:"end_at"`
}

type ipPool struct {
	Name      string        `json:"name"`
	CreatedAt string        `json:"created_at"` // the earliest of its addresses
	IPs       []dedicatedIP `json:"ips"`
}

// addresses are all that mail is sent from, in the order of the configuration; none when the system chooses.
func (a *API) addresses() []Address {
	if a.cfg.Addresses == nil {
		return nil
	}
	return a.cfg.Addresses()
}

func (a *API) wireIP(d *Address) dedicatedIP {
	unchecked := "not checked yet: ips/check-custom-dns looks it up"
	out := dedicatedIP{IP: d.IP, CreatedAt: a.began.UTC().Format(time.DateTime), Pool: d.pool(), Domain: d.Hostname,
		CustomDNS: customDNS{Enabled: d.Hostname != ""}, SentToday: d.SentToday,
		Warmup: warmup{d.WarmingUp, dateTime(d.WarmupStart.UTC()), dateTime(d.WarmupEnd.UTC())}}
	if d.Hostname != "" {
		out.CustomDNS.Error = &unchecked
	}
	if out.Warmup.StartAt != nil {
		out.CreatedAt = *out.Warmup.StartAt
	}
	if d.LimitToday > 0 {
		out.LimitToday = &d.LimitToday
	}
	return out
}

// pools are those that addresses belong to, in the order of their first ones.
func (a *API) pools() []ipPool {
	out := []ipPool{}
	for _, d := range a.addresses() {
		ip := a.wireIP(&d)
		i := slices.IndexFunc(out, func(p ipPool) bool { return p.Name == ip.Pool })
		if i < 0 {
			i = len(out)
			out = append(out, ipPool{Name: ip.Pool, CreatedAt: ip.CreatedAt})
		}
		out[i].CreatedAt = min(out[i].CreatedAt, ip.CreatedAt)
		out[i].IPs = append(out[i].IPs, ip)
	}
	return out
}

// address finds the one that a call names, in whichever way it is written.
func (a *API) address(body object) (*Address, error) {
	text, err := required(body, "ip")
	if err != nil {
		return nil, err
	}
	if asked, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
		for _, d := range a.addresses() {
			if at, err := netip.ParseAddr(d.IP); err == nil && at.Unmap() == asked.Unmap() {
				return &d, nil
			}
		}
	}
	return nil, &sender.Error{Kind: sender.KindUnknownIP, Message: fmt.Sprintf("No dedicated IP with address %.64s", text)}
}

func (a *API) namedPool(body object) (*ipPool, error) {
	name, err := required(body, "pool")
	if err != nil {
		return nil, err
	}
	for _, p := range a.pools() {
		if p.Name == name {
			return &p, nil
		}
	}
	return nil, &sender.Error{Kind: sender.KindUnknownPool, Message: fmt.Sprintf("No pool named %.80s", name)}
}

// ipsList is ips/list.
func (a *API) ipsList(context.Context, *call) (any, error) {
	out := []dedicatedIP{}
	for _, d := range a.addresses() {
		out = append(out, a.wireIP(&d))
	}
	return out, nil
}

// ipsInfo is ips/info.
func (a *API) ipsInfo(_ context.Context, c *call) (any, error) {
	d, err := a.address(c.body)
	if err != nil {
		return nil, err
	}
	return a.wireIP(d), nil
}

// ipsPools is ips/list-pools.
func (a *API) ipsPools(context.Context, *call) (any, error) { return a.pools(), nil }

// ipsPool is ips/pool-info.
func (a *API) ipsPool(_ context.Context, c *call) (any, error) {
	p, err := a.namedPool(c.body)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func errConfigured() error {
	return &sender.Error{Kind: sender.KindValidation, Message: "Nothing was changed: addresses, their pools, names and warm-up are set by the operator, in [[delivery.sources]] of the configuration file"}
}

// ipsChange refuses the calls that would change what the configuration says, with Mandrill's own error if they name
// what does not exist.
func (a *API) ipsChange(_ context.Context, _ *call) (any, error) { return nil, errConfigured() }

func (a *API) ipsChangeIP(_ context.Context, c *call) (any, error) {
	if _, err := a.address(c.body); err != nil {
		return nil, err
	}
	return nil, errConfigured()
}

func (a *API) ipsDeletePool(_ context.Context, c *call) (any, error) {
	if _, err := a.namedPool(c.body); err != nil {
		return nil, err
	}
	return nil, errConfigured()
}

// ipsCreatePool is ips/create-pool, which has no effect on a pool that exists and answers with it.
func (a *API) ipsCreatePool(_ context.Context, c *call) (any, error) {
	if _, err := required(c.body, "pool"); err != nil {
		return nil, err
	}
	if p, err := a.namedPool(c.body); err == nil {
		return p, nil
	}
	return nil, errConfigured()
}
