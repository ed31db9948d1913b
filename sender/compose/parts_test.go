package compose

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

func TestHeaderLines(t *testing.T) {
	many := make([]sender.Recipient, 1000)
	for i := range many {
		many[i].Address = sender.Address{Email: strings.Repeat("a", 64) + "@example.com", Name: "Ann"}
	}
	for _, tt := range []struct {
		name string
		c    sender.Content
		most int // bytes of the longest header line
	}{
		{"long subject", sender.Content{Subject: strings.Repeat("word ", 100) + "end"}, 78},
		{"long unicode subject", sender.Content{Subject: strings.Repeat("漢字 ", 100)}, 78},
		{"long name", sender.Content{From: sender.Address{Email: "a@example.com", Name: strings.Repeat("Ünï ", 60)}}, 78},
		{"many recipients", sender.Content{PreserveRecipients: true, Recipients: many}, 86}, // one address alone may be longer
		{"long file name", sender.Content{Attachments: []sender.Attachment{{Name: strings.Repeat("漢", 80)}}}, 78},
		{"one giant word", sender.Content{Subject: strings.Repeat("x", 2000)}, 78},
		{"a word that fits a line", sender.Content{Subject: "a " + strings.Repeat("x", 800)}, 801},
		{"giant structured value", sender.Content{Headers: []sender.Header{{Name: "List-Unsubscribe", Value: "<https://example.com/" + strings.Repeat("u", 3000) + ">"}}}, 78},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _, _ := strings.Cut(string(mustMessage(t, mailOf(tt.c))), "\r\n--=_")
			for line := range strings.SplitSeq(h, lineEnd) {
				if len(line) > tt.most {
					t.Errorf("%d bytes: %s", len(line), line)
				}
			}
		})
	}
}

