package compose

import (
	"regexp"
	"strings"

	"golang.org/x/net/html"

	"github.com/postrider/postrider/sender"
)

// maxAuto bounds in bytes what the other form is made from: half a text would be worse than none.
const maxAuto = 1 << 20

var blankLines = regexp.MustCompile(`\n[ \t]*\n\s*`)

// bodies are the two forms of what a submission says, each made from the other where it asks for that.
func bodies(c *sender.Content) (text, html string) {
	text, html = c.Text, c.HTML
	if c.AutoText && text == "" && len(html) <= maxAuto {
		text = textFrom(html)
	}
	if c.AutoHTML && c.HTML == "" && len(c.Text) <= maxAuto {
		html = htmlFrom(c.Text)
	}
	return text, html
}

// htmlFrom shows a text as it is: paragraphs where it has blank lines, breaks where it has line ends.
func htmlFrom(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n")
	for _, paragraph := range blankLines.Split(text, -1) {
		b.WriteString("<p>" + strings.ReplaceAll(html.EscapeString(paragraph), "\n", "<br>\n") + "</p>\n")
	}
	b.WriteString("</body></html>\n")
	return b.String()
}

// textFrom is what an HTML page says, for readers without HTML: one pass over its tokens, so that no
// page, however broken, takes longer than its length.
func textFrom(page string) string {
	z := html.NewTokenizer(strings.NewReader(page))
	var t textWriter
	for {
		switch z.Next() {
		case html.ErrorToken: // the end: a string has no other
			return t.b.String()
		case html.TextToken:
			t.text(string(z.Text()))
		case html.StartTagToken, html.SelfClosingTagToken:
			t.open(z.Token())
		case html.EndTagToken:
			t.close(z.Token().Data)
		}
	}
}

// textWriter lays out text: blanks run together, breaks wait until a word follows.
type textWriter struct {
	b      strings.Builder
	breaks int    // line ends due before the next word
	space  bool   // a space is due before the next word
	skip   string // the element whose content is not text, while within it
	href   string // where the open link leads
	label  int    // where that link's text starts in b
}

func (t *textWriter) text(raw string) {
	if t.skip != "" || raw == "" {
		return
	}
	s := html.UnescapeString(raw)
	words := strings.Fields(s)
	t.space = t.space || strings.TrimLeft(s, " \t\r\n\f\u00a0") != s
	for i, w := range words {
		t.space = t.space || i > 0
		t.word(w)
	}
	t.space = t.space || len(words) > 0 && strings.TrimRight(s, " \t\r\n\f\u00a0") != s
}

func (t *textWriter) word(w string) {
	switch {
	case t.b.Len() == 0:
	case t.breaks > 0:
		t.b.WriteString("\n\n"[:min(t.breaks, 2)])
	case t.space:
		t.b.WriteByte(' ')
	}
	t.breaks, t.space = 0, false
	t.b.WriteString(w)
}

func (t *textWriter) open(tag html.Token) {
	if t.skip != "" {
		return
	}
	switch tag.Data {
	case "script", "style", "title", "iframe", "noembed", "noframes":
		if tag.Type == html.StartTagToken {
			t.skip = tag.Data
		}
	case "br":
		t.breaks++
	case "hr":
		t.breaks = 1
		t.word("---")
		t.breaks = 1
	case "li":
		t.breaks = max(t.breaks, 1)
		t.word("-")
		t.space = true
	case "img":
		t.text(html.EscapeString(attribute(tag, "alt")))
	case "a":
		t.link()
		t.href, t.label = attribute(tag, "href"), t.b.Len()
	default:
		t.around(tag.Data)
	}
}

func (t *textWriter) close(name string) {
	switch {
	case t.skip == name:
		t.skip = ""
	case t.skip != "":
	case name == "a":
		t.link()
	default:
		t.around(name)
	}
}

// around sets off an element from what stands before and behind it.
func (t *textWriter) around(name string) {
	switch name {
	case "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre":
		t.breaks = 2
	case "div", "tr", "li", "dt", "dd", "section", "article", "header", "footer", "address", "center", "caption":
		t.breaks = max(t.breaks, 1)
	case "td", "th":
		t.space = true
	}
}

// link writes where the link that ends here leads, unless its text says so.
func (t *textWriter) link() {
	href := strings.Join(strings.Fields(t.href), "")
	t.href = ""
	scheme, rest, _ := strings.Cut(href, ":")
	switch strings.ToLower(scheme) {
	case "http", "https", "mailto", "tel":
	default:
		return // fragments and scripts lead nowhere in a text
	}
	if label := strings.TrimSpace(t.b.String()[t.label:]); label == href || label == rest {
		return
	}
	t.space = t.label < t.b.Len() || t.space
	t.word("<" + href + ">")
}

func attribute(tag html.Token, name string) string {
	for _, a := range tag.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
