package compose

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// testID was made on 2026-03-01 at 12:00:00 UTC.
var testID = sender.ID{0x01, 0x9c, 0xa9, 0x45, 0x0a, 0x00, 0x7a, 0xbc, 0x8d, 0xef, 1, 2, 3, 4, 5, 6}

func mailOf(c sender.Content) Mail {
	if c.From.Email == "" {
		c.From.Email = "shop@example.com"
	}
	r := sender.Recipient{Address: sender.Address{Email: "ann@example.org"}}
	return Mail{Content: &c, Message: &sender.Message{ID: testID, Recipient: r}, MessageIDDomain: "example.com"}
}

func mustMessage(t testing.TB, m Mail) []byte {
	t.Helper()
	b, err := Message(m)
	if err != nil {
		t.Fatal(err)
	}
	checkWire(t, b)
	return b
}

// checkWire holds a mail against what any host may demand of its bytes.
func checkWire(t testing.TB, b []byte) {
	t.Helper()
	if !bytes.HasSuffix(b, []byte(lineEnd)) {
		t.Fatal("the last line has no end")
	}
	body := false
	for i, line := range bytes.Split(b, []byte(lineEnd)) {
		if len(line) > 998 {
			t.Fatalf("line %d has %d bytes", i, len(line))
		}
		if bytes.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("line %d holds a bare CR, LF or NUL: %q", i, line)
		}
		if !body && len(line) > 0 && strings.TrimSpace(string(line)) == "" {
			t.Fatalf("line %d of the header is blanks only", i)
		}
		body = body || len(line) == 0
		if body && !ascii(string(line)) {
			t.Fatalf("line %d of the body is not ASCII: %q", i, line)
		}
	}
}

// headerOf is the header of a mail with the folds undone.
func headerOf(b []byte) string {
	h, _, _ := strings.Cut(string(b), "\r\n\r\n")
	return strings.ReplaceAll(h, "\r\n ", " ") + "\r\n"
}

