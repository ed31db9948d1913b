package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postrider/postrider/sender"
)

// records are the TXT records of keys, by name.
func records(t testing.TB, keys []Key) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, k := range keys {
		record, err := Record(k.Signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		all[k.Selector+"._domainkey."+k.Domain] = record
	}
	return all
}

// verdicts is what go-msgauth says to each signature of a mail.
func verdicts(t testing.TB, mail []byte, txt map[string]string) []string {
	t.Helper()
	lookup := func(name string) ([]string, error) {
		if txt[name] == "" {
			return nil, fmt.Errorf("no such name: %s", name)
		}
		return []string{txt[name]}, nil
	}
	all, err := dkim.VerifyWithOptions(bytes.NewReader(mail), &dkim.VerifyOptions{LookupTXT: lookup})
	if err != nil {
		t.Fatalf("%v in\n%s", err, mail)
	}
	said := make([]string, len(all))
	for i, v := range all {
		said[i] = "pass"
		if v.Err != nil {
			said[i] = v.Err.Error()
		}
	}
	return said
}

func allPass(said []string, signatures int) bool {
	return len(said) == signatures && strings.Count(strings.Join(said, "|"), "pass") == signatures
}

// chance makes mails that differ in everything a verifier may trip over.
type chance struct{ *rand.Rand }

func (r chance) pick(from ...string) string { return from[r.IntN(len(from))] }

func (r chance) words(most int, gaps ...string) string {
	var b strings.Builder
	for range r.IntN(most + 1) {
		b.WriteString(r.pick("a", "the", "receipt", "Grüße", "漢字", "🎉", "=?utf-8?q?x?=", "100%", "a;b=c", ".", "..", "From:", strings.Repeat("x", r.IntN(90)), "1,2", "Zoë"))
		b.WriteString(r.pick(gaps...))
	}
	return b.String()
}

func (r chance) text() string {
	return r.pick("", "", "\r\n", " ", "\t\r\n") + r.words(200, " ", " ", " ", "  ", "\t", " \t ", "\r\n", "\n", " \r\n", "\r\n\r\n", "\r\n.\r\n") +
		r.pick("", strings.Repeat("long ", 400), strings.Repeat("y", 1500)) + strings.Repeat(r.pick("\r\n", " \r\n", "\n"), r.IntN(6))
}

func (r chance) mail(n int) Mail {
	c := sender.Content{From: sender.Address{Email: "shop@example.com", Name: r.words(6, " ")}, Subject: r.words(30, " ", " ", "  ", "\t"), Text: r.text()}
	if r.IntN(2) == 0 {
		c.HTML = "<p>" + r.text() + "</p>"
	}
	for range r.IntN(3) {
		data := make([]byte, r.IntN(5000))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		c.Attachments = append(c.Attachments, sender.Attachment{Type: r.pick("application/pdf", "text/plain", "message/rfc822"), Name: strings.ReplaceAll(r.words(4, " "), "\t", ""), Content: data})
	}
	for _, h := range []sender.Header{
		{Name: "Reply-To", Value: r.pick("Zoë <zoe@example.com>", "a@example.com,  b@example.com")}, {Name: "X-Order", Value: r.words(9, " ", "  ")},
		{Name: "List-Unsubscribe", Value: "<https://example.com/u/" + strings.Repeat("t", r.IntN(200)) + ">, <mailto:u@example.com>"},
		{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}, {Name: "Feedback-ID", Value: "a:b:c:example"},
		{Name: "Sender", Value: "list@example.com"}, {Name: "In-Reply-To", Value: "<x@example.com>"},
	} {
		if r.IntN(2) == 0 {
			c.Headers = append(c.Headers, h)
		}
	}
	if c.PreserveRecipients = r.IntN(3) == 0; c.PreserveRecipients {
		for i := range r.IntN(40) {
			c.Recipients = append(c.Recipients, sender.Recipient{Address: sender.Address{Email: fmt.Sprintf("r%d@example.org", i), Name: r.words(3, " ")}, Kind: []sender.Kind{sender.To, sender.Cc}[i%2]})
		}
	}
	m := mailOf(c)
	id := testID
	id[14], id[15] = byte(n>>8), byte(n)
	m.Message.ID, m.Message.Recipient.Address = id, sender.Address{Email: r.pick("ann@example.org", "ann@example.org", "ann@example.org", "ännä@example.org"), Name: r.words(3, " ")}
	return m
}

