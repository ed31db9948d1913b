package api

import (
	"context"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/store"
)

// scheduled is Mandrill's view of a message whose time has not come.
type scheduled struct {
	ID        string `json:"_id"`
	CreatedAt string `json:"created_at"`
	SendAt    string `json:"send_at"`
	FromEmail string `json:"from_email"`
	To        string `json:"to"`
	Subject   string `json:"subject"`
}

func wireScheduled(m store.Scheduled) scheduled {
	return scheduled{ID: m.ID.String(), CreatedAt: m.ID.Time().Format(time.DateTime), SendAt: m.SendAt.UTC().Format(time.DateTime),
		FromEmail: m.Sender, To: m.Email, Subject: m.Subject}
}

const scheduledMost = 1000

// listScheduled is messages/list-scheduled: the next 1,000 of the account, or of those to one address.
func (a *API) listScheduled(ctx context.Context, c *call) (any, error) {
	to, err := c.body.text("to")
	if err != nil {
		return nil, err
	}
	if to != "" && sender.CheckEmail(to) != nil {
		return nil, sender.Invalid("to", "is not an email address")
	}
	list, err := a.cfg.Store.Scheduled(ctx, c.key.Account, to, scheduledMost)
	if err != nil {
		return nil, storeError(err)
	}
	out := make([]scheduled, len(list))
	for i, m := range list {
		out[i] = wireScheduled(m)
	}
	return out, nil
}

// cancelScheduled is messages/cancel-scheduled.
func (a *API) cancelScheduled(ctx context.Context, c *call) (any, error) {
	id, err := messageID(c.body)
	if err != nil {
		return nil, err
	}
	m, err := a.cfg.Door.Cancel(c.key.Account, id)
	if err != nil {
		return nil, readError(err, id)
	}
	return wireScheduled(m), nil
}

// reschedule is messages/reschedule.
func (a *API) reschedule(ctx context.Context, c *call) (any, error) {
	id, err := messageID(c.body)
	if err != nil {
		return nil, err
	}
	at, err := c.body.moment("send_at", false)
	if err != nil {
		return nil, err
	}
	m, err := a.move(ctx, c.key.Account, id, at)
	if err != nil {
		return nil, readError(err, id)
	}
	return wireScheduled(m), nil
}

// move gives a scheduled message another time; one in the past means now.
func (a *API) move(ctx context.Context, account int64, id sender.ID, at time.Time) (store.Scheduled, error) {
	now := time.Now()
	switch {
	case at.IsZero():
		return store.Scheduled{}, sender.Invalid("send_at", "You must specify a send_at value")
	case at.After(now.Add(accept.MaxAhead)):
		return store.Scheduled{}, sender.Invalid("send_at", "is more than a year ahead")
	case at.Before(now):
		at = now
	}
	m, err := a.cfg.Store.Reschedule(ctx, account, id, at)
	if err == nil {
		a.cfg.At(a.cfg.Shards.Of(account).Name, at)
	}
	return m, err
}
