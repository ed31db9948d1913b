package compose

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"

	"github.com/postrider/postrider/sender"
)

// hardCases are contents that break a careless composer. Two independent parsers read what becomes of them.
func hardCases() map[string]sender.Content {
	long := strings.Repeat("word ", 300)
	giant := strings.Repeat("x", 5000)
	pdf := []byte("%PDF-1.7\x00\xff\r\n\n\r")
	return map[string]sender.Content{
		"plain":          {Subject: "Hello", Text: "Hi\r\nthere\r\n"},
		"empty":          {},
		"html only":      {Subject: "a", HTML: "<p>b"},
		"both":           {Subject: "a", Text: "t", HTML: "<p>b"},
		"unicode":        {From: sender.Address{Email: "a@example.com", Name: "Ünï Cödé 漢字"}, Subject: "漢字かな交じり文 🎉 ünï", Text: "漢字\n", HTML: "<b>漢字🎉</b>"},
		"long unicode":   {From: sender.Address{Email: "a@example.com", Name: strings.Repeat("é漢🎉 ", 30)}, Subject: strings.Repeat("é漢🎉a ", 80) + "é", Text: strings.Repeat("é", 3000)},
		"long subject":   {Subject: long + "end", Text: long},
		"giant word":     {Subject: giant, Text: giant, HTML: giant},
		"blanks":         {Subject: "  two  blanks\tand a tab ", Text: " \t\n  \n\t"},
		"looks encoded":  {From: sender.Address{Email: "a@example.com", Name: "=?utf-8?q?x?="}, Subject: "=?utf-8?q?x?=", Text: "=?utf-8?q?x?= =3D"},
		"specials":       {From: sender.Address{Email: "a@example.com", Name: `Doe, "Joe" (x) \ <b@c.d>; A.`}, Subject: `"a" <b> (c);`, Text: "x"},
		"long specials":  {From: sender.Address{Email: "a@example.com", Name: strings.Repeat(`Doe, "Joe" \ `, 20) + "."}, Text: "x"},
		"long atoms":     {From: sender.Address{Email: "a@example.com", Name: strings.Repeat("Joe ", 80) + "Doe"}, Text: "x"},
		"line ends":      {Subject: "a", Text: "a\rb\nc\r\nd\r\r\n\n\re", HTML: "<p>é\ra\nb\r\nc\r"},
		"nul":            {Subject: "a", Text: "a\x00b\x01c", HTML: "\x00"},
		"dots":           {Subject: ".", Text: ".\n..\n.a\n\n.", HTML: "."},
		"998":            {Subject: "a", Text: strings.Repeat("x", 998) + "\n", HTML: strings.Repeat("x", 999)},
		"blanks at ends": {Subject: "a", Text: "é \né\t\n " + strings.Repeat("=", 80) + " ", HTML: strings.Repeat("é ", 100)},
		"boundaries":     {Subject: "a", Text: "--=_4de96682fe1bbb4033b786f0a--\n--\n--=_", HTML: "--=_4de96682fe1bbb4033b786f0a"},
		"files": {Subject: "a", Text: "t", Attachments: []sender.Attachment{
			{Type: "application/pdf", Name: "a.pdf", Content: pdf},
			{Type: "nonsense", Name: "", Content: nil},
			{Type: "text/csv; charset=\"x y\"", Name: "Übersicht – \"März\" \\ 100%.csv", Content: []byte("a;ü\n")},
			{Type: "text/calendar; method=REQUEST", Name: "invite.ics", Content: []byte("BEGIN:VCALENDAR\r\n")},
			{Type: "message/rfc822", Name: "clean.eml", Content: []byte("Subject: x\r\n\r\nhi\r\n")},
			{Type: "message/rfc822", Name: "wide.eml", Content: []byte("Subject: x\r\n\r\né\r\n")},
			{Type: "multipart/mixed", Name: "m", Content: []byte("x")},
			{Type: "a/b", Name: strings.Repeat("漢字 ", 60) + ".txt", Content: bytes.Repeat([]byte("12345678"), 1000)},
			{Type: "a/b", Name: strings.Repeat("long name ", 30) + "' * % .txt", Content: bytes.Repeat([]byte("x"), 57)},
		}},
		"images":         {Subject: "a", Text: "t", HTML: "<img src=cid:i>", Images: []sender.Attachment{{Type: "image/png", Name: "i", Content: pdf}, {Type: "image/gif", Name: "my <ï>.gif", Content: pdf}}},
		"images, html":   {Subject: "a", HTML: "<img src=cid:i>", Images: []sender.Attachment{{Type: "image/png", Name: "i", Content: pdf}}},
		"images, text":   {Subject: "a", Text: "t", Images: []sender.Attachment{{Type: "image/png", Name: "i", Content: pdf}}},
		"everything":     {Subject: "é", Text: "é", HTML: "é", Images: []sender.Attachment{{Type: "image/png", Name: "i", Content: pdf}}, Attachments: []sender.Attachment{{Type: "a/b", Name: "é", Content: pdf}}},
		"auto text":      {Subject: "a", HTML: "<h1>Hi</h1><p>you", AutoText: true},
		"auto html":      {Subject: "a", Text: "a & b\nc\n\nd", AutoHTML: true},
		"not utf-8":      {From: sender.Address{Email: "a@example.com", Name: "J\xfcrgen"}, Subject: "Gr\xfc\xdfe", Text: "\xff\xfe", HTML: "<p>\xe9"},
		"odd characters": {Subject: "a\u2028b\u0085c\x7fd\x1be\u202e", Text: "a\u2028b\x7f\x1b\u0085"},
		"headers":        {Subject: "a", Text: "x", Headers: []sender.Header{{Name: "X-Long", Value: long}, {Name: "X-Giant", Value: giant}, {Name: strings.Repeat("X", 76), Value: "é" + giant}, {Name: "X-Empty", Value: " "}}},
	}
}

