package domains

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// MailboxPath is where the page stands that a link in a mailbox leads to; the token follows.
const MailboxPath = "/verify-domain/"

const (
	linkFor   = 3 * 24 * time.Hour
	mailEvery = 10 * time.Minute // to the mailboxes of one domain of an account: they may be somebody else's
	maxLink   = 600              // bytes of a token
	macSize   = 16               // bytes
)

// ErrLink says that a link was not made here, or is too old, or that its domain is gone.
var ErrLink = errors.New("the link is not valid, or more than three days old: ask for another with senders/verify-domain")

// VerifyByMail sends a link to a mailbox of a domain. Whoever follows it and confirms proves that the domain is the
// account's, in place of the ownership record; the key records are wanted all the same. Nothing is
// sent when ownership is proved already.
func (d *Domains) VerifyByMail(ctx context.Context, account int64, domain, mailbox string) (s Sent, err error) {
	name, err := d.Name(domain)
	if err != nil {
		return s, err
	}
	s = Sent{Domain: name, Email: mailbox + "@" + name}
	if err := sender.CheckEmail(s.Email); err != nil {
		return s, sender.Invalid("mailbox", "is not what may stand before the @ of an address: it %s", err)
	}
	known, err := d.Add(ctx, account, name)
	switch {
	case err != nil:
		return s, err
	case known.Owned:
		s.Already = true
		return s, nil
	case d.cfg.Mail == nil || d.cfg.Link == nil:
		return s, sender.Invalid("mailbox", "this installation sends no mail to verify domains: publish the TXT record %s with the value %s%s", ownershipLabel+name, ownershipText, known.Token)
	}
	now := d.now()
	_, err = d.change(ctx, account, name, func(s *store.Domain) error {
		if now.Sub(s.Mailed) < mailEvery {
			return &sender.Error{Kind: sender.KindTooMany, RetryAfter: int(mailEvery.Seconds()),
				Message: "a mailbox of this domain was sent a link less than ten minutes ago"}
		}
		s.Mailed = now
		return nil
	})
	if err != nil {
		return s, err
	}
	text := fmt.Sprintf("Somebody asked to send mail from %s. If that was you, open this page within three days and confirm it:\n\n%s\n\n"+
		"If it was not, do nothing: without this nobody can.\n", name, d.cfg.Link(d.link(account, name, known.Token, now.Add(linkFor))))
	return s, d.cfg.Mail(ctx, account, s.Email, "Confirm that "+name+" is yours", text)
}

// Sent says where a link went.
type Sent struct {
	Domain  string
	Email   string
	Already bool // nothing was sent: ownership is proved
}

// ReadLink says which domain a token is about, and changes nothing.
func (d *Domains) ReadLink(token string) (domain string, err error) {
	_, domain, _, err = d.readLink(token)
	return domain, err
}

// Confirm proves a domain's ownership by the token that was sent to its mailbox. Its records are looked up soon after.
func (d *Domains) Confirm(ctx context.Context, token string) (domain string, err error) {
	account, name, proof, err := d.readLink(token)
	if err != nil {
		return "", err
	}
	_, err = d.change(ctx, account, name, func(s *store.Domain) error {
		if !hmac.Equal(proof, tokenProof(s.Token)) {
			return ErrLink
		}
		if s.Mailbox.IsZero() {
			s.Mailbox, s.Next = d.now(), d.now()
		}
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrLink
	}
	return name, err
}

// link is account and expiry (unsigned varints), 8 bytes of the hash of the domain's token, the domain, and the first 16
// bytes of an HMAC-SHA256 over all that, in base64url.
func (d *Domains) link(account int64, name, token string, expires time.Time) string {
	b := binary.AppendUvarint(nil, uint64(account))
	b = binary.AppendUvarint(b, uint64(expires.Unix()))
	b = append(b, tokenProof(token)...)
	b = append(b, name...)
	return base64.RawURLEncoding.EncodeToString(append(b, d.linkMAC(b)...))
}

func (d *Domains) linkMAC(b []byte) []byte {
	h := hmac.New(sha256.New, d.seal.mailbox)
	_, _ = h.Write(b) // never fails
	return h.Sum(nil)[:macSize]
}

// tokenProof makes the link void when its domain was given up and added again.
func tokenProof(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:8]
}

func (d *Domains) readLink(token string) (account int64, name string, proof []byte, err error) {
	if len(token) > maxLink {
		return 0, "", nil, ErrLink
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < macSize {
		return 0, "", nil, ErrLink
	}
	b, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	if !hmac.Equal(mac, d.linkMAC(b)) {
		return 0, "", nil, ErrLink
	}
	id, n := binary.Uvarint(b) // from here on it is ours
	b = b[n:]
	expires, n := binary.Uvarint(b)
	b = b[n:]
	if d.now().Unix() > int64(expires) {
		return 0, "", nil, ErrLink
	}
	return int64(id), string(b[8:]), b[:8], nil
}
