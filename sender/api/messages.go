package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// message is Mandrill's view of a message in info and search.
type message struct {
	TS           int64             `json:"ts"`
	ID           string            `json:"_id"`
	Sender       string            `json:"sender"`
	Template     *string           `json:"template"`
	Subject      string            `json:"subject"`
	Email        string            `json:"email"`
	Tags         []string          `json:"tags"`
	Opens        int               `json:"opens"`
	OpensDetail  []any             `json:"opens_detail"`
	Clicks       int               `json:"clicks"`
	ClicksDetail []any             `json:"clicks_detail"`
	State        string            `json:"state"`
	Metadata     map[string]string `json:"metadata"`
	Subaccount   *string           `json:"subaccount"`
	SMTPEvents   []smtpEvent       `json:"smtp_events"`
	Resends      []any             `json:"resends"`
	Reject       *reject           `json:"reject"`
	Diag         string            `json:"diag,omitempty"`
	Description  string            `json:"bounce_description,omitempty"`
}

type reject struct {
	Reason string `json:"reason"`
}

type smtpEvent struct {
	TS            int64  `json:"ts"`
	Type          string `json:"type"`
	Diag          string `json:"diag"`
	SourceIP      string `json:"source_ip"`
	DestinationIP string `json:"destination_ip"`
	Size          int    `json:"size"`
}

// stateNames are the states by their names outside; what is not here is queued.
var stateNames = map[sender.State]string{
	sender.Scheduled: "scheduled", sender.Delivered: "sent", sender.Bounced: "bounced", sender.SoftBounced: "soft-bounced",
	sender.Expired: "soft-bounced", sender.Rejected: "rejected", sender.Spam: "spam", sender.Unsubscribed: "unsub", sender.Cancelled: "cancelled", sender.Dead: "soft-bounced",
}

var eventNames = map[sender.EventKind]string{
	sender.EventDelivered: "sent", sender.EventDeferred: "deferral", sender.EventBounced: "bounced",
	sender.EventSoftBounced: "soft-bounced", sender.EventSpam: "spam", sender.EventExpired: "soft-bounced", sender.EventCancelled: "cancelled", sender.EventDead: "soft-bounced", sender.EventUnsubscribed: "unsub",
	sender.EventRejected: "rejected",
}

func wireMessage(f *store.Found) message {
	m := message{TS: f.ID.Time().Unix(), ID: f.ID.String(), Sender: f.Sender, Subject: f.Subject, Email: f.Recipient.Email,
		Tags: f.Tags, Opens: f.Opens, OpensDetail: []any{}, Clicks: f.Clicks, ClicksDetail: []any{}, State: "queued",
		Metadata: f.Metadata, SMTPEvents: []smtpEvent{}, Resends: []any{}}
	if name, ok := stateNames[f.State]; ok {
		m.State = name
	}
	if m.Tags == nil {
		m.Tags = []string{}
	}
	if m.Metadata == nil {
		m.Metadata = map[string]string{}
	}
	if f.Subaccount != "" {
		m.Subaccount = &f.Subaccount
	}
	if f.Reason != "" {
		m.Reject = &reject{string(f.Reason)}
	}
	if f.Reply.Text != "" {
		m.Diag = diag(f.Reply)
	}
	if f.State == sender.Bounced || f.State == sender.SoftBounced {
		m.Description = "general"
		if strings.HasPrefix(f.Reply.Enhanced, "5.1.") {
			m.Description = "bad_mailbox"
		}
	}
	return m
}

func diag(r sender.Reply) string {
	if r.Code == 0 {
		return strings.TrimSpace(r.Enhanced + " " + r.Text)
	}
	return fmt.Sprintf("smtp; %d %s", r.Code, strings.TrimSpace(r.Enhanced+" "+r.Text))
}

func messageID(body object) (sender.ID, error) {
	text, err := body.text("id")
	if err != nil {
		return sender.ID{}, err
	}
	if text == "" {
		return sender.ID{}, sender.Invalid("id", "You must specify a id value")
	}
	return parseID(text)
}

// parseID reads the id of a message; what cannot be one is an unknown message.
func parseID(text string) (sender.ID, error) {
	id, err := sender.ParseID(text)
	if err != nil {
		return id, unknownMessage(text)
	}
	return id, nil
}

func unknownMessage(id string) error {
	return &sender.Error{Kind: sender.KindUnknownMessage, Field: "id", Message: fmt.Sprintf("No message exists with the id '%.64s'", id)}
}

