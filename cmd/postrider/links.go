package main

import (
	"context"
	"errors"
	"strings"

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

// public is where recipients reach us; empty when they cannot.
func (a *app) public() string {
	if a.cfg.PublicURL == "" && a.cfg.sole { // dev: the sandbox's recipients are on this machine
		return "http://" + a.apiAddr.Addr().String()
	}
	return strings.TrimRight(a.cfg.PublicURL, "/")
}

// platform is the account of the platform's own mail. Nobody has a key of it: whoever asks for a link to be mailed to a
// stranger's mailbox must not find it among his own messages.
const platform = 0

// tellMailbox mails a text to a mailbox of a domain whose owner is to be found out.
func (a *app) tellMailbox(ctx context.Context, _ int64, to, subject, text string) error {
	_, err := a.door.Accept(ctx, &sender.Submission{Account: platform, System: true,
		Content:    sender.Content{From: sender.Address{Email: "postmaster@" + a.cfg.Hostname, Name: "Postrider"}, Subject: subject, Text: text},
		Recipients: []sender.Recipient{{Address: sender.Address{Email: to}}}})
	return err
}

// unsubscribeLink is the link of one message; empty when recipients cannot reach us.
func (a *app) unsubscribeLink(account int64, id sender.ID) string {
	base := a.public()
	if base == "" {
		return ""
	}
	return track.Link(base, a.linkKeys.Encode(track.Token{Kind: track.Unsubscribe, Account: account, Message: id}))
}