// signedMails are n mails of all kinds, signed with both keys; the same ones in every run.
func signedMails(t testing.TB, n int, keys []Key) map[string][]byte {
	t.Helper()
	r := chance{rand.New(rand.NewPCG(6376, 8463))}
	mails := map[string][]byte{}
	add := func(name string, m Mail) {
		signed, err := Sign(mustMessage(t, m), keys, m.Message.ID.Time())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkWire(t, signed)
		mails[name] = signed
	}
	for i := range n {
		add(fmt.Sprintf("mail %d", i), r.mail(i))
	}
	for name, c := range hardCases() {
		add(name, mailOf(c))
	}
	return mails
}

func TestSignaturesVerify(t *testing.T) {
	keys := testKeys(t)
	mails, txt := signedMails(t, 600, keys), records(t, keys)
	t.Run("go-msgauth", func(t *testing.T) {
		for name, mail := range mails {
			if said := verdicts(t, mail, txt); !allPass(said, len(keys)) {
				t.Errorf("%s: %q in\n%s", name, said, mail)
			}
		}
	})
	t.Run("dkimpy", func(t *testing.T) {
		expectAllPass(t, mails, askOther(t, mails, txt, "python/bin/python", "dkimpy.py"), len(keys))
	})
	t.Run("mailauth", func(t *testing.T) {
		expectAllPass(t, mails, askOther(t, mails, txt, "node", "mailauth.js"), len(keys))
	})
	t.Run("others see a broken one", func(t *testing.T) {
		one := map[string][]byte{"broken": append([]byte("Subject: other\r\n"), mails["plain"]...), "whole": mails["plain"]}
		for _, said := range []map[string][]string{askOther(t, one, txt, "python/bin/python", "dkimpy.py"), askOther(t, one, txt, "node", "mailauth.js")} {
			if allPass(said["broken"], len(keys)) || !allPass(said["whole"], len(keys)) {
				t.Errorf("said %q", said)
			}
		}
	})
}

func expectAllPass(t *testing.T, mails map[string][]byte, said map[string][]string, signatures int) {
	t.Helper()
	for name, mail := range mails {
		if !allPass(said[name], signatures) {
			t.Errorf("%s: %q in\n%s", name, said[name], mail)
		}
	}
}

// askOther hands mails to a verifier that testdata/verify/install.sh installed.
func askOther(t *testing.T, mails map[string][]byte, txt map[string]string, program, script string) map[string][]string {
	t.Helper()
	dir := os.Getenv("DKIM_VERIFIERS")
	if dir == "" {
		t.Skip("needs verifiers of other parents: testdata/verify/install.sh FOLDER, then DKIM_VERIFIERS=FOLDER (make test-full does)")
	}
	if strings.Contains(program, "/") {
		program = filepath.Join(dir, program)
	}
	in, err := json.Marshal(struct {
		Records map[string]string `json:"records"`
		Mails   map[string][]byte `json:"mails"` // as base64
	}{txt, mails})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, filepath.Join("testdata", "verify", script), dir)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, stderr.String())
	}
	var said map[string][]string
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	return said
}

