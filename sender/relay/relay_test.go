package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/bounce"
	"github.com/postrider/postrider/shards/shardtest"
)

// report is a delivery status notification, or a complaint when its kind is "arf".
func report(kind, status string) string {
	body, of := fmt.Sprintf("Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.test\r\n\r\nFinal-Recipient: rfc822; someone-else@example.org\r\n"+
		"Action: %s\r\nStatus: %s\r\nDiagnostic-Code: smtp; 550 %s as it is\r\n", kind, status, status), "delivery-status"
	if kind == "arf" {
		body, of = "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: test/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <someone-else@example.org>\r\n", "feedback-report"
	}
	return "From: MAILER-DAEMON@mx.test\r\nSubject: report\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=" + of + "; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nA report.\r\n--b\r\n" + body + "--b--\r\n"
}

// mail sends over SMTP and gives the code of the reply that refused it, or 250.
func mail(t *testing.T, addr net.Addr, from, body string, to ...string) int {
	t.Helper()
	c, err := smtp.Dial(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	err = c.Mail(from)
	for _, rcpt := range to {
		if err == nil {
			err = c.Rcpt(rcpt)
		}
	}
	if err == nil {
		w, open := c.Data()
		if err = open; err == nil {
			_, err = w.Write([]byte(body))
			if closed := w.Close(); err == nil {
				err = closed
			}
		}
	}
	var refused *textproto.Error
	switch {
	case errors.As(err, &refused):
		return refused.Code
	case err != nil:
		t.Fatal(err)
	}
	return 250
}

// TestReports has each kind of report do to a delivered message what it should, and a repeat of it nothing.
func TestReports(t *testing.T) {
	w := open(t, pg.New(t, 4))
	for _, c := range []struct {
		name, body string
		state      sender.State
		event      sender.EventKind
		reason     string
	}{
		{"hard bounce", report("failed", "5.1.1"), sender.Bounced, sender.EventBounced, "hard-bounce"},
		{"mailbox disabled", report("failed", "5.2.1"), sender.Bounced, sender.EventBounced, "hard-bounce"},
		{"policy", report("failed", "5.7.1"), sender.Bounced, sender.EventBounced, ""},
		{"given up", report("failed", "4.4.7"), sender.SoftBounced, sender.EventSoftBounced, ""},
		{"complaint", report("arf", ""), sender.Spam, sender.EventSpam, "spam"},
		{"delayed", report("delayed", "4.4.1"), sender.Delivered, 0, ""},
		{"delivered", report("delivered", "2.0.0"), sender.Delivered, 0, ""},
		{"auto reply", "From: a@example.net\r\nAuto-Submitted: auto-replied\r\nSubject: Out of office\r\n\r\nBack soon.\r\n", sender.Delivered, 0, ""},
		{"no report", "Subject: Undelivered mail\r\n\r\nUser unknown, 550 5.1.1\r\n", sender.Delivered, 0, ""},
		{"nothing", "", sender.Delivered, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			email := strings.ReplaceAll(c.name, " ", ".") + "@Example.net"
			id := w.delivered(t, 1, email)
			for range 3 {
				if code := mail(t, w.addr, "", c.body, path(1, id)); code != 250 {
					t.Fatalf("answered %d", code)
				}
				w.check(t, 1, id, c.state, c.event) // at once: it is recorded before the 250
			}
			if got := w.rejected(t, 1, email); got != c.reason {
				t.Errorf("on the do-not-send list for %q, want %q", got, c.reason)
			}
		})
	}
	if got := w.rejected(t, 1, "someone-else@example.org"); got != "" { // what the reports said of others
		t.Errorf("a stranger is on the list for %q", got)
	}
}

// check holds a message to a state, and to at most one event after its delivery.
func (w *world) check(t *testing.T, account int64, id sender.ID, state sender.State, kind sender.EventKind) {
	t.Helper()
	f, events, err := w.store.Info(context.Background(), account, id)
	if err != nil || f.State != state {
		t.Fatalf("state %d, want %d, %v", f.State, state, err)
	}
	switch {
	case kind == 0 && len(events) == 1:
	case kind != 0 && len(events) == 2 && events[1].Kind == kind && events[1].Reply.Stage == "report":
	default:
		t.Errorf("events %+v", events)
	}
}

