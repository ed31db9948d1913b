package domains

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// TestMailbox proves a domain's ownership by a link; looking at it changes nothing.
func TestMailbox(t *testing.T) {
	w, ctx := open(t), t.Context()
	sent, err := w.VerifyByMail(ctx, 1, "Example.com", "hostmaster")
	if err != nil || sent != (Sent{Domain: "example.com", Email: "hostmaster@example.com"}) || len(w.mails) != 3 || w.mails[0] != sent.Email {
		t.Fatalf("%+v, %v, %q", sent, err, w.mails)
	}
	_, rest, _ := strings.Cut(w.mails[2], MailboxPath)
	token, _, _ := strings.Cut(rest, "\n")
	var known *sender.Error
	if _, err = w.VerifyByMail(ctx, 1, "example.com", "other"); !errors.As(err, &known) || known.Kind != sender.KindTooMany || len(w.mails) != 3 {
		t.Errorf("a second mail within ten minutes: %v", err)
	}
	w.pass(mailEvery)
	if _, err = w.VerifyByMail(ctx, 1, "example.com", "other"); err != nil || len(w.mails) != 6 {
		t.Error(err)
	}
	d := w.add(t, 1, "example.com")
	w.publish(t, d, DKIM)
	for range 100 {
		if name, err := w.ReadLink(token); name != "example.com" || err != nil {
			t.Fatal(name, err)
		}
	}
	if d = w.check(t, 1, "example.com"); d.Owned || !d.Verified.IsZero() {
		t.Error("a look at the link proves something")
	}
	for i := range len(token) {
		forged := token[:i] + string(token[i]^1) + token[i+1:]
		if _, err := w.Confirm(ctx, forged); !errors.Is(err, ErrLink) && i < len(token)-1 { // the last character has spare bits
			t.Errorf("forged at %d: %v", i, err)
		}
	}
	for _, other := range []string{"", "x", strings.Repeat("A", maxLink), strings.Repeat("A", maxLink+1)} {
		if _, err := w.Confirm(ctx, other); !errors.Is(err, ErrLink) {
			t.Errorf("%.20s: %v", other, err)
		}
	}
	if name, err := w.Confirm(ctx, token); name != "example.com" || err != nil {
		t.Fatal(name, err)
	}
	if d = w.check(t, 1, "example.com"); !d.Owned || d.Verified.IsZero() {
		t.Errorf("confirmed, and not verified: %+v", d.Records)
	}
	if sent, err = w.VerifyByMail(ctx, 1, "example.com", "hostmaster"); err != nil || !sent.Already || len(w.mails) != 6 {
		t.Errorf("%+v, %v", sent, err)
	}
	for _, r := range d.Records { // the keys' records are the daily proof
		if r.Purpose == DKIM {
			w.zone.drop(r.Name)
		}
	}
	w.check(t, 1, "example.com")
	w.pass(time.Hour)
	if d = w.check(t, 1, "example.com"); !d.Verified.IsZero() {
		t.Error("no key is published, and still verified")
	}
}

func TestMailboxRefused(t *testing.T) {
	w := open(t)
	for _, mailbox := range []string{"", "a b", "a@b", "a\r\nBcc: c", "\"q\"", strings.Repeat("a", 65)} {
		var known *sender.Error
		if _, err := w.VerifyByMail(t.Context(), 1, "example.com", mailbox); !errors.As(err, &known) || known.Field != "mailbox" {
			t.Errorf("%q: %v", mailbox, err)
		}
	}
	old := w.link(1, "example.com", w.add(t, 1, "example.com").Token, w.now().Add(-time.Second))
	gone := w.link(1, "example.org", "x", w.now().Add(time.Hour))
	stale := w.link(1, "example.com", "the token of an earlier time", w.now().Add(time.Hour))
	for _, token := range []string{old, gone, stale} {
		if _, err := w.Confirm(t.Context(), token); !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", token, err)
		}
	}
	w.cfg.Mail = nil
	if _, err := w.VerifyByMail(t.Context(), 1, "example.com", "hostmaster"); err == nil || !strings.Contains(err.Error(), "_postrider.example.com") {
		t.Errorf("without a way to send: %v", err)
	}
	if len(w.mails) != 0 {
		t.Errorf("%q", w.mails)
	}
}
