package api

import (
	"context"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

// allowed is Mandrill's view of an entry of the allowlist.
type allowed struct {
	Email     string `json:"email"`
	Detail    string `json:"detail"`
	CreatedAt string `json:"created_at"`
}

type deletedAllowed struct {
	Email   string `json:"email"`
	Deleted bool   `json:"deleted"`
}

// allowlistsAdd is allowlists/add: the address is sent to from now on, whatever was the matter with it.
func (a *API) allowlistsAdd(ctx context.Context, c *call) (any, error) {
	email, err := listAddress(c.body)
	if err != nil {
		return nil, err
	}
	comment, err := comment(c.body)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.Allow(ctx, c.key.Account, email, comment); err != nil {
		return nil, storeError(err)
	}
	return added{email, true}, nil
}

const maxPrefix = 254 // bytes, those of an address

// allowlistsList is allowlists/list: the first 1,000 entries by address, of all or of those that begin with a text.
func (a *API) allowlistsList(ctx context.Context, c *call) (any, error) {
	prefix, err := c.body.text("email")
	switch {
	case err != nil:
		return nil, err
	case len(prefix) > maxPrefix || strings.ContainsRune(prefix, 0):
		return nil, sender.Invalid("email", "is not the beginning of an email address")
	}
	list, err := a.cfg.Store.Allowlist(ctx, c.key.Account, prefix)
	if err != nil {
		return nil, storeError(err)
	}
	out := make([]allowed, len(list))
	for i, e := range list {
		out[i] = allowed{e.Email, e.Detail, e.Created.UTC().Format(time.DateTime)}
	}
	return out, nil
}

// allowlistsDelete is allowlists/delete. Deleting what is not there is no error, and says so.
func (a *API) allowlistsDelete(ctx context.Context, c *call) (any, error) {
	email, err := listAddress(c.body)
	if err != nil {
		return nil, err
	}
	n, err := a.cfg.Store.Disallow(ctx, c.key.Account, email)
	if err != nil {
		return nil, storeError(err)
	}
	return deletedAllowed{email, n > 0}, nil
}