func TestGolden(t *testing.T) {
	for name, m := range map[string]Mail{
		"text": mailOf(sender.Content{From: sender.Address{Email: "shop@example.com", Name: "The Shop"}, Subject: "Your receipt", Text: "Hello,\nthank you.\n"}),
		"full": mailOf(sender.Content{
			From:        sender.Address{Email: "shop@example.com", Name: "Café Zoë"},
			Subject:     "Grüße: the quick brown fox jumps over the lazy dog and keeps on running",
			Text:        "Grüße\n.\nFrom here",
			HTML:        "<p>Grüße <img src=\"cid:logo\"></p>",
			Headers:     []sender.Header{{Name: "Reply-To", Value: "Zoë <zoe@example.com>"}, {Name: "X-Order", Value: "17"}},
			Images:      []sender.Attachment{{Type: "image/png", Name: "logo", Content: []byte("\x89PNG")}},
			Attachments: []sender.Attachment{{Type: "application/pdf", Name: "Rechnung März.pdf", Content: bytes.Repeat([]byte("%PDF"), 40)}},
		}),
		"identity": {Content: &sender.Content{From: sender.Address{Email: "shop@example.com"}, Subject: "Your receipt", Text: "Hello\n"},
			Message:     &sender.Message{ID: testID, Account: 17, Recipient: sender.Recipient{Address: sender.Address{Email: "ann@example.org"}}},
			SendAt:      testID.Time().Add(24 * time.Hour),
			Unsubscribe: Unsubscribe{URL: testLink, Mailto: "mailto:u.1@bounces.example.com?subject=unsubscribe"},
			Feedback:    Feedback{"receipts", "transactional", "postrider"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := mustMessage(t, m)
			path := filepath.Join("testdata", name+".eml")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestSameInputSameBytes(t *testing.T) {
	m := mailOf(sender.Content{Subject: "é", Text: "a", HTML: "<p>é", Attachments: []sender.Attachment{{Content: []byte("x")}}})
	first := mustMessage(t, m)
	for range 20 {
		m.Message.Attempt++ // a second attempt sends what the first did
		if !bytes.Equal(first, mustMessage(t, m)) {
			t.Fatal("the bytes changed")
		}
	}
	m.Message.ID[15]++
	if bytes.Equal(first, mustMessage(t, m)) {
		t.Fatal("another message has the same bytes")
	}
}

func TestRecipients(t *testing.T) {
	list := []sender.Recipient{
		{Address: sender.Address{Email: "ann@example.org", Name: "Ann"}},
		{Address: sender.Address{Email: "bob@example.org"}, Kind: sender.Cc},
		{Address: sender.Address{Email: "secret@example.org"}, Kind: sender.Bcc},
		{Address: sender.Address{Email: "eve@example.org"}},
	}
	for _, tt := range []struct {
		name     string
		preserve bool
		visible  []sender.Recipient
		own      sender.Recipient
		want     []string
		not      []string
	}{
		{"all are shown", true, list, list[0], []string{"To: Ann <ann@example.org>, eve@example.org\r\n", "Cc: bob@example.org\r\n"}, []string{"secret", "Bcc"}},
		{"bcc sees the others only", true, list, list[2], []string{"To: Ann <ann@example.org>, eve@example.org\r\n"}, []string{"secret", "Bcc"}},
		{"all in bcc", true, nil, list[2], []string{"To: undisclosed-recipients:;\r\n"}, []string{"secret", "Bcc"}},
		{"cc only", true, list[1:2], list[1], []string{"Cc: bob@example.org\r\n"}, []string{"\r\nTo:"}},
		{"one is shown", false, list, list[1], []string{"To: bob@example.org\r\n"}, []string{"ann@", "secret", "Cc:", "eve@"}},
		{"a copy shows whose it is", false, nil, sender.Recipient{Address: list[2].Address, Shown: list[0].Address}, []string{"To: Ann <ann@example.org>\r\n"}, []string{"secret"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mailOf(sender.Content{PreserveRecipients: tt.preserve, Recipients: tt.visible, Text: "x"})
			m.Message.Recipient = tt.own
			h := headerOf(mustMessage(t, m))
			for _, w := range tt.want {
				if !strings.Contains(h, "\r\n"+w) {
					t.Errorf("no %q in\n%s", w, h)
				}
			}
			for _, n := range tt.not {
				if strings.Contains(h, n) {
					t.Errorf("%q in\n%s", n, h)
				}
			}
		})
	}
}

func TestOwnHeadersCannotBeSet(t *testing.T) {
	var headers []sender.Header
	for _, n := range []string{"From", "TO", "cc", "Bcc", "Subject", "MIME-Version", "Content-Type", "content-foo", "Received", "Return-Path",
		"DKIM-Signature", "ARC-Seal", "X-MC-Tags", "Resent-Bcc", "Message-ID", "Date", "Authentication-Results", "Received-SPF",
		"Delivered-To", "DomainKey-Signature"} {
		headers = append(headers, sender.Header{Name: n, Value: "forged"})
	}
	headers = append(headers, sender.Header{Name: "Reply-To", Value: "a@example.com"}, sender.Header{Name: "reply-to", Value: "forged@example.com"},
		sender.Header{Name: "Sender", Value: "s@example.com"}, sender.Header{Name: "Auto-Submitted", Value: "auto-replied"}, sender.Header{Name: "X-Tag", Value: "1"}, sender.Header{Name: "X-Tag", Value: "2"})
	h := headerOf(mustMessage(t, mailOf(sender.Content{Subject: "s", Text: "x", Headers: headers})))
	if strings.Contains(h, "forged") {
		t.Errorf("a forged field in\n%s", h)
	}
	if !strings.Contains(h, "\r\nReply-To: a@example.com\r\nSender: s@example.com\r\nAuto-Submitted: auto-replied\r\nX-Tag: 1\r\nX-Tag: 2\r\n") {
		t.Errorf("the allowed fields are not as given in\n%s", h)
	}
}

func TestMessageIDAndDate(t *testing.T) {
	own := "Message-ID: <019ca9450a007abc8def010203040506@example.com>\r\n"
	for _, tt := range []struct{ name, value, want string }{
		{"Message-ID", "<order-17@shop.example.com>", "Message-ID: <order-17@shop.example.com>\r\n"},
		{"message-id", " <a@b> ", "Message-ID: <a@b>\r\n"},
		{"Message-ID", "order-17@shop.example.com", own},
		{"Message-ID", "<a@b> <c@d>", own},
		{"Message-ID", "<@b>", own},
		{"Message-ID", "<a@>", own},
		{"Message-ID", "<é@b>", own},
		{"Message-ID", "<" + strings.Repeat("a", 250) + "@b>", own},
		{"Date", "Mon, 2 Feb 2026 03:04:05 +0100", "Date: Mon, 02 Feb 2026 03:04:05 +0100\r\n"},
		{"Date", "2026-02-02T03:04:05Z", "Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n"},
		{"X-None", "", "Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n"},
	} {
		h := headerOf(mustMessage(t, mailOf(sender.Content{Text: "x", Headers: []sender.Header{{Name: tt.name, Value: tt.value}}})))
		if !strings.Contains(h, tt.want) {
			t.Errorf("%s: %s: no %q in\n%s", tt.name, tt.value, tt.want, h)
		}
	}
}

func TestInjectionIsRefused(t *testing.T) {
	for _, bad := range []string{"a\r\nBcc: x@example.net", "a\nb", "a\rb", "a\x00b"} {
		for field, change := range map[string]func(*Mail){
			"subject":             func(m *Mail) { m.Content.Subject = bad },
			"from.name":           func(m *Mail) { m.Content.From.Name = bad },
			"from.email":          func(m *Mail) { m.Content.From.Email = bad + "@example.com" },
			"to.name":             func(m *Mail) { m.Message.Recipient.Name = bad },
			"to.email":            func(m *Mail) { m.Message.Recipient.Email = bad + "@example.com" },
			"headers.X-A":         func(m *Mail) { m.Content.Headers = []sender.Header{{Name: "X-A", Value: bad}} },
			"headers":             func(m *Mail) { m.Content.Headers = []sender.Header{{Name: bad, Value: "v"}} },
			"attachments.0.name":  func(m *Mail) { m.Content.Attachments = []sender.Attachment{{Name: bad}} },
			"attachments.0.type":  func(m *Mail) { m.Content.Attachments = []sender.Attachment{{Type: bad}} },
			"images.0.name":       func(m *Mail) { m.Content.Images = []sender.Attachment{{Name: bad}} },
			"message_id_domain":   func(m *Mail) { m.MessageIDDomain = bad },
			"to.email (others)":   func(m *Mail) { m.preserve(sender.Address{Email: bad + "@example.com"}) },
			"to.name (others)":    func(m *Mail) { m.preserve(sender.Address{Email: "a@example.com", Name: bad}) },
			"to.email (copy's)":   func(m *Mail) { m.Message.Recipient.Shown.Email = bad + "@example.com" },
			"message (without)":   func(m *Mail) { m.Message = nil },
			"message (no id)":     func(m *Mail) { m.Message.ID = sender.ID{} },
			"from.email (spaced)": func(m *Mail) { m.Content.From.Email = "a> b@example.com" },
		} {
			m := mailOf(sender.Content{Text: "x"})
			change(&m)
			b, err := Message(m)
			var e *sender.Error
			want, _, _ := strings.Cut(field, " ")
			if !errors.As(err, &e) || e.Field != want || b != nil {
				t.Errorf("%s with %q: got error %v", field, bad, err)
			}
		}
	}
}

func (m *Mail) preserve(a sender.Address) {
	m.Content.PreserveRecipients, m.Content.Recipients = true, []sender.Recipient{{Address: a}}
}

func TestHeaderNames(t *testing.T) {
	for name, ok := range map[string]bool{"X-A": true, "": false, "X A": false, "X:": false, "Xé": false, strings.Repeat("x", 76): true, strings.Repeat("x", 77): false} {
		_, err := Message(mailOf(sender.Content{Text: "x", Headers: []sender.Header{{Name: name, Value: "é" + strings.Repeat("v", 900)}}}))
		if (err == nil) != ok {
			t.Errorf("%q: got error %v", name, err)
		}
	}
}

func TestNeedsSMTPUTF8(t *testing.T) {
	plain := sender.Address{Email: "a@example.com", Name: "Ä"}
	wide := sender.Address{Email: "ä@example.com"}
	for name, tt := range map[string]struct {
		c    sender.Content
		m    sender.Message
		want bool
	}{
		"names only":        {sender.Content{From: plain, Subject: "Ä"}, sender.Message{Recipient: sender.Recipient{Address: plain}}, false},
		"from":              {sender.Content{From: wide}, sender.Message{}, true},
		"recipient":         {sender.Content{}, sender.Message{Recipient: sender.Recipient{Address: wide}}, true},
		"shown":             {sender.Content{}, sender.Message{Recipient: sender.Recipient{Address: plain, Shown: wide}}, true},
		"seen others":       {sender.Content{PreserveRecipients: true, Recipients: []sender.Recipient{{Address: wide}}}, sender.Message{}, true},
		"unseen others":     {sender.Content{Recipients: []sender.Recipient{{Address: wide}}}, sender.Message{}, false},
		"reply-to":          {sender.Content{Headers: []sender.Header{{Name: "reply-to", Value: "Ä <ä@example.com>"}}}, sender.Message{}, true},
		"reply-to name":     {sender.Content{Headers: []sender.Header{{Name: "Reply-To", Value: "Ä <a@example.com>"}}}, sender.Message{}, false},
		"unreadable header": {sender.Content{Headers: []sender.Header{{Name: "Reply-To", Value: "ä@"}}}, sender.Message{}, false},
	} {
		if got := NeedsSMTPUTF8(&tt.c, &tt.m); got != tt.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestAppendDotStuffed(t *testing.T) {
	for in, want := range map[string]string{
		"":                      ".\r\n",
		"a\r\n":                 "a\r\n.\r\n",
		"a":                     "a\r\n.\r\n",
		".":                     "..\r\n.\r\n",
		".a\r\n..\r\n.\r\n\r\n": "..a\r\n...\r\n..\r\n\r\n.\r\n",
		"a\r\n.":                "a\r\n..\r\n.\r\n",
		"a.b\r\nc.\r\n":         "a.b\r\nc.\r\n.\r\n",
	} {
		if got := string(AppendDotStuffed([]byte("x"), []byte(in))); got != "x"+want {
			t.Errorf("%q: got %q, want %q", in, got, "x"+want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	var e *sender.Error
	_, err := Message(mailOf(sender.Content{Attachments: []sender.Attachment{{Content: make([]byte, maxContent+1)}}}))
	if !errors.As(err, &e) || e.Kind != sender.KindTooLarge {
		t.Errorf("got %v", err)
	}
}

func BenchmarkText2KB(b *testing.B) {
	m := mailOf(sender.Content{From: sender.Address{Email: "shop@example.com", Name: "The Shop"}, Subject: "Your receipt of today",
		Text: strings.Repeat("The quick brown fox jumps over the lazy dog again and again.\n", 33)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Message(m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHTMLAndText(b *testing.B) {
	m := mailOf(sender.Content{From: sender.Address{Email: "shop@example.com", Name: "Café"}, Subject: "Grüße", Text: strings.Repeat("Grüße aus dem Café.\n", 50),
		HTML: strings.Repeat("<p>Grüße aus dem Café</p>\n", 50)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Message(m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAttachment1MB(b *testing.B) {
	m := mailOf(sender.Content{Text: "x", Attachments: []sender.Attachment{{Type: "application/pdf", Name: "a.pdf", Content: make([]byte, 1<<20)}}})
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Message(m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendDotStuffed2KB(b *testing.B) {
	msg := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog again and again.\r\n", 33))
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendDotStuffed(dst[:0], msg)
	}
}
