package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// letter is a mail to send and what must be found in it at the other end.
type letter struct {
	name             string
	subject, from    string // from is the display name
	toName           string
	text, html       string
	files, images    []enclosure
	headers          object
	autoText, noBody bool
}

type enclosure struct {
	name, kind string
	content    []byte
}

// testMIME sends what is hard to write as a mail and reads it from the inbox with two readers that are not ours.
func testMIME(t *testing.T, d *dev) {
	var python *pythonReader
	t.Run("round trip", func(t *testing.T) {
		account := d.fresh(t)
		python = newPython(t)
		for _, l := range letters() {
			t.Run(l.name, func(t *testing.T) {
				raw := account.mailOf(t, l)
				wellFormed(t, raw)
				l.check(t, readMail(t, raw))
				python.add(t, l, raw)
			})
		}
	})
	t.Run("round trip, read by Python", func(t *testing.T) { python.check(t) })
	for _, c := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{{"recipients shown", mimeShown}, {"many shown", mimeMany}, {"recipients hidden", mimeHidden}, {"bcc_address", mimeCopy}, {"own headers", mimeHeaders}, {"headers that are ours", mimeReserved}, {"automatic parts", mimeAutomatic}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, d.fresh(t))
		})
	}
}

func letters() []letter {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := make([]byte, 5<<20)
	for i := range large {
		large[i] = byte(i * i >> 7)
	}
	png := enclosure{"logo", "image/png", all}
	file := func(name string, content []byte) []enclosure {
		return []enclosure{{name, "application/octet-stream", content}}
	}
	return []letter{
		{name: "plain", subject: "Hello", text: "hello\n"},
		{name: "unicode", subject: "Größe ≠ 0 – мир 日本語", from: "Fröm Ünï", toName: "日本 太郎", text: "Zażółć gęślą jaźń\n"},
		{name: "emoji", subject: strings.Repeat("👩‍👩‍👧‍👦 ", 30), from: "🚀", toName: "👍🏽", text: "👩‍👩‍👧‍👦\n", html: "<p>👩‍👩‍👧‍👦</p>"},
		{name: "long subject", subject: strings.Repeat("long words of a subject ", 40) + "end"}, {name: "long subject without blanks", subject: strings.Repeat("x", 998)},
		{name: "long subject in unicode", subject: strings.Repeat("ß", 499)}, {name: "blanks in the subject", subject: "a  b\tc   d"},
		{name: "what looks encoded", subject: "=?utf-8?q?not_encoded?= and =?x", from: "=?utf-8?b?eA==?=", toName: "=?utf-8?q?a?=", text: "=?utf-8?q?x?= =3D =\n"},
		{name: "names with marks", from: `Last, First "Nick" \ (comment) <x@y>`, toName: `O'Neil; a@b, c: "`, text: "x"}, {name: "long names", from: strings.Repeat("Ж", 120), toName: strings.Repeat("name ", 50) + "x", text: "x"},
		{name: "long lines", text: strings.Repeat("x", 5000) + "\n" + strings.Repeat("word ", 400) + "\n" + strings.Repeat("ä", 3000), html: "<p>" + strings.Repeat("y", 20_000) + "</p>"},
		{name: "exactly 998", text: strings.Repeat("a", 998) + "\n" + strings.Repeat("b", 999) + "\n"}, {name: "dots", text: ".\n..\n...\n.x\n.\n", html: ".\n<p>.</p>\n.\n"},
		{name: "line ends", text: "crlf\r\nlf\ncr\rmixed\n\r\n\n\rend"}, {name: "from lines", text: "From me\n>From you\nFrom\n"}, {name: "trailing blanks", text: "a \nb\t\n \n\t\nend  "},
		{name: "boundaries", text: "--\n--=\n----boundary--\n--" + strings.Repeat("=", 60) + "\n", html: "<p>--</p>"}, {name: "empty text", noBody: true}, {name: "html alone", html: "<p>only</p>"},
		{name: "blank lines alone", text: "\n\n\n"}, {name: "control characters", text: "a\x01b\x1b[31mc\x7f\u0085\u2028\u200e\ufeffd\n"}, {name: "bidirectional", subject: "שלום \u202Eabc", text: "שלום\u202E\n"},
		{name: "text and html", text: "täxt\n", html: "<p>htmł</p>\n"}, {name: "inline image", text: "t", html: `<img src="cid:logo">`, images: []enclosure{png}},
		{name: "everything", subject: "everything", text: "täxt\n", html: `<img src="cid:logo">`, images: []enclosure{png, {"photo@1", "image/jpeg", []byte("x")}},
			files: []enclosure{{"Rechnung März.pdf", "application/pdf", all}, {"日本語の長いファイル名前.txt", "text/plain", []byte("a\r\nb\nc\r\r\n. \n")}}},
		{name: "file names", text: "x", files: []enclosure{{`a "quoted" \ name;=%20'*.txt`, "text/plain", []byte("1")}, {strings.Repeat("ü", 120) + ".x", "a/b", []byte("2")}, {strings.Repeat("n", 250) + ".x", "a/b", []byte("3")}, {"../../etc/passwd", "a/b", []byte("4")}, {"👍.zip", "application/zip", []byte("5")}}},
		{name: "text files", text: "x", files: []enclosure{{"a.txt", "text/plain", []byte("one\ntwo\r\nthree\rfour \n\n")}, {"b.html", "text/html; charset=utf-8", []byte("\xe4\xf6")}, {"c.ics", "text/calendar; method=REQUEST", []byte("BEGIN:VCALENDAR\r\n")}, {"d.csv", "text/csv", []byte("\xef\xbb\xbfa;b\r\n")}}},
		{name: "odd types", text: "x", files: []enclosure{{"mail.eml", "message/rfc822", []byte("Subject: inner\r\n\r\n.\r\nhi\r\n")}, {"x", "", []byte("7")}, {"y", "nonsense", []byte("8")}, {"z", "multipart/mixed", []byte("9")}, {"", "a/b", []byte("10")}}},
		{name: "files without text", noBody: true, files: file("a.bin", all)}, {name: "empty file", text: "x", files: file("empty.bin", nil)}, {name: "one byte", text: "x", files: file("one", []byte{0})},
		{name: "same names", text: "x", files: append(file("a", []byte("1")), file("a", []byte("2"))...)}, {name: "5 MiB", text: "x", files: file("large.bin", large)},
	}
}

