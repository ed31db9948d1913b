package accept

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// valid is a submission that uses every field.
func valid() *sender.Submission {
	return &sender.Submission{
		Content: sender.Content{From: sender.Address{Email: "from@example.com", Name: "From"}, Subject: "Subject", HTML: "<p>", Text: "text",
			Headers: []sender.Header{{Name: "X-One", Value: "1"}}, BccAddress: "copy@example.com",
			Attachments: []sender.Attachment{{Type: "text/plain", Name: "a.txt", Content: []byte{0}}},
			Images:      []sender.Attachment{{Type: "image/png", Name: "logo", Content: []byte{1}}}},
		Recipients: []sender.Recipient{{Address: sender.Address{Email: "a@example.net", Name: "A"}, Metadata: map[string]string{"id": "1"}}},
		Tags:       []string{"welcome"}, Metadata: map[string]string{"order": "42"}, IdempotencyKey: "key",
	}
}

// headerLike are the fields that end up in one line of a header or a command.
func headerLike() map[string]func(*sender.Submission, string) {
	return map[string]func(*sender.Submission, string){
		"to[0].email":         func(s *sender.Submission, v string) { s.Recipients[0].Email = v },
		"to[0].name":          func(s *sender.Submission, v string) { s.Recipients[0].Name = v },
		"from_email":          func(s *sender.Submission, v string) { s.Content.From.Email = v },
		"from_name":           func(s *sender.Submission, v string) { s.Content.From.Name = v },
		"bcc_address":         func(s *sender.Submission, v string) { s.Content.BccAddress = v },
		"subject":             func(s *sender.Submission, v string) { s.Content.Subject = v },
		"headers":             func(s *sender.Submission, v string) { s.Content.Headers[0].Name = v },
		"headers.X-One":       func(s *sender.Submission, v string) { s.Content.Headers[0].Value = v },
		"attachments[0].name": func(s *sender.Submission, v string) { s.Content.Attachments[0].Name = v },
		"attachments[0].type": func(s *sender.Submission, v string) { s.Content.Attachments[0].Type = v },
		"images[0].name":      func(s *sender.Submission, v string) { s.Content.Images[0].Name = v },
		"images[0].type":      func(s *sender.Submission, v string) { s.Content.Images[0].Type = v },
		"tags[0]":             func(s *sender.Submission, v string) { s.Tags[0] = v },
		"Idempotency-Key":     func(s *sender.Submission, v string) { s.IdempotencyKey = v },
	}
}

// TestInjection puts what could begin another header line anywhere into every header-like field: it is refused, and
// the answer names the field.
func TestInjection(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	for field, set := range headerLike() {
		for range 200 {
			text := letters(random, 1+random.IntN(30))
			bad := []string{"\r", "\n", "\r\n", "\x00", "\xff", "\xc3", "\xed\xa0\x80", "\r\nBcc: x@y.z\r\n"}[random.IntN(8)]
			at := random.IntN(len(text) + 1)
			s := valid()
			set(s, text[:at]+bad+text[at:])
			refused(t, s, field)
		}
	}
}

// TestOddButValid has what is no injection pass: it is the composer's to encode.
func TestOddButValid(t *testing.T) {
	s := valid()
	if err := check(s); err != nil {
		t.Fatal(err)
	}
	odd := "\t\x01\"<>@,;:\\=?UTF-8?Q?=0D=0A?= Grüße 你好 🚀\u2028"
	s.Recipients[0].Name, s.Content.From.Name, s.Content.Subject, s.Content.Headers[0].Value = odd, odd, odd, odd
	s.Content.Attachments[0].Name, s.Content.Images[0].Name = odd, odd
	s.Content.Text, s.Content.HTML = "a\r\nb\x00", "<p>\r\n.\r\n"
	s.Recipients = append(s.Recipients, sender.Recipient{Address: sender.Address{Email: "no address"}}) // answered invalid, not refused
	if err := check(s); err != nil {
		t.Error(err)
	}
}

