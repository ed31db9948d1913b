package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// route is a call of our own API.
type route struct {
	verb, path string
	method
}

func (a *API) routes() []route {
	send, read := []shards.Scope{shards.ScopeSend}, []shards.Scope{shards.ScopeRead}
	return []route{
		{http.MethodPost, "/v1/messages", method{a.sendMail, send}},
		{http.MethodGet, "/v1/messages/:id", method{a.showMail, read}},
		{http.MethodPost, "/v1/messages/:id/cancel", method{a.cancelMail, nil}},
		{http.MethodPost, "/v1/messages/:id/reschedule", method{a.moveMail, nil}},
	}
}

// ours says that a request is for our own API.
func ours(r *http.Request) bool {
	return r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/")
}

// serveOurs runs one call of our own API. The key stands in the header: who has none sends no body into our memory.
func (a *API) serveOurs(m method) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		secret, err := bearer(r)
		if err != nil {
			return a.fail(c, err)
		}
		key, err := a.authenticate(r.Context(), secret, m)
		if err != nil {
			return a.fail(c, err)
		}
		in, release, err := a.take(r, decodeOurs)
		defer release()
		if err != nil {
			return a.fail(c, err)
		}
		in.key, in.id = key, c.Param("id")
		answer, err := m.do(r.Context(), in)
		if err != nil {
			return a.fail(c, err)
		}
		// 200 also for a send, as Postmark and Resend answer it, though SendGrid says 202: that status promises nothing
		// (RFC 9110 §15.3.3), and by now the messages are durable. Not 201: there may be many, or none if all are rejected.
		return c.JSON(http.StatusOK, answer)
	}
}

// bearer is the key in the Authorization header (RFC 6750 §2.1).
func bearer(r *http.Request) (string, error) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if secret = strings.TrimSpace(secret); !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", &sender.Error{Kind: sender.KindInvalidKey, Message: "the request has no key: send the header Authorization: Bearer KEY"}
	}
	return secret, nil
}

// decodeOurs takes JSON whatever the Content-Type says, and no form. No body is an object without fields.
func decodeOurs(_ string, body []byte) (object, error) {
	if len(body) == 0 {
		return object{}, nil
	}
	return decode("", body)
}

// The fields of POST /v1/messages: those of a message in Mandrill's API by the same names, so that one reader serves
// both, and the two times.
var (
	mailFields = [...]string{"from_email", "from_name", "to", "subject", "html", "text", "headers", "attachments", "images",
		"send_at", "expires_at", "unsubscribe", "tags", "metadata", "recipient_metadata", "subaccount", "important", "bcc_address",
		"preserve_recipients", "auto_text", "auto_html", "view_content_link", "return_path_domain", "signing_domain",
		"track_opens", "track_clicks", "tracking_domain", "url_strip_qs", "google_analytics_domains", "google_analytics_campaign",
		"merge", "merge_language", "merge_vars", "global_merge_vars", "inline_css"}
	mailLists = [...]struct {
		name   string
		fields []string // of each entry
	}{
		{"to", []string{"email", "name", "type"}},
		{"attachments", []string{"type", "name", "content"}},
		{"images", []string{"type", "name", "content"}},
		{"recipient_metadata", []string{"rcpt", "values"}},
	}
)

// readMail reads the body of POST /v1/messages.
func readMail(body object, header http.Header) (*sender.Submission, error) {
	r := &reader{}
	r.keep(body.only(mailFields[:]...))
	for _, list := range mailLists {
		entries, err := body.objects(list.name)
		r.keep(err)
		for _, o := range entries {
			r.keep(o.only(list.fields...))
		}
	}
	s := &sender.Submission{}
	var err error
	s.SendAt, err = body.instant("send_at")
	r.keep(err)
	s.ExpiresAt, err = body.instant("expires_at")
	r.keep(err)
	r.flag(&s.Content.Unsubscribe, body, "unsubscribe")
	r.mail(s, body, header)
	if s.Content.From.Email == "" {
		r.keep(sender.Invalid("from_email", "is needed: the address that the mail comes from"))
	}
	return s, r.err
}

type v1Results struct {
	Messages []v1Result `json:"messages"`
}

// v1Result says what became of one recipient, in the order of the request.
type v1Result struct {
	ID     string              `json:"id"`
	Email  string              `json:"email"`
	Status string              `json:"status"`
	Reason sender.RejectReason `json:"reject_reason,omitempty"`
}

// sendMail is POST /v1/messages.
func (a *API) sendMail(ctx context.Context, c *call) (any, error) {
	sub, err := readMail(c.body, c.header)
	if err != nil {
		return nil, err
	}
	results, err := a.submit(ctx, c, sub)
	if err != nil {
		return nil, err
	}
	out := v1Results{Messages: make([]v1Result, len(results))}
	for i, r := range results {
		status := r.Status
		if status == accept.Sent { // Mandrill's word for what is only begun
			status = accept.Queued
		}
		out.Messages[i] = v1Result{r.ID, r.Email, string(status), r.Reason}
	}
	return out, nil
}

// v1Scheduled is a message whose schedule was changed.
type v1Scheduled struct {
	ID      string    `json:"id"`
	State   string    `json:"state"`
	Email   string    `json:"email"`
	From    string    `json:"from_email"`
	Subject string    `json:"subject"`
	SendAt  time.Time `json:"send_at"`
}

func v1View(m store.Scheduled, s sender.State) v1Scheduled {
	return v1Scheduled{m.ID.String(), s.Name(), m.Email, m.Sender, m.Subject, m.SendAt.UTC()}
}

// cancelMail is POST /v1/messages/{id}/cancel: the message is never sent.
func (a *API) cancelMail(ctx context.Context, c *call) (any, error) {
	id, err := parseID(c.id)
	if err != nil {
		return nil, err
	}
	if err := c.body.only(); err != nil {
		return nil, err
	}
	m, err := a.cfg.Door.Cancel(c.key.Account, id)
	if err != nil {
		return nil, a.tooLate(ctx, c, id, err)
	}
	return v1View(m, sender.Cancelled), nil
}

// moveMail is POST /v1/messages/{id}/reschedule; a time in the past means now.
func (a *API) moveMail(ctx context.Context, c *call) (any, error) {
	id, err := parseID(c.id)
	if err != nil {
		return nil, err
	}
	if err := c.body.only("send_at"); err != nil {
		return nil, err
	}
	at, err := c.body.instant("send_at")
	if err != nil {
		return nil, err
	}
	m, err := a.move(ctx, c.key.Account, id, at)
	if err != nil {
		return nil, a.tooLate(ctx, c, id, err)
	}
	return v1View(m, sender.Scheduled), nil
}

// tooLate tells a message that is not scheduled any more from one that there never was.
func (a *API) tooLate(ctx context.Context, c *call, id sender.ID, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return storeError(err)
	}
	f, _, err := a.cfg.Store.Info(ctx, c.key.Account, id)
	if err != nil {
		return readError(err, id)
	}
	return &sender.Error{Kind: sender.KindConflict, Message: "the message is not scheduled any more: its state is " + f.State.Name()}
}