// rejected is why an address is on the do-not-send list, by its lower-case form.
func (w *world) rejected(t *testing.T, account int64, email string) (reason string) {
	t.Helper()
	err := w.Shards.Read(context.Background(), account, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, "select coalesce(max(reason), '') from rejects where account_id = $1 and email = lower($2) and expires_at > now() + interval '6 days'",
			account, email).Scan(&reason)
	})
	if err != nil {
		t.Fatal(err)
	}
	return reason
}

// TestRefused has mail that no report would be be refused before its content.
func TestRefused(t *testing.T) {
	w := open(t, pg.New(t, 1))
	id := w.delivered(t, 1, "a@example.net")
	good := path(1, id)
	forged := good[:10] + "a" + good[11:]
	if forged == good {
		forged = good[:10] + "b" + good[11:]
	}
	other := bounce.Key{1}.Encode(bounce.ReturnPath{Account: 1, Message: id}) + "@bounces.test"
	for to, from := range map[string]string{good: "a@example.net", "postmaster@bounces.test": "", "b.@bounces.test": "", "b." + id.String() + "@bounces.test": "", forged: "", other: ""} {
		if code := mail(t, w.addr, from, report("failed", "5.1.1"), to); code != 550 {
			t.Errorf("from %q to %q: %d, want 550", from, to, code)
		}
	}
	w.check(t, 1, id, sender.Delivered, 0)
}

// TestCaseAndDomain has a return path be known in any case and behind any domain.
func TestCaseAndDomain(t *testing.T) {
	w := open(t, pg.New(t, 1))
	id := w.delivered(t, 1, "a@example.net")
	local, _, _ := strings.Cut(path(1, id), "@")
	if code := mail(t, w.addr, "", report("failed", "5.1.1"), strings.ToUpper(local)+"@custom.example"); code != 250 {
		t.Errorf("answered %d", code)
	}
	w.check(t, 1, id, sender.Bounced, sender.EventBounced)
}

// TestSeveralRecipients takes one mail for two return paths, and one for a message that is not there any more.
func TestSeveralRecipients(t *testing.T) {
	w := open(t, pg.New(t, 4))
	one, two := w.delivered(t, 1, "a@example.net"), w.delivered(t, 2, "b@example.net")
	if code := mail(t, w.addr, "", report("arf", ""), path(1, one), path(1, sender.NewID()), path(2, two)); code != 250 {
		t.Errorf("answered %d", code)
	}
	w.check(t, 1, one, sender.Spam, sender.EventSpam)
	w.check(t, 2, two, sender.Spam, sender.EventSpam)
}

func TestOversize(t *testing.T) {
	w := open(t, pg.New(t, 1))
	id := w.delivered(t, 1, "a@example.net")
	body := report("failed", "5.1.1") + strings.Repeat(strings.Repeat("x", 998)+"\r\n", maxReport/1000+1)
	if code := mail(t, w.addr, "", body, path(1, id)); code != 552 {
		t.Errorf("answered %d, want 552", code)
	}
	w.check(t, 1, id, sender.Delivered, 0)
	if code := mail(t, w.addr, "", body[:2<<20], path(1, id)); code != 250 { // a report that carries a large original
		t.Errorf("answered %d", code)
	}
	w.check(t, 1, id, sender.Bounced, sender.EventBounced)
}

// TestServerDown answers 451 while the fact cannot be stored, so that the other side keeps it, and takes it later.
func TestServerDown(t *testing.T) {
	e, stop, start := shardtest.Own(t, 1)
	w := open(t, e)
	id := w.delivered(t, 1, "a@example.net")
	stop()
	begin := time.Now()
	if code := mail(t, w.addr, "", report("failed", "5.1.1"), path(1, id)); code != 451 || time.Since(begin) > 12*time.Second {
		t.Errorf("answered %d after %v", code, time.Since(begin))
	}
	start()
	shardtest.Within(t, 20*time.Second, "the report to be taken", func() bool {
		return mail(t, w.addr, "", report("failed", "5.1.1"), path(1, id)) == 250
	})
	w.check(t, 1, id, sender.Bounced, sender.EventBounced)
	if got := w.rejected(t, 1, "a@example.net"); got != "hard-bounce" {
		t.Errorf("on the do-not-send list for %q", got)
	}
}
