package domains

import (
	"context"
	"crypto"
	"fmt"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/compose"
	"github.com/postrider/postrider/sender/compose/rsafast"
	"github.com/postrider/postrider/sender/store"
)

// The algorithms by their names in a key record (RFC 6376 §3.6.1, RFC 8463 §4).
const (
	rsaName     = "rsa"
	ed25519Name = "ed25519"
	makeWait    = 10 * time.Second // for the turn to make keys
	loadTime    = 5 * time.Second  // of a domain's keys
)

// newKeys makes an RSA and an Ed25519 key, sealed, for a domain's row. One caller at a time: RSA takes a core for a
// quarter of a second.
func (d *Domains) newKeys(ctx context.Context, s *store.Domain, stage store.Stage) ([]store.DomainKey, error) {
	wait, cancel := context.WithTimeout(ctx, makeWait)
	defer cancel()
	if err := d.making.Acquire(wait, 1); err != nil {
		return nil, sender.Unavailable(err)
	}
	defer d.making.Release(1)
	long, err := compose.NewRSA()
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	short, err := compose.NewEd25519()
	if err != nil {
		return nil, fmt.Errorf("make an Ed25519 key: %w", err)
	}
	pair := randomText(8) // no other account's selector for the same domain, and none of before
	var out []store.DomainKey
	for _, key := range []struct {
		algorithm string
		private   crypto.Signer
	}{{rsaName, long}, {ed25519Name, short}} {
		k := store.DomainKey{Selector: "pr-" + pair + "-" + key.algorithm, Algorithm: key.algorithm, Stage: stage}
		if k.Record, err = compose.Record(key.private.Public()); err != nil {
			return nil, err
		}
		private, err := compose.EncodePrivate(key.private)
		if err != nil {
			return nil, err
		}
		k.Sealed = d.seal.seal(private, s.Account, s.Name, k.Selector)
		out = append(out, k)
	}
	return out, nil
}

// Identity is what a mail from a domain needs. It is shared and never changed.
type Identity struct {
	Verified   bool
	Keys       []compose.Key // empty: the mail goes unsigned
	ReturnPath string        // the domain's own, when its record was found; empty: the installation's
	Tracking   string        // the domain's own, when its record was found
}

// Identity is what a mail of an account from a domain needs, at most a minute old; the zero value when the account
// does not have the domain. It answers from memory, or reads once for all who wait. An error says that nobody can tell
// now: the mail must wait, and not go unsigned. It is a *sender.Error of kind unavailable while the account's server
// is away; what was known is used ten minutes longer then.
func (d *Domains) Identity(ctx context.Context, account int64, domain string) (*Identity, error) {
	if !plain(domain) {
		name, err := d.Name(domain)
		if err != nil {
			return &Identity{}, nil //nolint:nilerr // nobody can have added such a domain
		}
		domain = name
	}
	return d.cache.get(ctx, d.now(), account, domain)
}

// Keys are those that sign an account's mail from a domain, RSA first; nil when the account does not have the domain,
// or it is not verified. About errors see Identity.
func (d *Domains) Keys(ctx context.Context, account int64, domain string) ([]compose.Key, error) {
	id, err := d.Identity(ctx, account, domain)
	if err != nil {
		return nil, err
	}
	return id.Keys, nil
}

// MaySend says whether an account may send from a domain: nil, a validation error that says what to do, or that
// nobody can tell now.
func (d *Domains) MaySend(ctx context.Context, account int64, domain string) error {
	id, err := d.Identity(ctx, account, domain)
	if err == nil && !id.Verified {
		err = sender.Invalid("from_email", "the domain %s is not verified for this account: add it with senders/add-domain, publish its DNS records and call senders/check-domain", domain)
	}
	return err
}

// plain says that a domain is written as it is stored.
func plain(domain string) bool {
	for i := range len(domain) {
		c := domain[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return domain != "" && domain[len(domain)-1] != '.'
}

// load reads and opens what the cache keeps.
func (d *Domains) load(account int64, domain string) (*Identity, error) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTime) // it has more than one asker
	defer cancel()
	s, err := d.cfg.Store.Signing(ctx, account, domain)
	if err != nil {
		return nil, tell(fmt.Errorf("read the keys of %s: %w", domain, err))
	}
	id := &Identity{Verified: s.Verified}
	if !s.Verified {
		return id, nil
	}
	for _, k := range s.Keys {
		key, err := d.open(account, domain, k)
		if err != nil {
			return nil, err
		}
		id.Keys = append(id.Keys, key)
	}
	for _, r := range decodeResults(s.Results) {
		switch {
		case r.State != Valid:
		case r.Purpose == ReturnPath && r.Name == s.ReturnPath+"."+domain && r.Value == d.cfg.ReturnPathDomain:
			id.ReturnPath = r.Name
		case r.Purpose == Tracking && r.Name == s.Tracking+"."+domain && r.Value == d.cfg.TrackingHost:
			id.Tracking = r.Name
		}
	}
	return id, nil
}

func (d *Domains) open(account int64, domain string, k store.DomainKey) (compose.Key, error) {
	private, err := d.seal.open(k.Sealed, account, domain, k.Selector)
	if err != nil {
		return compose.Key{}, err
	}
	signer, err := compose.DecodePrivate(private)
	if err == nil {
		signer, err = rsafast.Signer(signer)
	}
	if err != nil {
		return compose.Key{}, fmt.Errorf("the DKIM key %s of %s: %w", k.Selector, domain, err)
	}
	return compose.Key{Domain: domain, Selector: k.Selector, Signer: signer}, nil
}