func letters(random *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte("abcdefghijklmnopqrstuvwxyz0123456789-"[random.IntN(37)])
	}
	return b.String()
}

func refused(t *testing.T, s *sender.Submission, field string) {
	t.Helper()
	err := check(s)
	var e *sender.Error
	if !errors.As(err, &e) || e.Kind != sender.KindValidation || e.Field != field || e.Message == "" {
		t.Errorf("%s: %v, want a validation error that names it", field, err)
	}
}

type limit struct {
	field string
	most  int
	set   func(*sender.Submission, int) // makes it n long
}

func limits() []limit {
	x := func(n int) string { return strings.Repeat("x", n) }
	file := sender.Attachment{Type: "text/plain", Name: "f"}
	return []limit{
		{"to", MaxRecipients, func(s *sender.Submission, n int) { s.Recipients = many(n, s.Recipients[0]) }},
		{"attachments", MaxBytes, func(s *sender.Submission, n int) {
			s.Content.Text, s.Content.HTML, s.Content.Images[0].Content = x(10), x(20), make([]byte, 30)
			s.Content.Attachments[0].Content = make([]byte, n-60)
		}},
		{"attachments", MaxBytes, func(s *sender.Submission, n int) {
			s.Content.Attachments, s.Content.Images, s.Content.Text, s.Content.HTML = nil, nil, x(n/2), x(n-n/2)
		}},
		{"attachments", MaxFiles, func(s *sender.Submission, n int) { s.Content.Attachments = many(n-1, file) }}, // and one image
		{"subject", MaxSubject, func(s *sender.Submission, n int) { s.Content.Subject = x(n) }},
		{"from_name", MaxName, func(s *sender.Submission, n int) { s.Content.From.Name = x(n) }},
		{"to[0].name", MaxName, func(s *sender.Submission, n int) { s.Recipients[0].Name = x(n) }},
		{"headers", MaxHeaders, func(s *sender.Submission, n int) { s.Content.Headers = many(n, s.Content.Headers[0]) }},
		{"headers.X-One", MaxHeaderValue, func(s *sender.Submission, n int) { s.Content.Headers[0].Value = x(n) }},
		{"headers", 76, func(s *sender.Submission, n int) { s.Content.Headers[0].Name = x(n) }},
		{"tags[0]", MaxTag, func(s *sender.Submission, n int) { s.Tags[0] = strings.Repeat("🚀", n) }}, // characters, not bytes
		{"metadata", MaxMetadata, func(s *sender.Submission, n int) {
			s.Metadata, s.Recipients[0].Metadata = map[string]string{"k": x(n - 1)}, nil
		}},
		{"recipient_metadata[0]", MaxMetadata, func(s *sender.Submission, n int) { // together with the common metadata
			s.Metadata, s.Recipients[0].Metadata = map[string]string{"k": x(99)}, map[string]string{x(n - 100): ""}
		}},
		{"tags", MaxTags, func(s *sender.Submission, n int) { s.Tags = many(n, "a") }},
		{"subaccount", MaxName, func(s *sender.Submission, n int) { s.Subaccount = x(n) }},
		{"attachments[0].name", MaxFileName, func(s *sender.Submission, n int) { s.Content.Attachments[0].Name = x(n) }},
		{"images[0].name", MaxFileName, func(s *sender.Submission, n int) { s.Content.Images[0].Name = x(n) }},
		{"Idempotency-Key", MaxKey, func(s *sender.Submission, n int) { s.IdempotencyKey = x(n) }},
	}
}

func many[T any](n int, one T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = one
	}
	return out
}

