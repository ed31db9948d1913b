package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const dnsWait = 8 * time.Second // for all look-ups of a check

type dnsCheck struct {
	Valid bool    `json:"valid"`
	Error *string `json:"error"`
}

// ipsCheckDNS is ips/check-custom-dns: whether a domain is what the address greets with, leads to it, and is what the
// address leads to, as large mailbox providers demand (RFC 1912 §2.1). Only a name of the configuration is looked up.
func (a *API) ipsCheckDNS(ctx context.Context, c *call) (any, error) {
	d, err := a.address(c.body)
	if err != nil {
		return nil, err
	}
	domain, err := required(c.body, "domain")
	if err != nil {
		return nil, err
	}
	fault := ""
	if strings.EqualFold(strings.TrimSuffix(domain, "."), d.Hostname) {
		fault = a.dnsFault(ctx, d)
	} else {
		fault = fmt.Sprintf("%s greets as %s, not by this name: the operator sets it as hostname in [[delivery.sources]] of the configuration file", d.IP, d.Hostname)
	}
	if fault == "" {
		return dnsCheck{Valid: true}, nil
	}
	return dnsCheck{Error: &fault}, nil
}

// dnsFault says what is wrong between an address and its name; nothing when each leads to the other.
func (a *API) dnsFault(ctx context.Context, d *Address) string {
	ctx, cancel := context.WithTimeout(ctx, dnsWait)
	defer cancel()
	at, err := netip.ParseAddr(d.IP)
	if err != nil {
		return d.IP + " is not an IP address"
	}
	at = at.Unmap()
	network, kind := "ip4", "A"
	if at.Is6() {
		network, kind = "ip6", "AAAA"
	}
	found, err := a.cfg.Resolver.LookupNetIP(ctx, network, d.Hostname+".") // the dot keeps search domains out
	switch {
	case later(err):
		return d.Hostname + " cannot be looked up just now: try again later"
	case !slices.ContainsFunc(found, func(ip netip.Addr) bool { return ip.Unmap() == at }):
		return fmt.Sprintf("%s has no %s record with %s", d.Hostname, kind, d.IP)
	}
	names, err := a.cfg.Resolver.LookupAddr(ctx, at.String())
	switch {
	case later(err):
		return "the reverse DNS of " + d.IP + " cannot be looked up just now: try again later"
	case !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, "."), d.Hostname) }):
		return fmt.Sprintf("the reverse DNS (PTR record) of %s does not name %s: whoever provides the address sets it", d.IP, d.Hostname)
	}
	return ""
}

// later says that a look-up failed, rather than finding nothing.
func later(err error) bool {
	var known *net.DNSError
	return err != nil && (!errors.As(err, &known) || !known.IsNotFound)
}
