package compose

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

const testLink = "https://mail.example.com/u/AbC-_1"

func TestUnsubscribe(t *testing.T) {
	const (
		ours     = "List-Unsubscribe: <" + testLink + ">\r\n"
		oneClick = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
		theirs   = "List-Unsubscribe: <https://example.net/u>\r\n"
	)
	own := []sender.Header{{Name: "list-unsubscribe", Value: "<https://example.net/u>"}, {Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}}
	for _, tt := range []struct {
		name    string
		u       Unsubscribe
		headers []sender.Header
		want    string
		count   int // fields that begin with List-Unsubscribe
	}{
		{"none", Unsubscribe{}, nil, "", 0},
		{"mailto alone", Unsubscribe{Mailto: "mailto:u@example.com"}, nil, "", 0},
		{"link", Unsubscribe{URL: testLink}, nil, ours + oneClick, 2},
		{"link and mailto", Unsubscribe{URL: testLink, Mailto: "mailto:u.1@b.example.com?subject=unsubscribe"}, nil,
			"List-Unsubscribe: <" + testLink + ">, <mailto:u.1@b.example.com?subject=unsubscribe>\r\n" + oneClick, 2},
		{"no one-click without TLS", Unsubscribe{URL: "http://localhost/u/x"}, nil, "List-Unsubscribe: <http://localhost/u/x>\r\n", 1},
		{"the submission's own", Unsubscribe{URL: testLink}, own, strings.Replace(theirs, "List-Un", "list-un", 1) + oneClick, 2},
		{"the submission's own, without a link of ours", Unsubscribe{}, own, strings.Replace(theirs, "List-Un", "list-un", 1) + oneClick, 2},
		{"blank", Unsubscribe{URL: testLink}, []sender.Header{{Name: "List-Unsubscribe", Value: " "}}, ours + oneClick, 2},
		{"half", Unsubscribe{URL: testLink}, own[1:], ours + oneClick, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mailOf(sender.Content{Text: "x", Headers: tt.headers})
			m.Unsubscribe = tt.u
			h := headerOf(mustMessage(t, m))
			if !strings.Contains(h, tt.want) || strings.Count(strings.ToLower(h), "list-unsubscribe") != tt.count+strings.Count(h, "=One-Click") {
				t.Errorf("want %d fields with %q in\n%s", tt.count, tt.want, h)
			}
		})
	}
}

func TestBadUnsubscribe(t *testing.T) {
	for _, u := range []Unsubscribe{
		{URL: "ftp://example.com/u"}, {URL: "javascript:alert(1)"}, {URL: "//example.com"}, {URL: testLink + ">"}, {URL: testLink + ", <x>"}, {URL: testLink + "\r\nBcc: x@example.net"},
		{URL: testLink + "é"}, {URL: testLink + strings.Repeat("x", maxLink)}, {URL: testLink, Mailto: "u@example.com"}, {URL: testLink, Mailto: "mailto:u@example.com\n"},
	} {
		m := mailOf(sender.Content{Text: "x"})
		m.Unsubscribe = u
		var e *sender.Error
		if b, err := Message(m); !errors.As(err, &e) || !strings.HasPrefix(e.Field, "unsubscribe.") || b != nil {
			t.Errorf("%q: got %v", u, err)
		}
	}
	m := mailOf(sender.Content{Text: "x"})
	m.Unsubscribe = Unsubscribe{URL: testLink + strings.Repeat("x", maxLink-len(testLink)), Mailto: "mailto:" + strings.Repeat("y", maxLink-7)}
	mustMessage(t, m)
}

func TestFeedbackID(t *testing.T) {
	for _, tt := range []struct {
		f       Feedback
		account int64
		theirs  string
		want    string
	}{
		{Feedback{"spring-sale", "bulk", "postrider"}, 17, "", "spring-sale:17:bulk:postrider"},
		{Feedback{"", "transactional", "mail.example.com"}, 17, "", "17:transactional:mail.example.com"},
		{Feedback{"", "", "postrider"}, 17, "", "17:postrider"},
		{Feedback{"a", "b", ""}, 17, "", ""},
		{Feedback{Sender: " : "}, 17, "", ""},
		{Feedback{"a:b:c:d", "Grüße\r\nBcc: x", "--p--"}, 1, "", "a-b-c-d:1:Gr-e-Bcc-x:p"},
		{Feedback{strings.Repeat("é", 99), strings.Repeat("long", 99), "p"}, 1, "", "1:" + strings.Repeat("long", 16) + ":p"},
		{Feedback{"a", "b", "p"}, 17, "mine:x", "mine:x"},
		{Feedback{"a", "b", "p"}, 17, " ", "a:17:b:p"},
	} {
		c := sender.Content{Text: "x"}
		if tt.theirs != "" {
			c.Headers = []sender.Header{{Name: "feedback-ID", Value: tt.theirs}, {Name: "Feedback-ID", Value: "second"}}
		}
		m := mailOf(c)
		m.Feedback, m.Message.Account = tt.f, tt.account
		h := strings.ToLower(headerOf(mustMessage(t, m)))
		n := min(len(tt.want), 1)
		if strings.Count(h, "feedback-id:") != n || !strings.Contains(h, strings.Repeat("\r\nfeedback-id: "+strings.ToLower(tt.want)+"\r\n", n)) {
			t.Errorf("%v: no %q, or more than one, in\n%s", tt.f, tt.want, h)
		}
	}
}

// TestDates has a scheduled mail be of the day on which it leaves, and an absurd Date be replaced.
func TestDates(t *testing.T) {
	accepted := testID.Time()
	later := accepted.AddDate(0, 3, 0).In(time.FixedZone("", 3600))
	for _, tt := range []struct {
		name   string
		sendAt time.Time
		theirs string
		want   string
	}{
		{"at once", time.Time{}, "", "Sun, 01 Mar 2026 12:00:00 +0000"},
		{"scheduled", later, "", "Mon, 01 Jun 2026 12:00:00 +0000"},
		{"due before it was accepted", accepted.Add(-time.Hour), "", "Sun, 01 Mar 2026 12:00:00 +0000"},
		{"scheduled, with a Date", later, "Sun, 01 Mar 2026 11:59:59 -0500", "Sun, 01 Mar 2026 11:59:59 -0500"},
		{"of 1970", time.Time{}, "Thu, 01 Jan 1970 00:00:00 +0000", "Sun, 01 Mar 2026 12:00:00 +0000"},
		{"of tomorrow", time.Time{}, "Mon, 02 Mar 2026 11:59:59 +0000", "Mon, 02 Mar 2026 11:59:59 +0000"},
		{"of next week", time.Time{}, "Sun, 08 Mar 2026 12:00:00 +0000", "Sun, 01 Mar 2026 12:00:00 +0000"},
		{"of no month", time.Time{}, "Sun, 01 Foo 2026 12:00:00 +0000", "Sun, 01 Mar 2026 12:00:00 +0000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := sender.Content{Text: "x"}
			if tt.theirs != "" {
				c.Headers = []sender.Header{{Name: "date", Value: tt.theirs}}
			}
			m := mailOf(c)
			m.SendAt = tt.sendAt
			h := "\r\n" + headerOf(mustMessage(t, m))
			if !strings.Contains(h, "\r\nDate: "+tt.want+"\r\n") || strings.Count(strings.ToLower(h), "\r\ndate:") != 1 {
				t.Errorf("no Date %s, or more than one, in\n%s", tt.want, h)
			}
		})
	}
}