// seen is what a reader gets from a mail: the shape of its tree, and everything in it.
type seen struct {
	Tree     string
	Subject  string
	FromName string
	Text     string
	HTML     string
	Names    []string
	Files    [][]byte
}

// expected is what a reader must get from a mail of c. The last line of a body that is the whole mail gets an end.
func expected(c sender.Content) seen {
	text, html := bodies(&c)
	w := seen{Subject: valid(c.Subject), FromName: strings.Trim(valid(c.From.Name), " \t"), Text: lines(text), HTML: lines(html)}
	switch {
	case html == "":
		w.Tree = "text/plain"
	case text == "":
		w.Tree = related("text/html", len(c.Images))
	default:
		w.Tree = "alternative(text/plain " + related("text/html", len(c.Images)) + ")"
	}
	loose := ""
	for i, f := range files(c.Images, "inline", "image-") {
		if html == "" {
			loose += " " + typeOf(f)
		}
		w.Names, w.Files = append(w.Names, f.name), append(w.Files, c.Images[i].Content)
	}
	for i, f := range files(c.Attachments, "attachment", "attachment-") {
		loose += " " + typeOf(f)
		content := c.Attachments[i].Content
		if f.transfer == sevenBit {
			content = []byte(lines(string(content)))
		}
		w.Names, w.Files = append(w.Names, f.name), append(w.Files, content)
	}
	if loose != "" {
		w.Tree = "mixed(" + w.Tree + loose + ")"
	}
	if !strings.Contains(w.Tree, "(") {
		w.Text, w.HTML = ended(w.Text), ended(w.HTML)
	}
	return w
}

func related(html string, images int) string {
	if images == 0 {
		return html
	}
	return "related(" + html + strings.Repeat(" image", images) + ")"
}

// typeOf shortens images to their first half: their subtypes are of no interest here.
func typeOf(p part) string { return shortType(strings.Split(p.mediaType, ";")[0]) }

