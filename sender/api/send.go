package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
)

// sendResult is Mandrill's answer for one recipient.
type sendResult struct {
	Email        string  `json:"email"`
	Status       string  `json:"status"`
	RejectReason *string `json:"reject_reason"`
	QueuedReason *string `json:"queued_reason"`
	ID           string  `json:"_id"`
}

// send is messages/send.
func (a *API) send(ctx context.Context, c *call) (any, error) {
	sub, err := readSubmission(c.body, c.header)
	if err != nil {
		return nil, err
	}
	results, err := a.submit(ctx, c, sub)
	if err != nil {
		return nil, inMessage(err)
	}
	out := make([]sendResult, len(results))
	for i, r := range results {
		out[i] = wireResult(r)
	}
	return out, nil
}

// submit brings what either API has read to the door.
func (a *API) submit(ctx context.Context, c *call, sub *sender.Submission) ([]accept.Result, error) {
	sub.Account = c.key.Account
	if sub.IdempotencyKey = c.header.Get("Idempotency-Key"); sub.IdempotencyKey != "" {
		request := sha256.New()
		_, _ = request.Write(c.raw)
		_, _ = io.WriteString(request, c.header.Get(expiresHeader)) // part of what is asked for, though not of the body
		request.Sum(sub.Digest[:0])
	}
	return a.cfg.Door.Accept(ctx, sub)
}

func wireResult(r accept.Result) sendResult {
	out := sendResult{Email: r.Email, Status: string(r.Status), ID: r.ID}
	if r.Reason != "" {
		why := string(r.Reason)
		out.RejectReason = &why
	}
	if r.QueuedReason != "" {
		out.QueuedReason = &r.QueuedReason
	}
	return out
}

// inMessage names the field of an error of the door as it is called in Mandrill's API, where most stand in "message".
func inMessage(err error) error {
	var e *sender.Error
	if !errors.As(err, &e) || e.Kind != sender.KindValidation {
		return err
	}
	named := *e
	switch e.Field {
	case "", "Idempotency-Key", "send_at", "ip_pool":
		return err
	case "expires_at":
		named.Field = expiresHeader
	default:
		named.Field = "message." + e.Field
	}
	return &named
}

// readSubmission reads the call's fields; what their values may be is the door's to say.
func readSubmission(body object, header http.Header) (*sender.Submission, error) {
	if _, ok := body.fields["message"]; !ok {
		return nil, sender.Invalid("message", "You must specify a message value")
	}
	m, err := body.object("message")
	if err != nil {
		return nil, err
	}
	s := &sender.Submission{}
	r := &reader{}
	r.flag(&s.Async, body, "async")
	r.text(&s.Content.Pool, body, "ip_pool")
	s.SendAt, err = body.moment("send_at", false)
	r.keep(err)
	r.mail(s, m, header)
	s.Tags = s.Tags[:min(len(s.Tags), accept.MaxTags)] // Mandrill stores the first 100 that it sees
	return s, r.err
}

// reader reads field after field and keeps the first error.
type reader struct{ err error }

func (r *reader) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

// mail reads what the two APIs call by the same names: the fields of a message, and the request's own header.
func (r *reader) mail(s *sender.Submission, m object, header http.Header) {
	r.content(&s.Content, m)
	r.labels(s, m)
	r.recipients(s, m)
	r.later(m)
	r.headers(s, m)
	for _, value := range header.Values(expiresHeader) {
		r.expires(s, expiresHeader, value)
	}
}

// When a mail expires may be said in the header of a request, and in that of the mail itself, which is the one place
// that a client behind a mail library or SMTP can reach.
const (
	expiresHeader     = "Postrider-Expires-At"
	mailExpiresHeader = "X-Postrider-Expires-At"
	// A mailing asks for a link to unsubscribe with it.
	mailUnsubscribeHeader = "X-Postrider-Unsubscribe"
)

// expires reads one place that says when the mail expires. Places that differ are refused: none is more right.
func (r *reader) expires(s *sender.Submission, field, value string) {
	at, err := instant(field, value)
	r.keep(err)
	switch {
	case at.IsZero() || at.Equal(s.ExpiresAt):
	case s.ExpiresAt.IsZero():
		s.ExpiresAt = at
	default:
		r.keep(sender.Invalid(field, "is %s, but elsewhere the request says %s: say it once", at.Format(time.RFC3339), s.ExpiresAt.Format(time.RFC3339)))
	}
}

func (r *reader) text(into *string, o object, name string) {
	s, err := o.text(name)
	*into = s
	r.keep(err)
}

func (r *reader) flag(into *bool, o object, name string) { r.keep(o.flag(name, into)) }

// ignore checks the type of a field whose value changes nothing in the mail.
func (r *reader) ignore(o object, names ...string) {
	for _, n := range names {
		_, err := o.text(n)
		r.keep(err)
	}
}

func (r *reader) content(c *sender.Content, m object) {
	r.text(&c.From.Email, m, "from_email")
	r.text(&c.From.Name, m, "from_name")
	r.text(&c.Subject, m, "subject")
	r.text(&c.HTML, m, "html")
	r.text(&c.Text, m, "text")
	r.text(&c.BccAddress, m, "bcc_address")
	r.text(&c.ReturnPathDomain, m, "return_path_domain")
	r.flag(&c.AutoText, m, "auto_text")
	r.flag(&c.AutoHTML, m, "auto_html")
	r.flag(&c.PreserveRecipients, m, "preserve_recipients")
	shown := true
	r.flag(&shown, m, "view_content_link")
	c.Hidden = !shown
	c.Attachments = r.files(m, "attachments")
	c.Images = r.files(m, "images")
}