// TestOversigned adds a second of each signed field, above and below what was signed.
func TestOversigned(t *testing.T) {
	keys := testKeys(t)
	txt := records(t, keys)
	c := sender.Content{Subject: "s", Text: "x\r\n", PreserveRecipients: true, Recipients: []sender.Recipient{{Address: sender.Address{Email: "a@example.org"}}, {Address: sender.Address{Email: "b@example.org"}, Kind: sender.Cc}},
		Headers: []sender.Header{{Name: "Reply-To", Value: "r@example.com"}, {Name: "List-Unsubscribe", Value: "<https://example.com/u>"}, {Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}, {Name: "Feedback-ID", Value: "a:b"}}}
	for kind, c := range map[string]sender.Content{"full": c, "sparse": {Text: "x"}} {
		signed, err := Sign(mustMessage(t, mailOf(c)), keys, testTime)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(signedNames[:], "Sender", "Received", "Return-Path", "X-Other", "In-Reply-To") {
			covered := bytes.Contains(signed, []byte(" "+name+":")) || name == "Feedback-ID"
			field := []byte(name + ": x\r\n")
			head, body, _ := bytes.Cut(signed, []byte("\r\n\r\n"))
			for place, mail := range map[string][]byte{
				"above": append(bytes.Clone(field), signed...),
				"below": bytes.Join([][]byte{head, []byte("\r\n"), field, []byte("\r\n"), body}, nil),
			} {
				if said := verdicts(t, mail, txt); allPass(said, len(keys)) == covered || covered && strings.Contains(strings.Join(said, ""), "pass") {
					t.Errorf("%s mail, a second %s %s: %q", kind, name, place, said)
				}
			}
		}
	}
}

// TestOnTheWay does to a mail what relaxed canonicalization forgives, and what it does not.
func TestOnTheWay(t *testing.T) {
	keys := testKeys(t)
	txt := records(t, keys)
	mail, err := Sign(mustMessage(t, mailOf(sender.Content{Subject: "one two", Text: "a  b\r\n c\r\n"})), keys, testTime)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, old, now string
		pass           bool
	}{
		{"as sent", "", "", true},
		{"folded", "Subject: one two", "SUBJECT :one\r\n\t  two \t", true},
		{"blanks", "a  b\r\n c", "a \t b\t \r\n\tc ", true},
		{"blank lines at the end", "\r\n c\r\n", "\r\n c\r\n\r\n \t\r\n\r\n", true},
		{"signature folded anew", "c=relaxed/relaxed;", "c=relaxed/relaxed;\r\n\t", true},
		{"a blank taken out", "a  b", "ab", false},
		{"indent taken out", "\r\n c", "\r\nc", false},
		{"a line put in", "a  b", "a  b\r\n", false},
		{"a word changed", "one two", "one too", false},
		{"fewer fields signed", " Feedback-ID;", ";", false},
	} {
		if tt.old != "" && !bytes.Contains(mail, []byte(tt.old)) {
			t.Fatalf("%s: no %q in\n%s", tt.name, tt.old, mail)
		}
		changed := bytes.ReplaceAll(mail, []byte(tt.old), []byte(tt.now))
		if said := verdicts(t, changed, txt); allPass(said, len(keys)) != tt.pass {
			t.Errorf("%s: %q", tt.name, said)
		}
	}
}

// FuzzSign signs any header and body that Sign accepts, and has them verified.
func FuzzSign(f *testing.F) {
	keys := testKeys(f)[1:]
	txt := records(f, keys)
	f.Add("a", "b\r\n")
	f.Add("\r\n \t a  b \r\n\tc\t", "\t\r\n a\t \tb \r\n\r\n \r\n")
	f.Add("", "\r\n\r\n\r\n")
	f.Add("é=?\x00", ".\r\nno end")
	f.Fuzz(func(t *testing.T, value, body string) {
		mail := []byte("From: a@example.com\r\nSubject:" + value + "\r\n\r\n" + body)
		signed, err := Sign(mail, keys, testTime)
		if err != nil {
			return
		}
		if !strings.HasSuffix(body, "\r\n") {
			signed = append(signed, "\r\n"...)
		}
		if said := verdicts(t, signed, txt); !allPass(said, 1) {
			t.Errorf("%q in %q", said, signed)
		}
	})
}