func shortType(s string) string {
	if strings.HasPrefix(s, "image/") {
		return "image"
	}
	return s
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func lines(s string) string { return string(appendCRLF(nil, valid(s))) }

func ended(s string) string {
	if s == "" || strings.HasSuffix(s, lineEnd) || textPart("", s).transfer == inBase64 {
		return s
	}
	return s + lineEnd
}

// read takes a mail apart with go-message.
func read(t testing.TB, b []byte) seen {
	t.Helper()
	e, err := message.Read(bytes.NewReader(b))
	if err != nil && !message.IsUnknownCharset(err) {
		t.Fatalf("%v in\n%q", err, b)
	}
	h := mail.Header{Header: e.Header}
	var s seen
	if s.Subject, err = h.Subject(); err != nil {
		t.Fatalf("subject: %v in\n%s", err, b)
	}
	from, err := h.AddressList("From")
	if err != nil || len(from) != 1 {
		t.Fatalf("from: %v, %v in\n%s", from, err, b)
	}
	s.FromName = from[0].Name
	s.Tree = walk(t, e, &s)
	return s
}

func walk(t testing.TB, e *message.Entity, s *seen) string {
	t.Helper()
	mediaType, _, err := e.Header.ContentType()
	if err != nil {
		t.Fatalf("content type: %v", err)
	}
	if mr := e.MultipartReader(); mr != nil {
		var parts []string
		for {
			p, err := mr.NextPart()
			if errors.Is(err, io.EOF) {
				return strings.TrimPrefix(mediaType, "multipart/") + "(" + strings.Join(parts, " ") + ")"
			}
			if err != nil && !message.IsUnknownCharset(err) {
				t.Fatal(err)
			}
			parts = append(parts, walk(t, p, s))
		}
	}
	body, err := io.ReadAll(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	ah := mail.AttachmentHeader{Header: e.Header}
	switch name, err := ah.Filename(); {
	case err != nil:
		t.Fatalf("file name: %v", err)
	case name != "":
		s.Names, s.Files = append(s.Names, name), append(s.Files, body)
	case mediaType == "text/html":
		s.HTML = string(body)
	default:
		s.Text = string(body)
	}
	return shortType(mediaType)
}

func compare(t testing.TB, got, want seen) {
	t.Helper()
	for _, f := range []struct{ name, got, want string }{
		{"tree", got.Tree, want.Tree}, {"subject", got.Subject, want.Subject}, {"from", got.FromName, want.FromName},
		{"text", got.Text, want.Text}, {"html", got.HTML, want.HTML}, {"names", strings.Join(got.Names, "|"), strings.Join(want.Names, "|")},
	} {
		if f.got != f.want {
			t.Errorf("%s:\n got %q\nwant %q", f.name, f.got, f.want)
		}
	}
	for i := range want.Files {
		if i < len(got.Files) && !bytes.Equal(got.Files[i], want.Files[i]) {
			t.Errorf("file %d: got %q, want %q", i, got.Files[i], want.Files[i])
		}
	}
}

func TestGoMessageReadsTheHardCases(t *testing.T) {
	for name, c := range hardCases() {
		t.Run(name, func(t *testing.T) {
			compare(t, read(t, mustMessage(t, mailOf(c))), expected(c))
		})
	}
}

func FuzzMessage(f *testing.F) {
	for _, c := range hardCases() {
		name, content := "", []byte(nil)
		if len(c.Attachments) > 0 {
			name, content = c.Attachments[0].Name, c.Attachments[0].Content
		}
		for i, auto := range []bool{false, true} {
			f.Add(c.From.Name, c.Subject, c.Text, c.HTML, name, "text/plain", "é "+name, content, i == 0, auto)
		}
	}
	f.Fuzz(func(t *testing.T, from, subject, text, html, file, kind, value string, content []byte, image, auto bool) {
		c := sender.Content{From: sender.Address{Email: "a@example.com", Name: from}, Subject: subject, Text: text, HTML: html, AutoText: auto, AutoHTML: auto,
			Headers: []sender.Header{{Name: "X-Value", Value: value}}}
		if content != nil {
			c.Attachments = []sender.Attachment{{Type: kind, Name: file, Content: content}}
		}
		if image {
			c.Images = []sender.Attachment{{Type: "image/png", Name: file, Content: content}}
		}
		b, err := Message(mailOf(c))
		if strings.ContainsAny(from+subject+file+kind+value, "\r\n\x00") {
			if err == nil {
				t.Fatal("a line break or NUL went into a header")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		checkWire(t, b)
		got, want := read(t, b), expected(c)
		if strings.Contains(file, "=?") || strings.HasPrefix(mediaType(kind), "message/") || strings.Contains(mediaType(kind), "charset") || strings.HasPrefix(mediaType(kind), "text/") {
			// go-message decodes encoded-words in file names, and charsets of files.
			got.Names, want.Names, got.Files, want.Files = nil, nil, nil, nil
		}
		compare(t, got, want)
	})
}