// headers reads the mail's extra header fields, and takes out what is said to us.
func (r *reader) headers(s *sender.Submission, m object) {
	h, err := m.object("headers")
	r.keep(err)
	for _, name := range h.names() {
		v := h.fields[name]
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, one := range list {
			value, err := text(h.at(name), one)
			r.keep(err)
			switch {
			case strings.EqualFold(name, mailExpiresHeader):
				r.expires(s, h.at(name), value)
			case strings.EqualFold(name, mailUnsubscribeHeader):
				r.keep(h.flag(name, &s.Content.Unsubscribe))
			case one != nil:
				s.Content.Headers = append(s.Content.Headers, sender.Header{Name: name, Value: value})
			}
		}
	}
}

func (r *reader) files(m object, name string) []sender.Attachment {
	list, err := m.objects(name)
	r.keep(err)
	var out []sender.Attachment
	for _, o := range list {
		var f sender.Attachment
		r.text(&f.Type, o, "type")
		r.text(&f.Name, o, "name")
		f.Content, err = o.base64("content")
		r.keep(err)
		out = append(out, f)
	}
	return out
}

// labels reads what the account sees again in searches and events.
func (r *reader) labels(s *sender.Submission, m object) {
	var err error
	s.Tags, err = m.texts("tags")
	r.keep(err)
	s.Metadata, err = m.flat("metadata")
	r.keep(err)
	r.flag(&s.Important, m, "important")
	r.text(&s.Subaccount, m, "subaccount")
	if s.Subaccount != "" {
		r.keep(&sender.Error{Kind: sender.KindUnknownSubaccount, Field: m.at("subaccount"),
			Message: fmt.Sprintf("No subaccount exists with the id '%.100s'", s.Subaccount)})
	}
}

func (r *reader) recipients(s *sender.Submission, m object) {
	list, err := m.objects("to")
	r.keep(err)
	if err == nil && len(list) > accept.MaxRecipients {
		r.keep(sender.Invalid(m.at("to"), "%d recipients are more than the %d that one call may have", len(list), accept.MaxRecipients))
		return
	}
	own := r.ownMetadata(m)
	for _, o := range list {
		var to sender.Recipient
		var kind string
		r.text(&to.Email, o, "email")
		r.text(&to.Name, o, "name")
		r.text(&kind, o, "type")
		switch kind {
		case "", "to":
		case "cc":
			to.Kind = sender.Cc
		case "bcc":
			to.Kind = sender.Bcc
		default:
			r.keep(sender.Invalid(o.at("type"), "must be to, cc or bcc"))
		}
		to.Metadata = own[to.Email]
		s.Recipients = append(s.Recipients, to)
	}
	if s.Content.PreserveRecipients {
		for _, to := range s.Recipients {
			if to.Kind != sender.Bcc && sender.CheckEmail(to.Email) == nil {
				s.Content.Recipients = append(s.Content.Recipients, sender.Recipient{Address: to.Address, Kind: to.Kind})
			}
		}
	}
}

func (r *reader) ownMetadata(m object) map[string]map[string]string {
	list, err := m.objects("recipient_metadata")
	r.keep(err)
	out := map[string]map[string]string{}
	for _, o := range list {
		var rcpt string
		r.text(&rcpt, o, "rcpt")
		values, err := o.flat("values")
		r.keep(err)
		out[rcpt] = values
	}
	return out
}

// later holds the fields of features that are not there yet: refused where ignoring them would send a wrong
// mail, checked for their type where it would not.
func (r *reader) later(m object) {
	for field, feature := range map[string]string{"merge_vars": "merge tags", "global_merge_vars": "merge tags"} {
		list, err := m.objects(field)
		r.keep(err)
		if len(list) > 0 {
			r.keep(notYet(m.at(field), feature))
		}
	}
	for field, feature := range map[string]string{"merge": "merge tags", "inline_css": "inlining of style sheets"} {
		var on bool
		if r.flag(&on, m, field); on {
			r.keep(notYet(m.at(field), feature))
		}
	}
	domains, err := m.texts("google_analytics_domains")
	r.keep(err)
	if len(domains) > 0 {
		r.keep(notYet(m.at("google_analytics_domains"), "tagging of links"))
	}
	var language string
	if r.text(&language, m, "merge_language"); language != "" && language != "mailchimp" && language != "handlebars" {
		r.keep(sender.Invalid(m.at("merge_language"), "must be mailchimp or handlebars"))
	}
	r.ignore(m, "tracking_domain", "signing_domain")
	var ignored bool
	for _, name := range []string{"track_opens", "track_clicks", "url_strip_qs"} {
		r.flag(&ignored, m, name)
	}
	if campaign, ok := m.fields["google_analytics_campaign"].([]any); !ok || len(campaign) > 1 {
		r.ignore(m, "google_analytics_campaign")
	}
}

func notYet(field, feature string) error {
	return sender.Invalid(field, "%s are not supported by this version, and without them the mail would be wrong: leave the field out", feature)
}
