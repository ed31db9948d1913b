package main

import (
	"context"
	"errors"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/sender/track"
)

// links makes the handler behind the links in mail.
func (a *app) links(st *store.Store) (*track.Tracker, error) {
	var err error
	if a.linkKeys, err = track.NewKeys(a.cfg.secret()); err != nil {
		return nil, err
	}
	return track.New(track.Config{Keys: a.linkKeys, Log: a.log, Metrics: a.metrics,
		Recipient: func(ctx context.Context, account int64, id sender.ID) (string, error) {
			f, _, err := st.Info(ctx, account, id)
			if errors.Is(err, store.ErrNotFound) {
				err = track.ErrGone
			}
			return f.Recipient.Email, err
		},
		Record: func(o track.OptOut, done func(error)) {
			a.ledger.Record(&store.Fact{Account: o.Account, Message: o.Message, State: sender.Unsubscribed, Kind: sender.EventUnsubscribed, At: o.At,
				Reply: sender.Reply{Stage: "report"}, Reject: o.Email, Reason: sender.ReasonUnsub}, done)
		}}), nil
}

// unsubscribeLink is the link of one message; empty when recipients cannot reach us.
func (a *app) unsubscribeLink(account int64, id sender.ID) string {
	base := a.cfg.PublicURL
	switch {
	case base != "":
	case a.cfg.sole: // dev: the sandbox's recipients are on this machine
		base = "http://" + a.apiAddr.Addr().String()
	default:
		return ""
	}
	return track.Link(base, a.linkKeys.Encode(track.Token{Kind: track.Unsubscribe, Account: account, Message: id}))
}
