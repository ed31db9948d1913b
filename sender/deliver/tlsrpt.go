package deliver

import (
	"cmp"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// policyKind says whose wish a connection's TLS is, in the words of RFC 8460 §4.2.
type policyKind string

const (
	policyNone policyKind = "no-policy-found"
	policySTS  policyKind = "sts"
	policyTLSA policyKind = "tlsa"
)

// tlsFault is a failure type of RFC 8460 §4.3, or none.
type tlsFault string

const (
	tlsGood            tlsFault = ""
	noSTARTTLS         tlsFault = "starttls-not-supported"
	hostMismatch       tlsFault = "certificate-host-mismatch"
	certificateExpired tlsFault = "certificate-expired"
	certificateUnknown tlsFault = "certificate-not-trusted"
	validationFailure  tlsFault = "validation-failure"
	tlsaInvalid        tlsFault = "tlsa-invalid"
	dnssecInvalid      tlsFault = "dnssec-invalid"
	stsFetchError      tlsFault = "sts-policy-fetch-error"
	stsInvalid         tlsFault = "sts-policy-invalid"
	stsWebPKI          tlsFault = "sts-webpki-invalid"
)

// faultOf is the failure type of what a certificate's check came to.
func faultOf(err error) tlsFault {
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return tlsGood
	case errors.As(err, &name):
		return hostMismatch
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return certificateExpired
	case errors.As(err, &unknown):
		return certificateUnknown
	}
	return validationFailure
}

// How much is kept for reports. What is more is counted in Prometheus alone.
const (
	maxReported = 10_000 // domains
	maxFailures = 20     // kinds of failure of one domain and policy, by type and host
)

// TLSResult is how TLS with the hosts of a domain went under one policy: a line of a report after RFC 8460.
type TLSResult struct {
	Domain   string
	Policy   string       // "sts", "tlsa" or "no-policy-found"
	Text     []string     // the lines of the MTA-STS policy, or the TLSA records
	Hosts    []string     // host patterns of the MTA-STS policy
	Success  int64        // connections
	Failures []TLSFailure // at most 20
}

// TLSFailure counts connections that failed in one way at one host. Those of a policy that could not be had name no host.
type TLSFailure struct {
	Result string // a result type of RFC 8460 §4.3, such as certificate-expired
	Host   string
	Count  int64
}

// tlsReports counts how TLS went, by domain and policy.
type tlsReports struct {
	total *prometheus.CounterVec

	mu      sync.Mutex
	since   time.Time
	results map[reported]*tally
}

// tally is a TLSResult in the making, with the policy that was seen last.
type tally struct {
	success  int64
	failures []TLSFailure
	sts      *stsPolicy
	tlsa     []*dns.TLSA
}

type reported struct {
	domain string
	kind   policyKind
}

func newTLSReports(reg prometheus.Registerer) (*tlsReports, error) {
	r := &tlsReports{since: time.Now(), results: map[reported]*tally{},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_deliver_tls_total",
			Help: "Connections to mail hosts by the policy that held for them (RFC 8460 §4.2) and how TLS went: success, or a result type of §4.3."},
			[]string{"policy", "result"})}
	if reg == nil {
		return r, nil
	}
	return r, reg.Register(r.total)
}

// count adds a connection, or a policy that could not be had. An unknown domain is that of Config.Route: not reported.
func (t *tlsReports) count(p *policy, host string, f tlsFault) {
	kind := cmp.Or(p.kind, policyNone)
	t.total.WithLabelValues(string(kind), cmp.Or(string(f), "success")).Inc()
	if p.domain == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := reported{p.domain, kind}
	r := t.results[key]
	if r == nil {
		if len(t.results) >= maxReported {
			return
		}
		r = &tally{}
		t.results[key] = r
	}
	if p.sts != nil || p.tlsa != nil {
		r.sts, r.tlsa = p.sts, p.tlsa
	}
	if f == tlsGood {
		r.success++
		return
	}
	i := slices.IndexFunc(r.failures, func(x TLSFailure) bool { return x.Result == string(f) && x.Host == host })
	switch {
	case i >= 0:
		r.failures[i].Count++
	case len(r.failures) < maxFailures:
		r.failures = append(r.failures, TLSFailure{string(f), host, 1})
	}
}

// TLSResults are the counts since the last TakeTLSResults, or since the start, by domain: of at most 10,000 domains and
// policies. Connections are counted once, however many messages they carry.
func (c *Client) TLSResults() (since time.Time, list []TLSResult) { return c.reports.list(false) }

// TakeTLSResults returns the counts, as TLSResults does, and begins anew.
func (c *Client) TakeTLSResults() (since time.Time, list []TLSResult) { return c.reports.list(true) }

func (t *tlsReports) list(anew bool) (since time.Time, list []TLSResult) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since = t.since
	for key, r := range t.results {
		one := TLSResult{Domain: key.domain, Policy: string(key.kind), Success: r.success, Failures: slices.Clone(r.failures)}
		if r.sts != nil {
			one.Text, one.Hosts = r.sts.lines(), slices.Clone(r.sts.hosts)
		}
		for _, rr := range r.tlsa {
			one.Text = append(one.Text, rr.String())
		}
		list = append(list, one)
	}
	if anew {
		t.since, t.results = time.Now(), map[reported]*tally{}
	}
	slices.SortFunc(list, func(a, b TLSResult) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Policy, b.Policy))
	})
	return since, list
}
