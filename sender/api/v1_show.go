package api

import (
	"context"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// v1Message is a message with what has happened to it.
type v1Message struct {
	ID         string              `json:"id"`
	Submission string              `json:"submission"` // the same for all recipients of one send
	State      string              `json:"state"`
	Why        string              `json:"why"` // what it waits for or how it ended, in words
	CreatedAt  time.Time           `json:"created_at"`
	SendAt     time.Time           `json:"send_at,omitzero"`         // of a scheduled message
	NextAt     time.Time           `json:"next_attempt_at,omitzero"` // of a deferred one
	ExpiresAt  time.Time           `json:"expires_at"`               // no attempt after this
	Attempts   int                 `json:"attempts"`                 // begun so far
	From       string              `json:"from_email"`
	Email      string              `json:"email"`
	Name       string              `json:"name,omitempty"`
	Subject    string              `json:"subject"`
	Tags       []string            `json:"tags"`
	Metadata   map[string]string   `json:"metadata"`
	Subaccount string              `json:"subaccount,omitempty"`
	Opens      int                 `json:"opens"`
	Clicks     int                 `json:"clicks"`
	Reason     sender.RejectReason `json:"reject_reason,omitempty"`
	Events     []v1Event           `json:"events"` // oldest first; the first 1,000
}

// v1Event is a fact about a message.
type v1Event struct {
	Kind    string    `json:"kind"`
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt,omitempty"` // whose outcome it is; absent for what came from outside
	Reply   v1Reply   `json:"reply,omitzero"`
	Dialog  string    `json:"transcript,omitempty"` // commands and replies of an attempt that did not deliver, without the content
}

// v1Reply is what the remote host said, or, without a code, why it could not be asked.
type v1Reply struct {
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
	Stage    string `json:"stage,omitempty"`
	Host     string `json:"host,omitempty"`
}

// showMail is GET /v1/messages/{id}.
func (a *API) showMail(ctx context.Context, c *call) (any, error) {
	id, err := parseID(c.id)
	if err != nil {
		return nil, err
	}
	if err := c.body.only(); err != nil {
		return nil, err
	}
	f, events, err := a.cfg.Store.Info(ctx, c.key.Account, id)
	if err != nil {
		return nil, readError(err, id)
	}
	return v1Show(&f, events), nil
}

func v1Show(f *store.Found, events []sender.Event) v1Message {
	m := v1Message{ID: f.ID.String(), Submission: f.Submission.String(), State: f.State.Name(), Why: f.Why(), CreatedAt: f.ID.Time(), ExpiresAt: f.Expires.UTC(),
		Attempts: f.Attempt, From: f.Sender, Email: f.Recipient.Email, Name: f.Recipient.Name, Subject: f.Subject,
		Tags: append([]string{}, f.Tags...), Metadata: f.Metadata, Subaccount: f.Subaccount, Opens: f.Opens, Clicks: f.Clicks,
		Reason: f.Reason, Events: make([]v1Event, len(events))}
	if m.Metadata == nil {
		m.Metadata = map[string]string{}
	}
	switch f.State {
	case sender.Scheduled:
		m.SendAt = f.Next.UTC()
	case sender.Deferred:
		m.NextAt = f.Next.UTC()
	}
	for i, e := range events {
		m.Events[i] = v1Event{Kind: e.Kind.Name(), At: e.At.UTC(), Attempt: max(e.Attempt, 0), Reply: v1Reply(e.Reply), Dialog: e.Transcript}
	}
	return m
}