// info is messages/info.
func (a *API) info(ctx context.Context, c *call) (any, error) {
	id, err := messageID(c.body)
	if err != nil {
		return nil, err
	}
	f, events, err := a.cfg.Store.Info(ctx, c.key.Account, id)
	if err != nil {
		return nil, readError(err, id)
	}
	m := wireMessage(&f)
	for _, e := range events {
		m.SMTPEvents = append(m.SMTPEvents, smtpEvent{TS: e.At.Unix(), Type: eventNames[e.Kind], Diag: diag(e.Reply), DestinationIP: e.Reply.Host})
	}
	return m, nil
}

func readError(err error, id sender.ID) error {
	if errors.Is(err, store.ErrNotFound) {
		return unknownMessage(id.String())
	}
	return storeError(err)
}

type content struct {
	TS          int64             `json:"ts"`
	ID          string            `json:"_id"`
	FromEmail   string            `json:"from_email"`
	FromName    string            `json:"from_name"`
	Subject     string            `json:"subject"`
	To          recipient         `json:"to"`
	Tags        []string          `json:"tags"`
	Headers     map[string]string `json:"headers"`
	Text        string            `json:"text"`
	HTML        string            `json:"html"`
	Attachments []file            `json:"attachments"`
}

type recipient struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

type file struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Content string `json:"content"`
}

// content is messages/content.
func (a *API) content(ctx context.Context, c *call) (any, error) {
	id, err := messageID(c.body)
	if err != nil {
		return nil, err
	}
	f, _, err := a.cfg.Store.Info(ctx, c.key.Account, id)
	if err != nil {
		return nil, readError(err, id)
	}
	m, err := a.cfg.Store.Content(ctx, c.key.Account, f.Submission)
	if err != nil {
		return nil, readError(err, id)
	}
	if m.Hidden { // view_content_link was false
		return nil, unknownMessage(id.String())
	}
	out := content{TS: id.Time().Unix(), ID: id.String(), FromEmail: m.From.Email, FromName: m.From.Name, Subject: m.Subject,
		To: recipient{f.Recipient.Email, f.Recipient.Name}, Tags: append([]string{}, f.Tags...), Headers: map[string]string{},
		Text: m.Text, HTML: m.HTML, Attachments: []file{}}
	for _, h := range m.Headers {
		out.Headers[h.Name] = h.Value
	}
	for _, x := range m.Attachments {
		out.Attachments = append(out.Attachments, file{x.Name, x.Type, base64.StdEncoding.EncodeToString(x.Content)})
	}
	return out, nil
}

const (
	searchDefault = 100
	searchMost    = 1000
	searchWords   = 20
	searchDays    = 7
)

// search is messages/search, on the shard's search rows: the words of the query must all occur in subject,
// recipient or sender.
func (a *API) search(ctx context.Context, c *call) (any, error) {
	q, err := readQuery(c.body, time.Now())
	if err != nil {
		return nil, err
	}
	found, err := a.cfg.Store.Search(ctx, c.key.Account, q)
	if err != nil {
		return nil, storeError(err)
	}
	out := make([]message, len(found))
	for i := range found {
		out[i] = wireMessage(&found[i])
	}
	return out, nil
}

func readQuery(body object, now time.Time) (store.Query, error) {
	r := &reader{}
	var q store.Query
	var text string
	r.text(&text, body, "query")
	if text = strings.TrimSpace(text); text != "" && text != "*" {
		q.Words = strings.Fields(text)
	}
	if len(q.Words) > searchWords || len(text) > 1000 {
		r.keep(sender.Invalid("query", "has more than %d words or 1,000 bytes", searchWords))
	}
	if strings.ContainsRune(text, 0) {
		r.keep(sender.Invalid("query", "has a NUL"))
	}
	var err error
	q.From, err = body.moment("date_from", false)
	r.keep(err)
	q.To, err = body.moment("date_to", true)
	r.keep(err)
	q.Tags, err = body.texts("tags")
	r.keep(err)
	q.Senders, err = body.texts("senders")
	r.keep(err)
	for field, list := range map[string][]string{"tags": q.Tags, "senders": q.Senders} {
		if len(list) > 100 || strings.ContainsRune(strings.Join(list, ""), 0) {
			r.keep(sender.Invalid(field, "has more than 100 entries or a NUL"))
		}
	}
	limit, err := body.number("limit", searchDefault)
	r.keep(err)
	if limit <= 0 { // sent by clients that leave their field unset
		limit = searchDefault
	}
	q.Limit = min(limit, searchMost)
	if q.To.IsZero() {
		q.To = now.Add(time.Hour) // a clock elsewhere may run ahead
	}
	if q.From.IsZero() {
		q.From = q.To.AddDate(0, 0, -searchDays)
	}
	return q, r.err
}

// storeError tells a server that is away from a fault of ours.
func storeError(err error) error {
	if unavailable(err) {
		return sender.Unavailable(err)
	}
	return err
}