// mailOf sends a letter and returns what arrived.
func (d *dev) mailOf(t *testing.T, l letter) []byte {
	t.Helper()
	m := object{"subject": l.subject, "from_name": l.from, "text": l.text, "html": l.html, "headers": l.headers, "auto_text": l.autoText, "to": []object{{"email": l.to(t), "name": l.toName}}}
	if l.noBody {
		m["text"] = nil
	}
	for field, list := range map[string][]enclosure{"attachments": l.files, "images": l.images} {
		var out []object
		for _, f := range list {
			out = append(out, object{"name": f.name, "type": f.kind, "content": base64.StdEncoding.EncodeToString(f.content)})
		}
		m[field] = out
	}
	return d.waitMail(t, d.send(t, l.to(t), m))
}

func (l letter) to(t *testing.T) string { return unique(t, "reader") }

// wellFormed holds the bytes to RFC 5322 §2.1: lines of at most 998 bytes that end in CRLF, and a header in ASCII.
func wellFormed(t *testing.T, raw []byte) {
	t.Helper()
	for i, line := range bytes.Split(raw, []byte("\r\n")) {
		if len(line) > 998 {
			t.Errorf("line %d has %d bytes: %.80q", i+1, len(line), line)
		}
		if bytes.ContainsAny(line, "\r\n") {
			t.Errorf("line %d has a bare CR or LF: %.80q", i+1, line)
		}
	}
	head, _, found := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !found {
		t.Errorf("no end of the header:\n%.300s", raw)
	}
	for _, b := range head {
		if b >= 0x80 || b == 0 {
			t.Errorf("the header is not ASCII:\n%s", head)
			break
		}
	}
	seen := map[string]int{}
	for _, line := range strings.Split(string(head), "\r\n") {
		if name, _, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' {
			seen[strings.ToLower(name)]++
		}
	}
	for _, name := range []string{"from", "to", "subject", "date", "message-id", "mime-version", "content-type"} {
		if seen[name] != 1 && !(name == "subject" && seen[name] == 0) {
			t.Errorf("%d %s fields:\n%s", seen[name], name, head)
		}
	}
	if seen["bcc"] != 0 {
		t.Errorf("a Bcc field:\n%s", head)
	}
}

// lines makes all line ends alike and lets the last ones go: a transport may add one.
func lines(s string) string {
	return strings.TrimRight(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s), "\n")
}

// check compares a letter with what a reader made of it.
func (l letter) check(t *testing.T, got parsed) {
	t.Helper()
	if got.subject != l.subject || got.fromName != l.from || got.toName != l.toName {
		t.Errorf("subject %q from %q to %q\nwant    %q from %q to %q", got.subject, got.fromName, got.toName, l.subject, l.from, l.toName)
	}
	if lines(got.text) != lines(l.text) || lines(got.html) != lines(l.html) {
		t.Errorf("text %.300q html %.300q\nwant %.300q html %.300q", got.text, got.html, l.text, l.html)
	}
	if len(got.files) != len(l.files) || len(got.images) != len(l.images) {
		t.Fatalf("%d files and %d images, want %d and %d", len(got.files), len(got.images), len(l.files), len(l.images))
	}
	for i, f := range l.files {
		if g := got.files[i]; g.name != f.name && f.name != "" || // a file without a name may be given one
			!bytes.Equal(g.content, f.content) {
			t.Errorf("file %d is %q with %d bytes %.60q\nwant    %q with %d bytes %.60q", i, g.name, len(g.content), g.content, f.name, len(f.content), f.content)
		}
	}
	for i, f := range l.images {
		if g := got.images[i]; g.name != f.name || g.kind != f.kind || !bytes.Equal(g.content, f.content) {
			t.Errorf("image %d is %q %s with %d bytes, want %q %s with %d", i, g.name, g.kind, len(g.content), f.name, f.kind, len(f.content))
		}
	}
}

// pythonReader collects mails for one run of Python over all of them.
type pythonReader struct {
	dir     string
	letters []letter
}

func newPython(t *testing.T) *pythonReader {
	dir, err := os.MkdirTemp("", "postrider-e2e-mails-")
	if err != nil {
		t.Fatal(err)
	}
	return &pythonReader{dir: dir}
}

func (p *pythonReader) add(t *testing.T, l letter, raw []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, fmt.Sprintf("%03d.eml", len(p.letters))), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	p.letters = append(p.letters, l)
}
