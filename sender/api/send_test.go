package api

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
)

func read(t *testing.T, message string) (*sender.Submission, error) {
	t.Helper()
	return readSubmission(mustDecode(t, "", `{"key":"k","message":`+message+`}`), nil)
}

func TestReadSubmission(t *testing.T) {
	s, err := read(t, `{"from_email":"f@x.y","from_name":"F","subject":"s","html":"<p>","text":"t","bcc_address":"b@x.y","return_path_domain":"r.x.y",
		"auto_text":1,"auto_html":"true","preserve_recipients":true,"view_content_link":false,"important":true,
		"headers":{"X-B":["1",2],"X-A":"a","X-N":null},"tags":["one"],"metadata":{"n":1},
		"to":[{"email":"a@x.y","name":"A"},{"email":"c@x.y","type":"cc"},{"email":"b@x.y","type":"bcc"},{"email":"bad","type":"to"}],
		"recipient_metadata":[{"rcpt":"a@x.y","values":{"id":7}}],
		"attachments":[{"type":"a/b","name":"f","content":"aGk="}],"images":[{"type":"image/png","name":"i","content":""}],
		"global_merge_vars":[],"merge_vars":{},"merge":false,"merge_language":"handlebars","track_opens":true,"google_analytics_domains":[],"google_analytics_campaign":["x"]}`)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Content
	want := sender.Content{From: sender.Address{Email: "f@x.y", Name: "F"}, Subject: "s", HTML: "<p>", Text: "t", AutoText: true, AutoHTML: true,
		Headers:     []sender.Header{{Name: "X-A", Value: "a"}, {Name: "X-B", Value: "1"}, {Name: "X-B", Value: "2"}},
		Attachments: []sender.Attachment{{Type: "a/b", Name: "f", Content: []byte("hi")}}, Images: []sender.Attachment{{Type: "image/png", Name: "i", Content: []byte{}}},
		PreserveRecipients: true, BccAddress: "b@x.y", ReturnPathDomain: "r.x.y", Hidden: true,
		Recipients: []sender.Recipient{{Address: sender.Address{Email: "a@x.y", Name: "A"}}, {Address: sender.Address{Email: "c@x.y"}, Kind: sender.Cc}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("content %+v", c)
	}
	if len(s.Recipients) != 4 || s.Recipients[2].Kind != sender.Bcc || s.Recipients[0].Metadata["id"] != "7" || s.Metadata["n"] != "1" || !s.Important || s.Async {
		t.Errorf("submission %+v", s)
	}
}

func TestReadSubmissionDefaults(t *testing.T) {
	s, err := read(t, `{}`)
	if err != nil || !reflect.DeepEqual(*s, sender.Submission{Tags: []string{}}) {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestErrorPaths has every error name the field as the caller wrote it.
func TestErrorPaths(t *testing.T) {
	for message, path := range map[string]string{
		`7`: "message", `"x"`: "message", `[1]`: "message",
		`{"from_email":[]}`: "message.from_email", `{"html":{}}`: "message.html", `{"auto_text":"x"}`: "message.auto_text",
		`{"to":"a@x.y"}`: "message.to", `{"to":["a@x.y"]}`: "message.to[0]", `{"to":[{"email":"a@x.y"},{"email":[]}]}`: "message.to[1].email",
		`{"to":[{"type":"all"}]}`: "message.to[0].type", `{"to":[{"email":"a","name":{}}]}`: "message.to[0].name",
		`{"headers":"x"}`: "message.headers", `{"headers":{"X":{}}}`: "message.headers.X", `{"headers":{"X":[[]]}}`: "message.headers.X",
		`{"tags":[1,{}]}`: "message.tags[1]", `{"metadata":{"a":[]}}`: "message.metadata.a", `{"recipient_metadata":[{"values":{"a":{}}}]}`: "message.recipient_metadata[0].values.a",
		`{"attachments":[{"content":"!"}]}`: "message.attachments[0].content", `{"images":[{},{"type":[]}]}`: "message.images[1].type",
		`{"merge_language":"jinja"}`: "message.merge_language", `{"merge_vars":[{}]}`: "message.merge_vars", `{"merge":true}`: "message.merge",
		`{"inline_css":true}`: "message.inline_css", `{"google_analytics_domains":["x.y"]}`: "message.google_analytics_domains", `{"tracking_domain":{}}`: "message.tracking_domain",
	} {
		_, err := read(t, message)
		wrong(t, err, path)
	}
	for body, path := range map[string]string{`{}`: "message", `{"message":{},"async":"x"}`: "async", `{"message":{},"send_at":"x"}`: "send_at",
		`{"message":{},"send_at":"2026-03-29 02:30:00 CEST"}`: "send_at", `{"message":{},"ip_pool":{}}`: "ip_pool"} {
		_, err := readSubmission(mustDecode(t, "", body), nil)
		wrong(t, err, path)
	}
	if _, err := readSubmission(mustDecode(t, "", `{"message":{},"send_at":"2001-01-01 00:00:00"}`), nil); err != nil {
		t.Errorf("a time in the past is now: %v", err)
	}
}

// TestExpiry has the request's header and the mail's say when the mail expires, and refuses them when they differ.
func TestExpiry(t *testing.T) {
	const moment, other = "2026-01-31T12:00:00Z", "2026-01-31 12:00:01"
	for _, c := range []struct {
		request []string
		headers string
		field   string // at fault, if any
		expires bool
	}{
		{nil, `{}`, "", false}, {[]string{""}, `{"X-Postrider-Expires-At":""}`, "", false}, {nil, `{"X-Postrider-Expires-At":null}`, "", false},
		{[]string{moment}, `{}`, "", true}, {[]string{"1769860800"}, `{}`, "", true}, {nil, `{"x-postrider-EXPIRES-at":"` + moment + `"}`, "", true},
		{nil, `{"X-Postrider-Expires-At":1769860800}`, "", true}, {[]string{moment, moment}, `{"X-Postrider-Expires-At":["2026-01-31 12:00:00"]}`, "", true},
		{[]string{other}, `{"X-Postrider-Expires-At":"` + moment + `"}`, expiresHeader, true}, {[]string{moment, other}, `{}`, expiresHeader, true},
		{nil, `{"X-Postrider-Expires-At":["` + moment + `","` + other + `"]}`, "message.headers.X-Postrider-Expires-At", true},
		{[]string{"soon"}, `{}`, expiresHeader, false}, {nil, `{"X-Postrider-Expires-At":"soon"}`, "message.headers.X-Postrider-Expires-At", false},
	} {
		s, err := readSubmission(mustDecode(t, "", `{"message":{"headers":`+c.headers+`}}`), http.Header{expiresHeader: c.request})
		if c.field != "" {
			wrong(t, err, c.field)
		} else if err != nil || s.ExpiresAt.Equal(testTime) != c.expires || s.ExpiresAt.IsZero() == c.expires || len(s.Content.Headers) != 0 {
			t.Errorf("%v and %s: %v, headers %v, %v", c.request, c.headers, s.ExpiresAt, s.Content.Headers, err)
		}
	}
	s, err := read(t, `{"headers":{"X-Postrider-Expires-At":"`+moment+`","X-Other":"o"}}`)
	if want := []sender.Header{{Name: "X-Other", Value: "o"}}; err != nil || !reflect.DeepEqual(s.Content.Headers, want) {
		t.Errorf("other headers: %+v, %v", s, err)
	}
}

func TestUnknownSubaccount(t *testing.T) {
	if _, err := read(t, `{"subaccount":"x"}`); kind(err) != sender.KindUnknownSubaccount {
		t.Error(err)
	}
}

func TestManyRecipientsAndTags(t *testing.T) {
	to := func(n int) string { return `{"to":[` + strings.Repeat(`{},`, n-1) + `{}]}` }
	if s, err := read(t, to(accept.MaxRecipients)); err != nil || len(s.Recipients) != accept.MaxRecipients {
		t.Error(err)
	}
	_, err := read(t, to(accept.MaxRecipients+1))
	wrong(t, err, "message.to")
	s, err := read(t, `{"tags":["`+strings.Repeat(`t","`, accept.MaxTags)+`last"]}`)
	if err != nil || len(s.Tags) != accept.MaxTags {
		t.Errorf("%d tags, %v", len(s.Tags), err)
	}
}

func TestInMessage(t *testing.T) {
	for field, want := range map[string]string{"to[0].email": "message.to[0].email", "Idempotency-Key": "Idempotency-Key", "expires_at": expiresHeader, "send_at": "send_at", "": ""} {
		var e *sender.Error
		if err := inMessage(fmt.Errorf("refused: %w", sender.Invalid(field, "bad"))); !errors.As(err, &e) || e.Field != want {
			t.Errorf("%q becomes %v", field, err)
		}
	}
	away := sender.Unavailable(nil)
	if err := inMessage(away); !errors.Is(err, away) {
		t.Errorf("another kind becomes %v", err)
	}
}

func TestWireResult(t *testing.T) {
	full := wireResult(accept.Result{Email: "a@x.y", Status: accept.Rejected, Reason: sender.ReasonSpam, ID: "1"})
	if full.Status != "rejected" || full.RejectReason == nil || *full.RejectReason != "spam" || full.QueuedReason != nil {
		t.Errorf("%+v", full)
	}
	queued := wireResult(accept.Result{Status: accept.Queued, QueuedReason: "multiple-recipients"})
	if queued.RejectReason != nil || queued.QueuedReason == nil || *queued.QueuedReason != "multiple-recipients" {
		t.Errorf("%+v", queued)
	}
}