func TestLimits(t *testing.T) {
	for i, l := range limits() {
		t.Run(fmt.Sprint(i, " ", l.field), func(t *testing.T) {
			s := valid()
			l.set(s, l.most)
			if err := check(s); err != nil {
				t.Errorf("at the limit of %d: %v", l.most, err)
			}
			s = valid()
			l.set(s, l.most+1)
			refused(t, s, l.field)
		})
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		field string
		spoil func(*sender.Submission)
	}{
		"nobody":              {"to", func(s *sender.Submission) { s.Recipients = nil }},
		"bad sender":          {"from_email", func(s *sender.Submission) { s.Content.From.Email = "from" }},
		"bad copy":            {"bcc_address", func(s *sender.Submission) { s.Content.BccAddress = "a@[::1]" }},
		"text not UTF-8":      {"text", func(s *sender.Submission) { s.Content.Text = "\xff" }},
		"html not UTF-8":      {"html", func(s *sender.Submission) { s.Content.HTML = "\xc3" }},
		"nameless header":     {"headers", func(s *sender.Submission) { s.Content.Headers[0].Name = "" }},
		"header with a colon": {"headers", func(s *sender.Submission) { s.Content.Headers[0].Name = "X:Y" }},
		"header with a space": {"headers", func(s *sender.Submission) { s.Content.Headers[0].Name = "X Y" }},
		"header beyond ASCII": {"headers", func(s *sender.Submission) { s.Content.Headers[0].Name = "Ü" }},
		"second header": {"headers.X-Two", func(s *sender.Submission) {
			s.Content.Headers = append(s.Content.Headers, sender.Header{Name: "X-Two", Value: "\n"})
		}},
		"image of no image": {"images[0].type", func(s *sender.Submission) { s.Content.Images[0].Type = "text/html" }},
		"loop": {"headers", func(s *sender.Submission) {
			s.Content.Headers = nil
			for range 50 {
				s.Content.Headers = append(s.Content.Headers, sender.Header{Name: "received", Value: "from a by b"})
			}
		}},
		"reserved tag":         {"tags[0]", func(s *sender.Submission) { s.Tags[0] = "_internal" }},
		"tag with a separator": {"tags[0]", func(s *sender.Submission) { s.Tags[0] = "a\x1fb" }},
		"second tag":           {"tags[1]", func(s *sender.Submission) { s.Tags = append(s.Tags, "\n") }},
		"metadata with NUL":    {"metadata", func(s *sender.Submission) { s.Metadata["k"] = "\x00" }},
		"metadata key":         {"metadata", func(s *sender.Submission) { s.Metadata["\xff"] = "" }},
		"own metadata":         {"recipient_metadata[0]", func(s *sender.Submission) { s.Recipients[0].Metadata["k"] = "\xff" }},
	} {
		t.Run(name, func(t *testing.T) {
			s := valid()
			c.spoil(s)
			refused(t, s, c.field)
		})
	}
}

func TestMetadataMerged(t *testing.T) {
	for _, c := range []struct {
		all, own map[string]string
		want     string
	}{
		{nil, nil, ""}, {map[string]string{"a": "1"}, nil, `{"a":"1"}`}, {nil, map[string]string{"a": "1"}, `{"a":"1"}`},
		{map[string]string{"a": "1", "b": "2"}, map[string]string{"b": "3", "c": "\"é"}, `{"a":"1","b":"3","c":"\"é"}`},
	} {
		if got, err := metadata(c.all, c.own); err != nil || got != c.want {
			t.Errorf("%v and %v: %s, %v", c.all, c.own, got, err)
		}
	}
}

func TestReturnPathDomain(t *testing.T) {
	for _, bad := range []string{"x y", "x.y>", "x", "[127.0.0.1]", "x..y", "-x.y"} {
		s := valid()
		s.Content.ReturnPathDomain = bad
		refused(t, s, "return_path_domain")
	}
}

func TestSendAt(t *testing.T) {
	s := valid()
	s.SendAt = time.Now().Add(MaxAhead + time.Minute)
	refused(t, s, "send_at")
	for _, at := range []time.Time{time.Now().Add(MaxAhead - time.Minute), time.Now().Add(-time.Hour), {}} {
		s = valid()
		s.SendAt = at
		if err := check(s); err != nil || s.SendAt.IsZero() == at.After(time.Now()) {
			t.Errorf("%v: %v, kept as %v", at, err, s.SendAt)
		}
	}
}
