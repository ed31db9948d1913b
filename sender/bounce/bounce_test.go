package bounce

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

const (
	ann = "ann@example.org"
	oid = "019ca9450a007abc8def010203040506@example.com"
)

// corpus says what each file in testdata is.
func corpus() map[string]Report {
	return map[string]Report{
		"postfix":         {Failed, ann, "5.1.1", "smtp; 550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown in virtual mailbox table", oid},
		"postfix-expired": {Failed, ann, "4.4.1", "X-Postfix; connect to mail.example.org[192.0.2.10]:25: Connection timed out", oid},
		"postfix-delayed": {Delayed, ann, "4.2.2", "smtp; 452 4.2.2 Mailbox full", oid},
		"postfix-success": {Delivered, ann, "2.0.0", "X-Postfix; delivered to maildir", oid},
		"postfix-utf8":    {Failed, "änn@example.org", "5.1.1", "smtp; 550 5.1.1 Nutzer unbekannt: änn", oid},
		"exim":            {Failed, ann, "5.1.1", "smtp; 550 5.1.1 No such user here", oid},
		"exim-old":        {Unknown, ann, "5.1.1", "host mail.example.org [192.0.2.10]: 550 5.1.1 User unknown", oid},
		"sendmail":        {Failed, ann, "5.7.1", "SMTP; 550 5.7.1 <ann@example.org>... Access denied", oid},
		"gmail": {Failed, ann, "5.1.1", "smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 " +
			"double-checking the recipient's email address for typos or 550 5.1.1 unnecessary spaces. a1-20020 - gsmtp", oid},
		"office365":       {Failed, ann, "5.1.10", "smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ann@example.org not found by SMTP address lookup", oid},
		"exchange-base64": {Failed, ann, "5.2.2", "smtp;550 5.2.2 STOREDRV.Deliver.Exception:QuotaExceededException", oid},
		"exchange-old":    {Failed, ann, "5.1.1", "", oid},
		"yahoo":           {Failed, ann, "5.0.0", "smtp; 554 delivery error: dd This user doesn't have a yahoo.example account (ann@example.org) [-20]", oid},
		"qmail":           {Unknown, ann, "5.1.1", "Remote host said: 550 5.1.1 sorry, no mailbox here by that name (#5.1.1)", oid},
		"opensmtpd":       {Failed, ann, "5.0.0", "", oid},
		"courier":         {Failed, ann, "5.0.0", "smtp; 550 User unknown.", oid},
		"domino":          {Failed, ann, "5.1.1", "X-Notes; User ann (ann@example.org) not listed in Domino Di rectory", oid},
		"empty-status":    {Failed, ann, "5.1.0", "smtp; 550 #5.1.0 Address rejected.", oid},
		"list-expanded":   {Failed, ann, "5.2.1", "smtp; 550 5.2.1 disabled", oid},
		"no-action":       {Unknown, ann, "5.1.1", "smtp; 550 5.1.1 unknown", oid},
		"wrapped":         {Failed, ann, "5.1.6", "smtp; 551 5.1.6 moved", oid},
		"html-only":       {Unknown, ann, "5.1.1", "<p>Server said: 550 5.1.1 no such user</p>", ""},
		"cut-off":         {Failed, ann, "5.1.1", "smtp; 550 5.1.1 gone", oid},
		"control-bytes":   {Failed, "", "5.1.1", `smtp; 550 \u{1b}[31mred\u{1b}[0m \u{202e}abc \u{7} end`, ""},
		"forwarded":       {Unknown, "", "", "", ""},
		"arf":             {Complaint, ann, "", "abuse", oid},
		"arf-redacted":    {Complaint, "", "", "abuse", oid},
		"arf-to-only":     {Complaint, ann, "", "Abuse", oid},
		"arf-not-spam":    {Unknown, ann, "", "not-spam", oid},
		"out-of-office":   {AutoReply, "", "", "Automatic reply: Your receipt", oid},
		"vacation":        {AutoReply, "", "", "Re: Your receipt", ""},
		"abwesend":        {AutoReply, "", "", "Abwesenheitsnotiz: bis März", ""},
		"human-reply":     {Unknown, "", "", "", ""},
	}
}

