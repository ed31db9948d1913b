package api

import (
	"context"
	"errors"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/domains"
)

// recordState is how Mandrill's API tells of one record.
type recordState struct {
	Valid      bool    `json:"valid"`
	ValidAfter *string `json:"valid_after"` // always null: a record counts as soon as it is seen
	Error      *string `json:"error"`
}

type policyState struct {
	Valid bool    `json:"valid"`
	Error *string `json:"error"`
}

// sendingDomain is a domain in the shape of Mandrill's API. records, ours alone, are those to publish.
type sendingDomain struct {
	Domain       string           `json:"domain"`
	CreatedAt    string           `json:"created_at"`
	LastTestedAt *string          `json:"last_tested_at"`
	SPF          recordState      `json:"spf"`
	DKIM         recordState      `json:"dkim"`  // RSA
	DKIM2        recordState      `json:"dkim2"` // Ed25519
	DMARC        policyState      `json:"dmarc"`
	VerifiedAt   *string          `json:"verified_at"`
	ValidSigning bool             `json:"valid_signing"`
	VerifyTXTKey string           `json:"verify_txt_key"`
	Records      []domains.Result `json:"records"`
}

func wireDomain(d domains.Domain) sendingDomain {
	out := sendingDomain{Domain: d.Name, CreatedAt: d.Created.Format(time.DateTime), LastTestedAt: dateTime(d.Checked), VerifiedAt: dateTime(d.Verified),
		ValidSigning: !d.Verified.IsZero(), VerifyTXTKey: d.Token, Records: d.Records}
	none := "This domain is signed with Ed25519 alone" // until an RSA key is among the records
	out.DKIM.Error = &none
	for _, r := range d.Records {
		state := recordState{Valid: r.State == domains.Valid}
		switch {
		case r.State == domains.Unchecked:
			state.Error = new(string)
			*state.Error = "not checked yet"
		case !state.Valid:
			state.Error = &r.Error
		}
		switch r.Purpose {
		case domains.SPF:
			out.SPF = state
		case domains.DMARC:
			out.DMARC = policyState{state.Valid, state.Error}
		case domains.DKIM:
			if r.Ed25519() {
				out.DKIM2 = state
			} else {
				out.DKIM = state
			}
		}
	}
	return out
}

// dateTime is a time as Mandrill's API writes it; nil for none.
func dateTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.Format(time.DateTime)
	return &s
}

// sendersDomains is senders/domains.
func (a *API) sendersDomains(ctx context.Context, c *call) (any, error) {
	list, err := a.cfg.Domains.List(ctx, c.key.Account)
	if err != nil {
		return nil, err
	}
	out := make([]sendingDomain, len(list))
	for i, d := range list {
		out[i] = wireDomain(d)
	}
	return out, nil
}

// addDomain is senders/add-domain.
func (a *API) addDomain(ctx context.Context, c *call) (any, error) {
	name, err := required(c.body, "domain")
	if err != nil {
		return nil, err
	}
	d, err := a.cfg.Domains.Add(ctx, c.key.Account, name)
	if err != nil {
		return nil, err
	}
	return wireDomain(d), nil
}

// checkDomain is senders/check-domain, which adds a domain that the account does not have.
func (a *API) checkDomain(ctx context.Context, c *call) (any, error) {
	name, err := required(c.body, "domain")
	if err != nil {
		return nil, err
	}
	d, err := a.cfg.Domains.Check(ctx, c.key.Account, name)
	if errors.Is(err, domains.ErrNotFound) {
		if _, err = a.cfg.Domains.Add(ctx, c.key.Account, name); err == nil {
			d, err = a.cfg.Domains.Check(ctx, c.key.Account, name)
		}
	}
	if err != nil {
		return nil, err
	}
	return wireDomain(d), nil
}

type domainMail struct {
	Status string `json:"status"`
	Domain string `json:"domain"`
	Email  string `json:"email"`
}

// verifyDomain is senders/verify-domain.
func (a *API) verifyDomain(ctx context.Context, c *call) (any, error) {
	name, err := required(c.body, "domain")
	if err != nil {
		return nil, err
	}
	mailbox, err := required(c.body, "mailbox")
	if err != nil {
		return nil, err
	}
	sent, err := a.cfg.Domains.VerifyByMail(ctx, c.key.Account, name, mailbox)
	if err != nil {
		return nil, err
	}
	status := "sent"
	if sent.Already {
		status = "already_verified"
	}
	return domainMail{status, sent.Domain, sent.Email}, nil
}

func required(body object, name string) (string, error) {
	s, err := body.text(name)
	if err == nil && s == "" {
		err = sender.Invalid(name, "is needed")
	}
	return s, err
}
