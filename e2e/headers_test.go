package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// mixed is one recipient of each kind, by the test's own addresses.
func mixed(t *testing.T) (to []object, a, b, c, hidden string) {
	a, b, c, hidden = unique(t, "a"), unique(t, "b"), unique(t, "c"), unique(t, "hidden")
	return []object{{"email": a, "name": "Ä, A"}, {"email": b, "type": "to"}, {"email": c, "name": "C", "type": "cc"}, {"email": hidden, "name": "H", "type": "bcc"}}, a, b, c, hidden
}

func mimeShown(t *testing.T, d *dev) {
	to, a, b, c, hidden := mixed(t)
	for i, r := range d.results(t, mail("", object{"to": to, "preserve_recipients": true})) {
		raw := d.waitMail(t, r["_id"].(string))
		wellFormed(t, raw)
		p := readMail(t, raw)
		if !slices.Equal(p.to, []string{a, b}) || !slices.Equal(p.cc, []string{c}) || p.toName != "Ä, A" {
			t.Errorf("the mail of %v shows To %v and Cc %v", to[i], p.to, p.cc)
		}
		if bytes.Contains(raw, []byte(hidden)) {
			t.Errorf("the mail of %v names the hidden recipient:\n%s", to[i], raw)
		}
	}
	for _, address := range []string{a, b, c, hidden} {
		if n := d.envelopes(t, address); n != 1 {
			t.Errorf("%s got %d mails", address, n)
		}
	}
}

// mimeMany shows so many recipients that To has to be folded, and sends each of them the same bytes but for the
// Message-ID.
func mimeMany(t *testing.T, d *dev) {
	const many = 200
	to := make([]object, many)
	for i := range to {
		to[i] = object{"email": unique(t, fmt.Sprint("r", i)), "name": fmt.Sprintf("Größe, %d", i), "type": map[bool]string{true: "to", false: "cc"}[i%2 == 0]}
	}
	r := d.results(t, mail("", object{"to": to, "preserve_recipients": true}))
	for _, i := range []int{0, many - 1} {
		raw := d.waitMail(t, r[i]["_id"].(string))
		wellFormed(t, raw)
		p := readMail(t, raw)
		if len(p.to) != many/2 || len(p.cc) != many/2 || p.to[0] != to[0]["email"] || p.cc[many/2-1] != to[many-1]["email"] {
			t.Errorf("the mail of recipient %d shows %d To and %d Cc", i, len(p.to), len(p.cc))
		}
	}
	wait(t, 30*time.Second, "all to be sent", func() bool {
		list := d.must(t, "/api/1.0/messages/search", object{"limit": 1000}).([]any)
		return len(list) == many && !slices.ContainsFunc(list, func(m any) bool { return m.(object)["state"] != "sent" })
	})
}

// envelopes is how many mails came to an address by their envelope: their return path names one recipient, and the
// inbox shows under Bcc whom the header does not name.
func (d *dev) envelopes(t *testing.T, address string) int {
	t.Helper()
	ids := map[string]bool{}
	for _, id := range d.search(t, object{"query": address, "limit": 1000}) {
		if n, _ := d.received(t, id); n > 0 {
			ids[id] = true
		}
	}
	return len(ids)
}

func mimeHidden(t *testing.T, d *dev) {
	to, a, b, c, hidden := mixed(t)
	for i, r := range d.results(t, mail("", object{"to": to, "preserve_recipients": false})) {
		raw := d.waitMail(t, r["_id"].(string))
		wellFormed(t, raw)
		p := readMail(t, raw)
		own := to[i]["email"].(string)
		if !slices.Equal(p.to, []string{own}) || len(p.cc) != 0 {
			t.Errorf("the mail of %s shows To %v and Cc %v", own, p.to, p.cc)
		}
		for _, other := range []string{a, b, c, hidden} {
			if other != own && bytes.Contains(raw, []byte(other)) {
				t.Errorf("the mail of %s names %s", own, other)
			}
		}
	}
}

func mimeCopy(t *testing.T, d *dev) {
	to, copied := unique(t, "reader"), unique(t, "archive")
	id := d.send(t, to, object{"bcc_address": copied, "html": "<p>x</p>"})
	raw := d.waitMail(t, id)
	var list inboxList
	wait(t, 20*time.Second, "the copy", func() bool {
		d.inbox(t, "/api/v1/search?query=to:"+copied, &list)
		return len(list.Messages) == 1
	})
	var copyRaw []byte
	d.inbox(t, "/api/v1/message/"+list.Messages[0].ID+"/raw", &copyRaw)
	for _, b := range [][]byte{raw, copyRaw} {
		wellFormed(t, b)
		if bytes.Contains(b, []byte(copied)) {
			t.Errorf("a mail names the address of the copy:\n%s", b)
		}
		if p := readMail(t, b); !slices.Equal(p.to, []string{to}) {
			t.Errorf("a mail shows To %v", p.to)
		}
	}
	if a, b := readMail(t, raw), readMail(t, copyRaw); a.text != b.text || a.html != b.html || a.subject != b.subject {
		t.Errorf("the copy is another mail:\n%s\n%s", raw, copyRaw)
	}
}