func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.eml")
	if err != nil {
		t.Fatal(err)
	}
	reports := corpus()
	if len(files) != len(reports) {
		t.Errorf("%d files for %d reports", len(files), len(reports))
	}
	for name, want := range reports {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join("testdata", name+".eml"))
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(raw)
			if got := Parse(raw); got != want {
				t.Errorf("got\n%+v\nwant\n%+v", got, want)
			}
			if !bytes.Equal(raw, before) {
				t.Error("the input was changed")
			}
			if got := Parse(bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))); got != want {
				t.Errorf("with CRLF: got\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}

// TestLargeOriginal has a mail of 10 MB attached to the report about it.
func TestLargeOriginal(t *testing.T) {
	raw, err := os.ReadFile("testdata/cut-off.eml")
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, bytes.Repeat([]byte("\nSGVsbG8gSGVsbG8gSGVsbG8gSGVsbG8gSGVsbG8gSGVsbG8gSGVsbG8gSGVsbG8g"), 150_000)...)
	if got, want := Parse(raw), corpus()["cut-off"]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// hostile are mails made to keep a reader busy.
func hostile() map[string]string {
	nested := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
		}
		return b.String() + "Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@example.com\nAction: failed\nStatus: 5.1.1\n"
	}
	report := "From: mailer-daemon@example.com\nContent-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\n"
	return map[string]string{
		"empty":           "",
		"no header":       "\n\n\n",
		"nested":          nested(5000),
		"many parts":      "Content-Type: multipart/mixed; boundary=x\n\n" + strings.Repeat("--x\n\na\n", 100_000),
		"many fields":     strings.Repeat("A: b\n", 1_000_000),
		"many folds":      "Subject: a\n" + strings.Repeat(" \n b\n", 500_000),
		"many groups":     report + strings.Repeat("Action: delayed\n\n", 50_000),
		"one line":        "From: mailer-daemon@example.com\n\n" + strings.Repeat("550 5.1.1 a@", 100_000),
		"addresses":       "From: mailer-daemon@example.com\n\n" + strings.Repeat("a@a\n", 200_000),
		"escapes":         report + "Action: failed\nOriginal-Recipient: utf-8; " + strings.Repeat(`\x{10FFFF}`, 50_000) + "\n",
		"words":           "Subject: " + strings.Repeat("=?utf-8?q?x?= ", 50_000) + "\n\n",
		"no boundary":     "Content-Type: multipart/report\n\n--\n--\n",
		"bad base64":      report[:len(report)-1] + "Content-Transfer-Encoding: base64\n\n!!!!\n",
		"no group":        report + "Reporting-MTA: dns; a\n",
		"comma addresses": "X-Failed-Recipients: " + strings.Repeat(",", 500_000) + "\n\n",
	}
}

func TestHostileMailsAreReadQuicklyAndSayNothing(t *testing.T) {
	for name, raw := range hostile() {
		t.Run(name, func(t *testing.T) {
			r := Parse([]byte(raw))
			checkReport(t, r)
			if r.Kind == Failed && name != "escapes" {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func checkReport(t testing.TB, r Report) {
	t.Helper()
	if r.Recipient != "" && sender.CheckEmail(r.Recipient) != nil {
		t.Errorf("recipient %q", r.Recipient)
	}
	if r.Status != "" && statusStart.FindString(r.Status) != r.Status {
		t.Errorf("status %q", r.Status)
	}
	if len(r.Diagnostic) > 500 || !utf8.ValidString(r.Diagnostic) || strings.ContainsFunc(r.Diagnostic, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		t.Errorf("diagnostic %q", r.Diagnostic)
	}
	if strings.ContainsAny(r.OriginalMessageID, "<> \r\n") {
		t.Errorf("id %q", r.OriginalMessageID)
	}
	if strings.HasPrefix(r.Kind.String(), "Kind(") {
		t.Errorf("kind %d", r.Kind)
	}
}

func TestDiagnosticIsCutBetweenCharacters(t *testing.T) {
	for _, s := range []string{strings.Repeat("é", 400), strings.Repeat("\xff", 400), "x" + strings.Repeat("漢", 400), strings.Repeat("a ", 400)} {
		checkReport(t, Report{Diagnostic: oneLine(s)})
		if n := len(oneLine(s)); n < 490 {
			t.Errorf("cut at %d", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { checkReport(t, Parse(raw)) })
}

func BenchmarkParse(b *testing.B) {
	raw, err := os.ReadFile("testdata/gmail.eml")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		Parse(raw)
	}
}
