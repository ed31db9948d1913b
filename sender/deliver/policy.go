package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/miekg/dns"
)

// demand is what a message asks of TLS before its host is known.
type demand struct {
	domain  string     // next hop, for names in certificates and for reports; empty with Config.Route
	signed  bool       // the domain's mail hosts come from signed DNS, so what their TLSA records say holds
	sts     *stsPolicy // the domain's MTA-STS policy, or nil
	require bool       // Envelope.RequireTLS
}

// level is how much TLS a host must offer to get a message.
type level int8

const (
	mayTLS    level = iota // if it works, with any certificate (RFC 7435)
	mustTLS                // always, with any certificate
	mustName               // always, with a certificate by a known authority for the host's name (RFC 8461)
	mustMatch              // always, with a certificate that the host's TLSA records name (RFC 7672)
)

// policy is what one host must show to get one domain's message. DANE wins over MTA-STS (RFC 8461 §2).
type policy struct {
	level  level
	kind   policyKind // who asks, for reports
	domain string
	tlsa   []*dns.TLSA
	base   string // the name that the TLSA records belong to
	sts    *stsPolicy
	wrong  bool // the policy itself is broken, which is counted already
}

// demanded is a route with what a message on it asks of TLS. A domain that is new to us may cost the time of asking for
// its MTA-STS policy, at most stsWait.
func (c *Client) demanded(ctx context.Context, rt *route, domain string, e *Envelope) *route {
	if c.fixed != nil && !e.RequireTLS {
		return rt
	}
	asking := *rt
	asking.require = e.RequireTLS
	if c.fixed == nil {
		asking.domain = domain
		asking.sts = c.sts.policy(ctx, domain)
	}
	return &asking
}

// met says that an open connection may carry the message.
func (d *demand) met(s *session) bool {
	switch {
	case d.require && (!s.tls || s.shown.old):
		return false
	case d.signed && s.shown.asked:
		if s.shown.matched {
			return true
		}
	case d.signed:
		return false
	}
	return d.sts == nil || !d.sts.enforce || s.shown.valid && d.sts.match(s.host)
}

// policy finds what a host must show, or why it cannot be found out or cannot be met.
func (c *Client) policy(ctx context.Context, t target) (p policy, bad result) {
	d := t.asks
	if d == nil {
		return policy{}, result{}
	}
	p.domain = d.domain
	if d.require {
		p.level = mustTLS
	}
	if d.signed && t.signed != "" {
		a, base := c.tlsa(ctx, t)
		switch p.tlsa, p.base = usable(a.tlsa), base; {
		case ctx.Err() != nil:
			return p, cancelled("dns")
		case a.finding == noAnswer:
			p.kind = policyTLSA
			c.reports.count(&p, t.host, dnssecInvalid)
			bad = problem("dns", "4.7.5", "cannot find out which certificate the host must have (TLSA): "+a.why)
			bad.Reply.Host, bad.early, bad.broken = t.host, true, true
			return p, bad
		case len(p.tlsa) > 0:
			p.level, p.kind = mustMatch, policyTLSA
			return p, result{}
		case len(a.tlsa) > 0: // RFC 7672 §2.2: encrypt at least
			p.level, p.kind, p.wrong = mustTLS, policyTLSA, true
			c.reports.count(&p, t.host, tlsaInvalid)
		}
	}
	if d.sts == nil {
		return p, result{}
	}
	p.kind, p.sts, p.wrong = policySTS, d.sts, !d.sts.match(t.host)
	if d.sts.enforce {
		p.level = mustName
	}
	if p.wrong {
		c.reports.count(&p, t.host, validationFailure)
		if d.sts.enforce {
			return p, p.refuse(t.host, "the host is not among those that the policy names")
		}
	}
	return p, result{}
}

// refuse is the result of a host that does not show what it must: another host may, or this one later.
func (p *policy) refuse(host, why string) result {
	enhanced := "4.7.5"
	switch {
	case p.level == mayTLS: // a failed handshake
	case p.kind == policyTLSA:
		why = "not sent, as the host's TLSA records (DANE) ask for more: " + why
	case p.level == mustName:
		why = "not sent, as the domain's MTA-STS policy asks for more: " + why
	default:
		enhanced, why = "4.7.10", "not sent, as the message must not go in the clear: "+why
	}
	r := problem("starttls", enhanced, cleanText(why, ""))
	r.Reply.Host, r.early, r.broken = host, true, true
	return r
}

// shown is what the TLS of a connection has proved.
type shown struct {
	old     bool // it is older than TLS 1.2
	asked   bool // the host's TLSA records were asked for, and what they said was held
	matched bool // the certificate is one that they name
	valid   bool // the certificate is by a known authority, for the host's name
	fault   tlsFault
}

// prove holds the certificate of a connection against the policy. The fault is for reports; with err the connection
// must not be used.
func (s *session) prove(state *tls.ConnectionState, roots *x509.CertPool, p *policy) (f tlsFault, err error) {
	s.shown.old = state.Version < tls.VersionTLS12
	if p.domain == "" {
		return tlsGood, nil
	}
	certs := state.PeerCertificates
	invalid := verify(certs, roots, s.host)
	if s.shown.old && invalid == nil {
		invalid = errors.New("the host's TLS is older than 1.2")
	}
	s.shown.valid = invalid == nil
	switch {
	case p.level == mustMatch:
		named, err := matchTLSA(p.tlsa, certs, []string{p.base, s.host, p.domain})
		if err != nil {
			return faultOf(err), err
		}
		s.shown.matched = named != p.domain || p.domain == s.host
	case p.level == mustName:
		return faultOf(invalid), invalid
	case p.kind == policySTS: // testing
		return faultOf(invalid), nil
	}
	return tlsGood, nil
}

// verify builds a chain from the first certificate over the others to a root (RFC 5280), for a name.
func verify(certs []*x509.Certificate, roots *x509.CertPool, name string) error {
	if len(certs) == 0 {
		return errors.New("the host showed no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between})
	return err
}
