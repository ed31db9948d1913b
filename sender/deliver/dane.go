package deliver

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Certificate usages, selectors and matching types of TLSA records (RFC 6698 §2.1, RFC 7218).
const (
	usageTA, usageEE                    = 2, 3
	selectCert, selectKey               = 0, 1
	matchFull, matchSHA256, matchSHA512 = 0, 1, 2
)

// tlsa looks up the TLSA records of a host whose addresses come from signed DNS: under the name that its aliases lead to,
// else under its own (RFC 7672 §2.2.2). Records without signatures do not count.
func (c *Client) tlsa(ctx context.Context, t target) (a *answer, base string) {
	for _, base = range slices.Compact([]string{t.signed, t.host}) {
		a = c.dns.lookup(ctx, "_"+strconv.Itoa(c.cfg.Port)+"._tcp."+base, dns.TypeTLSA)
		if a.finding == noAnswer || len(a.tlsa) > 0 && a.signed {
			return a, base
		}
	}
	return &answer{finding: noData}, t.host
}

// usable are the records that RFC 7672 §3.1 lets SMTP use. Usages 0 and 1 name public authorities and are not among them.
func usable(records []*dns.TLSA) (out []*dns.TLSA) {
	for _, r := range records {
		n := len(r.Certificate) / 2
		size := r.MatchingType == matchSHA256 && n == sha256.Size || r.MatchingType == matchSHA512 && n == sha512.Size || r.MatchingType == matchFull && n > 0
		if (r.Usage == usageTA || r.Usage == usageEE) && (r.Selector == selectCert || r.Selector == selectKey) && size {
			out = append(out, r)
		}
	}
	return out
}

// matchTLSA holds a host's certificates against its TLSA records. With usage 3 the host's own must be one of them, whatever
// its names and dates (RFC 7672 §3.1.1); with usage 2 it must be for one of the names and by an authority that a record
// names (§3.1.2). It returns the name that was found, or none with usage 3.
func matchTLSA(records []*dns.TLSA, certs []*x509.Certificate, names []string) (named string, err error) {
	if len(certs) == 0 {
		return "", errors.New("the host showed no certificate")
	}
	err = errors.New("the host's certificate is not one that its TLSA records name")
	anchors, trusted := x509.NewCertPool(), false
	for _, r := range records {
		if r.Usage == usageEE && matches(r, certs[0]) {
			return "", nil
		}
		if r.Usage != usageTA {
			continue
		}
		if c := published(r); c != nil {
			anchors.AddCert(c)
			trusted = true
		}
		for _, c := range certs[1:] {
			if matches(r, c) {
				anchors.AddCert(c)
				trusted = true
			}
		}
	}
	if !trusted {
		return "", err
	}
	for _, name := range names {
		if err = verify(certs, anchors, name); err == nil {
			return name, nil
		}
	}
	return "", err
}

// published is the certificate that a record holds whole, so that the host need not send it.
func published(r *dns.TLSA) *x509.Certificate {
	if r.MatchingType != matchFull || r.Selector != selectCert {
		return nil
	}
	der, err := hex.DecodeString(r.Certificate)
	if err != nil {
		return nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil // it names nothing, as if it were not there
	}
	return c
}

func matches(r *dns.TLSA, c *x509.Certificate) bool {
	part := c.Raw
	if r.Selector == selectKey {
		part = c.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case matchSHA256:
		sum := sha256.Sum256(part)
		part = sum[:]
	case matchSHA512:
		sum := sha512.Sum512(part)
		part = sum[:]
	}
	return strings.EqualFold(hex.EncodeToString(part), r.Certificate)
}