func TestEncodedWords(t *testing.T) {
	for in, want := range map[string]string{
		"Grüße":            "=?utf-8?b?R3LDvMOfZQ==?=",
		"Hello Zoë, hello": "=?utf-8?q?Hello_Zo=C3=AB=2C_hello?=",
		"漢字":               "=?utf-8?b?5ryi5a2X?=",
		" a":               "=?utf-8?q?_a?=",
		"=?x?=":            "=?utf-8?b?PT94Pz0=?=",
		"plain":            "plain",
	} {
		f := begin(nil, "Subject")
		f.text(in)
		if got := string(f.end()); got != "Subject: "+want+lineEnd {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func TestMailbox(t *testing.T) {
	for name, want := range map[string]string{
		"":             "a@example.com",
		"  ":           "a@example.com",
		"Ann Doe":      "Ann Doe <a@example.com>",
		"Doe, Ann":     `"Doe, Ann" <a@example.com>`,
		`A "B" \ C`:    `"A \"B\" \\ C" <a@example.com>`,
		"a@b.c":        `"a@b.c" <a@example.com>`,
		"Two  Blanks":  `"Two  Blanks" <a@example.com>`,
		"Zoë":          "=?utf-8?q?Zo=C3=AB?= <a@example.com>",
		"Hi Zoë":       "=?utf-8?q?Hi_Zo=C3=AB?= <a@example.com>",
		"\u202e":       "=?utf-8?b?4oCu?= <a@example.com>",
		"bad \xff end": "=?utf-8?b?YmFkIO+/vSBlbmQ=?= <a@example.com>",
	} {
		f := begin(nil, "To")
		f.mailbox(sender.Address{Email: "a@example.com", Name: name}, "")
		if got := string(f.end()); got != "To: "+want+lineEnd {
			t.Errorf("%q: got %q", name, got)
		}
	}
}

func TestAddressHeaders(t *testing.T) {
	for in, want := range map[string]string{
		"Ann <a@example.com>, b@example.com":      "Ann <a@example.com>, b@example.com",
		"Zoë <a@example.com>, \"B, C\" <b@e.com>": `=?utf-8?q?Zo=C3=AB?= <a@example.com>, "B, C" <b@e.com>`,
		"ä@example.com":                           "ä@example.com",
		"ä <\"a> b\"@example.com>":                "=?utf-8?b?w6QgPCJhPiBiIkBleGFtcGxlLmNvbT4=?=",
	} {
		h := headerOf(mustMessage(t, mailOf(sender.Content{Text: "x", Headers: []sender.Header{{Name: "Reply-To", Value: in}}})))
		if !strings.Contains(h, "\r\nReply-To: "+want+lineEnd) {
			t.Errorf("%s: no %q in\n%s", in, want, h)
		}
	}
}

func TestChoiceOfTransfer(t *testing.T) {
	for in, want := range map[string]transfer{
		"":                                   sevenBit,
		"a\r\nb\tc\n":                        sevenBit,
		strings.Repeat("x", 998) + "\r\n":    sevenBit,
		strings.Repeat("x", 999) + "\r\n":    quotedPrintable,
		"a long line of text with one é":     quotedPrintable,
		"漢字漢字":                               inBase64,
		"mostly plain text with a \x00 byte": quotedPrintable,
		"text with DEL \x7f":                 quotedPrintable,
	} {
		if got := textPart("text/plain", in).transfer; got != want {
			t.Errorf("%.40q: got %s, want %s", in, got, want)
		}
	}
}

func TestMediaTypes(t *testing.T) {
	for in, want := range map[string]string{
		"image/PNG": "image/png",
		"":          octets,
		"pdf":       octets,
		"a/b/c":     octets,
		"a/b c":     octets,
		"é/b":       octets,
		"text/plain; charset=iso-8859-1; name=\"a b\"": "text/plain; charset=iso-8859-1",
		"text/calendar; method=REQUEST":                "text/calendar; method=REQUEST",
		"text/plain; charset=\"a b\"":                  "text/plain",
		"text/plain; charset":                          "text/plain",
		"a/" + strings.Repeat("b", 200):                octets,
	} {
		if got := mediaType(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestContentID(t *testing.T) {
	for in, want := range map[string]string{"logo": "logo", "a b>.png": "a%20b%3E.png", "é": "%C3%A9", "a@b.c": "a@b.c", "a%20b": "a%20b"} {
		if got := string(appendContentID(nil, in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if n := len(appendContentID(nil, strings.Repeat("é", 2000))); n > maxContentID+9 {
		t.Errorf("%d bytes", n)
	}
}

// TestBoundaryAvoidsTheParts gives a mail the very boundary that its id leads to.
func TestBoundaryAvoidsTheParts(t *testing.T) {
	m := mailOf(sender.Content{Text: "t", HTML: "h"})
	first := boundary(testID, &part{})
	m.Content.Text = "--" + first + "a--\r\nx\r\n--" + first + "a"
	b := mustMessage(t, m)
	if n := strings.Count(string(b), first); n != 2 {
		t.Errorf("the boundary stands %d times in\n%s", n, b)
	}
	compare(t, read(t, b), expected(*m.Content))
}

func TestAutoText(t *testing.T) {
	for in, want := range map[string]string{
		"<p>Hi</p><p>you": "Hi\n\nyou",
		"<head><title>T</title><style>p > a {}</style></head><body>x<script>if (a < b) {}</script> y": "x y",
		"<div>a</div><div>b</div>":                                                   "a\nb",
		"a<br>b<br/><br>c":                                                           "a\nb\n\nc",
		"<ul><li>one<li>two</ul>z":                                                   "- one\n- two\n\nz",
		"<table><tr><td>a</td><td>b</td></tr><tr><td>c</table>":                      "a b\nc",
		`<a href="https://example.com/?a=1&amp;b=2">Click here</a>.`:                 "Click here <https://example.com/?a=1&b=2>.",
		`<a href="https://example.com">https://example.com</a>`:                      "https://example.com",
		`<a href="mailto:a@example.com">a@example.com</a>`:                           "a@example.com",
		`<a name="top">Top</a> and </a> more <a href="javascript:x()">no</a>`:        "Top and more no",
		`<a href="https://example.com"><img alt="Our &amp; logo" title="a > b"></a>`: "Our & logo <https://example.com>",
		"a<!-- hidden > comment -->b &lt;i&gt; &nbsp; &euro;":                        "ab <i> €",
		"a <b>b</b>c\n  d":                                                           "a bc d",
		"<>>>>> < & &amp":                                                            "<>>>>> < & &",
		"<style>unclosed":                                                            "",
		"":                                                                           "",
		"x<hr>y":                                                                     "x\n---\ny",
		"&lt;p&gt;escaped":                                                           "<p>escaped",
		"<h1>A</h1>\n\n<p>":                                                          "A",
	} {
		if got := textFrom(in); got != want {
			t.Errorf("%s:\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestAutoTextIsLinear(t *testing.T) {
	for _, piece := range []string{">", "<", "&", "<a href=", "<!--", "<p", "</", "<a href='http://x'>", "<li>", "<title>"} {
		textFrom(strings.Repeat(piece, maxAuto/len(piece))) // a quadratic reader would be here for hours
	}
}

func TestAutoHTML(t *testing.T) {
	got := htmlFrom("a <b> & \"c\"\r\nd\r\n\r\n \r\ne\n")
	if want := "<body>\n<p>a &lt;b&gt; &amp; &#34;c&#34;<br>\nd</p>\n<p>e</p>\n</body></html>\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q", got)
	}
	if htmlFrom(" \n") != "" {
		t.Error("nothing became a page")
	}
	c := sender.Content{AutoText: true, AutoHTML: true}
	if text, html := bodies(&c); text != "" || html != "" {
		t.Errorf("nothing became %q and %q", text, html)
	}
	c = sender.Content{AutoText: true, HTML: "<p>" + strings.Repeat("x", maxAuto)}
	if text, _ := bodies(&c); text != "" {
		t.Error("a page over the limit was read")
	}
}

// FuzzTransfer holds the encoders against the decoders of the standard library.
func FuzzTransfer(f *testing.F) {
	for _, c := range hardCases() {
		f.Add(c.Text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := appendCRLF(nil, s)
		if i := strings.IndexAny(strings.ReplaceAll(string(want), lineEnd, ""), "\r\n"); i >= 0 {
			t.Fatalf("a bare CR or LF in %q", want)
		}
		if n := plainSize(s); n >= 0 && n != len(want) {
			t.Errorf("plain size %d of %d", n, len(want))
		}
		quoted := appendQuoted(nil, s)
		for line := range strings.SplitSeq(string(quoted), lineEnd) {
			if len(line) > 76 || strings.TrimRight(line, " \t") != line {
				t.Errorf("line %q", line)
			}
		}
		if got, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(quoted))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("quoted-printable: got %q, %v, want %q", got, err, want)
		}
		coded := appendBase64([]byte("x"), []byte(s))[1:]
		for line := range bytes.SplitSeq(coded, []byte(lineEnd)) {
			if len(line) > 76 {
				t.Errorf("line %q", line)
			}
		}
		if got, err := base64.StdEncoding.DecodeString(string(coded)); err != nil || string(got) != s {
			t.Errorf("base64: got %q, %v", got, err)
		}
		if got := undotted(t, AppendDotStuffed(nil, want)); got != ended7bit(string(want)) {
			t.Errorf("dots: got %q, want %q", got, want)
		}
	})
}

// undotted is what a server makes of DATA (RFC 5321 §4.5.2), line by line.
func undotted(t *testing.T, b []byte) string {
	t.Helper()
	var out strings.Builder
	for rest := string(b); ; {
		line, next, ok := strings.Cut(rest, lineEnd)
		if !ok {
			t.Fatalf("no end in %q", b)
		}
		if line == "." {
			if next != "" {
				t.Fatalf("%q stands behind the end", next)
			}
			return out.String()
		}
		out.WriteString(strings.TrimPrefix(line, ".") + lineEnd)
		rest = next
	}
}

func ended7bit(s string) string {
	if s == "" || strings.HasSuffix(s, lineEnd) {
		return s
	}
	return s + lineEnd
}
