package sandbox

import (
	"bytes"
	"io"
	"iter"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/emersion/go-message"
	"golang.org/x/net/html"
)

const (
	maxDepth     = 20
	maxParts     = 1_000
	snippetRunes = 250
)

// attachment describes a part that is not the text of a mail, in the inbox API.
type attachment struct {
	PartID      string // its number, counted from 1 in the order of the mail
	FileName    string
	ContentType string
	ContentID   string // without its angle brackets
	Size        int64  // bytes, decoded
}

// content is the parts of a mail, decoded.
type content struct {
	text, html       string
	inline, attached []attachment
}

// file is one part with its bytes.
type file struct {
	attachment
	bytes []byte
}

// glance is what a list shows of a mail's parts.
type glance struct {
	snippet     string
	attachments int
}

// look reads the parts for a list when they are first asked for.
func (m *letter) look() *glance {
	m.glanceOnce.Do(func() {
		c := m.content()
		m.glance.attachments = len(c.attached)
		if m.glance.snippet = snippet(c.text); m.glance.snippet == "" {
			m.glance.snippet = snippet(plain(c.html))
		}
	})
	return &m.glance
}

func (m *letter) content() content {
	w := walker{inline: []attachment{}, attached: []attachment{}}
	w.read(m.raw)
	return content{text: w.text.String(), html: w.html.String(), inline: w.inline, attached: w.attached}
}

// file returns the part with that number, or nil.
func (m *letter) file(id string) *file {
	w := walker{wanted: id}
	w.read(m.raw)
	return w.found
}

// walker goes through the parts of a mail: at most 20 levels deep and 1,000 parts, the rest is not looked at.
type walker struct {
	text, html       strings.Builder
	inline, attached []attachment
	count            int
	wanted           string // the number of the part whose bytes are asked for; empty for none
	found            *file
}

// read goes as far as the mail can be understood.
func (w *walker) read(raw []byte) {
	if e, _ := message.Read(bytes.NewReader(raw)); e != nil {
		w.walk(e, 0)
	}
}

func (w *walker) walk(e *message.Entity, depth int) {
	parts := e.MultipartReader()
	if parts == nil {
		w.leaf(e)
		return
	}
	if depth == maxDepth {
		return
	}
	for w.count < maxParts {
		part, err := parts.NextPart()
		if part == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
			return
		}
		w.walk(part, depth+1)
	}
}

func (w *walker) leaf(e *message.Entity) {
	w.count++
	media, params, _ := e.Header.ContentType()
	disposition, dispositionParams, _ := e.Header.ContentDisposition()
	a := attachment{
		PartID:      strconv.Itoa(w.count),
		FileName:    fileName(dispositionParams["filename"], params["name"]),
		ContentType: strings.ToLower(media),
		ContentID:   strings.Trim(e.Header.Get("Content-Id"), "<> \t"),
	}
	isText := a.ContentType == "text/plain" || a.ContentType == "text/html" || a.ContentType == ""
	switch {
	case w.wanted != "":
		if w.wanted == a.PartID {
			b, _ := io.ReadAll(e.Body)
			a.Size = int64(len(b))
			w.found = &file{attachment: a, bytes: b}
		}
	case isText && disposition != "attachment" && a.FileName == "":
		w.addText(e.Body, a.ContentType == "text/html")
	default:
		a.Size, _ = io.Copy(io.Discard, e.Body)
		if disposition == "inline" || disposition == "" && a.ContentID != "" {
			w.inline = append(w.inline, a)
		} else {
			w.attached = append(w.attached, a)
		}
	}
}

// addText keeps what could be decoded, however the decoding ended.
func (w *walker) addText(body io.Reader, isHTML bool) {
	b, _ := io.ReadAll(body)
	into := &w.text
	if isHTML {
		into = &w.html
	}
	if into.Len() > 0 {
		into.WriteByte('\n')
	}
	into.WriteString(valid(string(b)))
}

// fileName takes the first name there is, without any folders.
func fileName(names ...string) string {
	for _, name := range names {
		name = path.Base(strings.ReplaceAll(valid(name), `\`, "/"))
		if name != "." && name != "/" && name != ".." {
			return name
		}
	}
	return ""
}

func snippet(s string) string {
	s = strings.Join(strings.Fields(s[:min(len(s), 20*snippetRunes)]), " ")
	if r := []rune(valid(s)); len(r) > snippetRunes {
		return string(r[:snippetRunes])
	}
	return valid(s)
}

// plain is the text that a reader of an HTML document sees.
func plain(doc string) string {
	var b strings.Builder
	unseen := false
	z := html.NewTokenizer(strings.NewReader(doc))
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			return b.String()
		case html.StartTagToken, html.EndTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "style", "script", "title":
				unseen = kind == html.StartTagToken
			}
			b.WriteByte(' ')
		case html.TextToken:
			if !unseen {
				b.Write(z.Text())
			}
		}
	}
}

// links are the absolute http and https addresses in an attribute of a tag, in the order of the document.
func links(doc, tag, attribute string) iter.Seq[*url.URL] {
	return func(yield func(*url.URL) bool) {
		z := html.NewTokenizer(strings.NewReader(doc))
		for {
			switch z.Next() {
			case html.ErrorToken:
				return
			case html.StartTagToken, html.SelfClosingTagToken:
				token := z.Token()
				if token.Data != tag {
					continue
				}
				for _, a := range token.Attr {
					if u := webURL(a.Val); a.Key == attribute && u != nil && !yield(u) {
						return
					}
				}
			}
		}
	}
}

var webAddress = regexp.MustCompile(`https?://[^\s<>"']+`)

// textLinks are the http and https addresses that stand in a plain text.
func textLinks(text string) iter.Seq[*url.URL] {
	return func(yield func(*url.URL) bool) {
		for _, s := range webAddress.FindAllString(text, maxParts) {
			if u := webURL(s); u != nil && !yield(u) {
				return
			}
		}
	}
}

func webURL(s string) *url.URL {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	return u
}
