package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Limits of a policy (RFC 8461 §3.2, §3.3).
const (
	stsMaxBody  = 64 << 10
	stsMaxHosts = 250
	stsMaxNames = 8 << 10     // bytes of all host names, which are kept
	stsLeast    = time.Minute // a shorter life would have us ask for each message
	stsMost     = 31_557_600 * time.Second
	stsDials    = 4 // addresses of a policy host
)

// stsFetcher gets policies by HTTPS, from addresses on the Internet only: who sends mail chooses the domain.
type stsFetcher struct {
	client *Client
	http   *http.Client
	port   string // 443
}

func newSTSFetcher(c *Client, roots *x509.CertPool) *stsFetcher {
	f := &stsFetcher{client: c, port: "443"}
	f.http = &http.Client{
		Transport: &http.Transport{DialContext: f.dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // RFC 8461 §3.3: must not follow
	}
	return f
}

// dial connects to a policy host, found by the resolver that finds the mail hosts.
func (f *stsFetcher) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	err = errors.New("the policy host has no address on the Internet")
	tries := 0
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, ip := range f.client.dns.lookup(ctx, host, kind).addrs {
			if tries == stsDials || !f.allowed(ip) {
				continue
			}
			tries++
			var conn net.Conn
			if conn, err = f.client.dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), f.port)); err == nil {
				return conn, nil
			}
		}
	}
	return nil, err
}

func (f *stsFetcher) allowed(ip netip.Addr) bool {
	network := "tcp4"
	if ip.Is6() {
		network = "tcp6"
	}
	return f.client.cfg.AllowPrivate || f.client.guard.Safe(network, net.JoinHostPort(ip.String(), f.port), nil) == nil
}

// fetch gets and reads the policy of a domain. With an error comes its type for reports.
func (f *stsFetcher) fetch(ctx context.Context, domain string) (*stsPolicy, tlsFault, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return nil, stsFetchError, err
	}
	resp, err := f.http.Do(req)
	var bad *tls.CertificateVerificationError
	switch {
	case errors.As(err, &bad):
		return nil, stsWebPKI, err
	case err != nil:
		return nil, stsFetchError, err
	}
	defer func() { _ = resp.Body.Close() }() // what it held is read, or not wanted
	if resp.StatusCode != http.StatusOK {
		return nil, stsFetchError, fmt.Errorf("the policy host answered %d", resp.StatusCode)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/plain" {
		return nil, stsInvalid, errors.New("the policy is not text/plain")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, stsMaxBody+1))
	switch {
	case err != nil:
		return nil, stsFetchError, err
	case len(body) > stsMaxBody:
		return nil, stsInvalid, errors.New("the policy has more than 64 KiB")
	}
	p, err := parseSTS(string(body), time.Now())
	if err != nil {
		return nil, stsInvalid, err
	}
	return p, tlsGood, nil
}

// parseSTS reads a policy (RFC 8461 §3.2). Unknown keys are passed over; of a key that comes twice, the first counts.
func parseSTS(text string, now time.Time) (*stsPolicy, error) {
	p, first, names := &stsPolicy{}, map[string]string{}, 0
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			if strings.TrimSpace(line) == "" {
				continue
			}
			return nil, errors.New("the policy has a line without a key")
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "mx" {
			if names += len(value); len(p.hosts) == stsMaxHosts || names > stsMaxNames {
				return nil, errors.New("the policy names more than 250 hosts, or in more than 8 KiB")
			}
			p.hosts = append(p.hosts, strings.Clone(strings.ToLower(strings.TrimSuffix(value, ".")))) // not to hold the rest
		} else if _, again := first[key]; !again {
			first[key] = value
		}
	}
	age, err := strconv.ParseUint(first["max_age"], 10, 64)
	p.mode, p.age = strings.Clone(first["mode"]), strconv.FormatUint(age, 10)
	p.enforce = p.mode == "enforce"
	switch {
	case first["version"] != "STSv1":
		return nil, errors.New("the policy's version is not STSv1")
	case p.mode != "enforce" && p.mode != "testing" && p.mode != "none":
		return nil, errors.New("the policy has no mode that is known")
	case err != nil:
		return nil, errors.New("the policy has no max_age, or one that is no number of seconds")
	case len(p.hosts) == 0 && p.mode != "none":
		return nil, errors.New("the policy names no hosts")
	}
	life := stsMost
	if age < uint64(stsMost/time.Second) {
		life = max(time.Duration(age)*time.Second, stsLeast) //nolint:gosec // below the most, so it fits
	}
	p.expires, p.renew = now.Add(life), now.Add(min(life/2, stsRenew))
	return p, nil
}

// stsID is the id of the one record that begins with v=STSv1; (RFC 8461 §3.1). More than one is as none.
func stsID(texts []string) string {
	id, n := "", 0
	for _, text := range texts {
		fields := strings.Split(text, ";")
		if strings.TrimRight(fields[0], " \t") != "v=STSv1" {
			continue
		}
		n++
		for _, field := range fields[1:] {
			if key, value, ok := strings.Cut(strings.TrimSpace(field), "="); ok && key == "id" {
				id = value
				break
			}
		}
	}
	if n != 1 || id == "" || len(id) > 32 || strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return ""
	}
	return id
}
