package api

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

const maxComment = 255 // characters

// listedReject is Mandrill's view of an entry of the do-not-send list.
type listedReject struct {
	Email      string  `json:"email"`
	Reason     string  `json:"reason"`
	Detail     string  `json:"detail"`
	CreatedAt  string  `json:"created_at"`
	LastEvent  string  `json:"last_event_at"`
	ExpiresAt  *string `json:"expires_at"` // null for never
	Expired    bool    `json:"expired"`
	Sender     any     `json:"sender"` // always null: an entry is for all senders
	Subaccount *string `json:"subaccount"`
}

func wireReject(e store.Listed) listedReject {
	out := listedReject{Email: e.Email, Reason: string(e.Reason), Detail: e.Detail, CreatedAt: e.Created.UTC().Format(time.DateTime),
		LastEvent: e.Last.UTC().Format(time.DateTime), Expired: e.Expired}
	if !e.Expires.IsZero() {
		at := e.Expires.UTC().Format(time.DateTime)
		out.ExpiresAt = &at
	}
	if e.Subaccount != "" {
		out.Subaccount = &e.Subaccount
	}
	return out
}

type added struct {
	Email string `json:"email"`
	Added bool   `json:"added"`
}

type deletedReject struct {
	Email      string  `json:"email"`
	Deleted    bool    `json:"deleted"`
	Subaccount *string `json:"subaccount"`
}

// rejectsAdd is rejects/add. Without a subaccount the address gets no mail of the whole account.
func (a *API) rejectsAdd(ctx context.Context, c *call) (any, error) {
	email, err := listAddress(c.body)
	if err != nil {
		return nil, err
	}
	comment, err := comment(c.body)
	if err != nil {
		return nil, err
	}
	sub, err := subaccount(c.body)
	if err != nil {
		return nil, err
	}
	n, err := a.cfg.Store.AddReject(ctx, c.key.Account, email, sub, comment)
	if err != nil {
		return nil, storeError(err)
	}
	return added{email, n > 0}, nil
}

// rejectsList is rejects/list: the newest 1,000 entries of the account, or of one address or subaccount.
func (a *API) rejectsList(ctx context.Context, c *call) (any, error) {
	var email string
	if s, err := c.body.text("email"); err != nil || s != "" {
		if email, err = listAddress(c.body); err != nil {
			return nil, err
		}
	}
	expired := false
	if err := c.body.flag("include_expired", &expired); err != nil {
		return nil, err
	}
	sub, err := subaccount(c.body)
	if err != nil {
		return nil, err
	}
	list, err := a.cfg.Store.Rejects(ctx, c.key.Account, email, sub, expired)
	if err != nil {
		return nil, storeError(err)
	}
	out := make([]listedReject, len(list))
	for i, e := range list {
		out[i] = wireReject(e)
	}
	return out, nil
}

// rejectsDelete is rejects/delete. Without a subaccount all entries of the address go.
func (a *API) rejectsDelete(ctx context.Context, c *call) (any, error) {
	email, err := listAddress(c.body)
	if err != nil {
		return nil, err
	}
	sub, err := subaccount(c.body)
	if err != nil {
		return nil, err
	}
	n, err := a.cfg.Store.DeleteReject(ctx, c.key.Account, email, sub)
	switch {
	case err != nil:
		return nil, storeError(err)
	case n == 0:
		return nil, unknownReject()
	}
	out := deletedReject{Email: email, Deleted: true}
	if sub != "" {
		out.Subaccount = &sub
	}
	return out, nil
}

func unknownReject() *sender.Error {
	return &sender.Error{Kind: sender.KindUnknownReject, Message: "Email address is not in the rejection list and is not invalid"}
}

// listAddress reads the address that a call is about.
func listAddress(body object) (string, error) {
	email, err := body.text("email")
	email = strings.TrimSpace(email)
	switch {
	case err != nil:
		return "", err
	case email == "":
		return "", sender.Invalid("email", "You must specify a email value")
	case sender.CheckEmail(email) != nil:
		return "", sender.Invalid("email", "Not a valid email address")
	}
	return email, nil
}

// comment reads what people note beside an entry.
func comment(body object) (string, error) {
	s, err := body.text("comment")
	switch {
	case err != nil:
		return "", err
	case utf8.RuneCountInString(s) > maxComment:
		return "", sender.Invalid("comment", "has more than %d characters", maxComment)
	case strings.ContainsRune(s, 0):
		return "", sender.Invalid("comment", "has a NUL")
	}
	return s, nil
}

// subaccount reads the name of a subaccount, of which there are none yet: a send knows none either.
func subaccount(body object) (string, error) {
	s, err := body.text("subaccount")
	if err == nil && s != "" {
		err = &sender.Error{Kind: sender.KindUnknownSubaccount, Field: "subaccount", Message: fmt.Sprintf("No subaccount exists with the id '%.100s'", s)}
	}
	return s, err
}