func mimeHeaders(t *testing.T, d *dev) {
	sent := map[string]string{"Reply-To": "reply@example.com", "X-Custom": "value", "X-Long": strings.Repeat("words of a header ", 100) + "end", "X-Unicode": "Grüße 日本語", "In-Reply-To": "<a@example.com>",
		"References": "<a@example.com> <b@example.com>", "List-Unsubscribe": "<https://example.com/u?a=1&b=2>, <mailto:u@example.com>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
		"X-Empty": "", "x-lower": "x", "Auto-Submitted": "auto-generated", "X-Encoded": "=?utf-8?q?x?="}
	headers := object{}
	for k, v := range sent {
		headers[k] = v
	}
	raw := d.waitMail(t, d.send(t, unique(t, "a"), object{"headers": headers}))
	wellFormed(t, raw)
	p := readMail(t, raw)
	for name, want := range sent {
		got, err := p.header.Text(name)
		if name == "X-Encoded" {
			continue // told apart below: whether it is decoded or not, nothing but itself may come of it
		}
		if err != nil || strings.Join(strings.Fields(got), " ") != want || !p.header.Has(name) {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	raw = d.waitMail(t, d.send(t, unique(t, "b"), object{"headers": object{"X-Blankless": strings.Repeat("x", 5000)}}))
	for i, line := range bytes.Split(raw, []byte("\r\n")) {
		if len(line) > 998 {
			t.Errorf("line %d has %d bytes", i+1, len(line))
		}
	}
}

// mimeReserved offers header fields that belong to the platform. Each may be refused or left out; none may be doubled,
// show a hidden recipient or break the mail's structure.
func mimeReserved(t *testing.T, d *dev) {
	for _, name := range []string{"Bcc", "To", "Cc", "From", "Sender", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Return-Path", "Received",
		"DKIM-Signature", "Resent-To", "Resent-Bcc", "Delivered-To", "X-Originating-To", "bCC", "CONTENT-TYPE", "Envelope-To"} {
		t.Run(name, func(t *testing.T) {
			const value = "text/html; x=evil@example.org"
			status, v, err := d.call(send, mail(unique(t, "a"), object{"headers": object{name: value}, "html": "<p>x</p>"}))
			if status == 422 {
				return
			}
			if err != nil || status != 200 {
				t.Fatalf("%d %v %v", status, v, err)
			}
			raw := d.waitMail(t, v.([]any)[0].(object)["_id"].(string))
			wellFormed(t, raw)
			p := readMail(t, raw)
			if p.subject == "" || lines(p.text) != "hello" || p.html == "" || len(p.to) != 1 || p.to[0] != unique(t, "a") {
				t.Errorf("the mail is broken by %s:\n%s", name, raw)
			}
			if n := d.mailsTo(t, "evil@example.org"); n != 0 {
				t.Errorf("%s made a recipient: %d mails", name, n)
			}
		})
	}
}

func mimeAutomatic(t *testing.T, d *dev) {
	html := `<html><head><style>p{color:red}</style><script>alert(1)</script></head><body><h1>Größe</h1><p>one &amp; two<br>three</p><a href="https://example.com/x">link</a></body></html>`
	raw := d.waitMail(t, d.send(t, unique(t, "a"), object{"html": html, "text": nil, "auto_text": true}))
	wellFormed(t, raw)
	p := readMail(t, raw)
	for _, want := range []string{"Größe", "one & two", "three", "https://example.com/x"} {
		if !strings.Contains(p.text, want) {
			t.Errorf("the text made of the HTML lacks %q: %q", want, p.text)
		}
	}
	if strings.Contains(p.text, "<p") || strings.Contains(p.text, "color") || strings.Contains(p.text, "alert") || lines(p.html) != html {
		t.Errorf("text %q html %q", p.text, p.html)
	}
	raw = d.waitMail(t, d.send(t, unique(t, "b"), object{"html": html, "text": nil, "auto_text": false}))
	if p = readMail(t, raw); p.text != "" {
		t.Errorf("a text part nobody asked for: %q", p.text)
	}
	raw = d.waitMail(t, d.send(t, unique(t, "c"), object{"text": "a <b> & c\n\nd", "auto_html": true}))
	if p = readMail(t, raw); !strings.Contains(p.html, "a &lt;b&gt; &amp; c") {
		t.Errorf("the HTML made of the text is %q", p.html)
	}
	raw = d.waitMail(t, d.send(t, unique(t, "d"), object{"text": "mine", "html": html, "auto_text": true}))
	if p = readMail(t, raw); lines(p.text) != "mine" {
		t.Errorf("auto_text replaced the text: %q", p.text)
	}
}
