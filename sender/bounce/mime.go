package bounce

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
)

// fields is a header, or a group of a status report, which has the same form. It is read as kindly as can be:
// a line that makes no sense is skipped, and a fold becomes one space.
type fields []fieldLine

type fieldLine struct {
	name  string
	value []byte
}

const (
	maxFields = 500
	maxValue  = 16 << 10 // bytes that folds may make of a value
)

// get is the first value of a field; empty for none.
func (f fields) get(name string) string {
	for _, l := range f {
		if strings.EqualFold(l.name, name) {
			return string(l.value)
		}
	}
	return ""
}

// cutFields reads the fields before the first empty line, and answers what stands behind it.
func cutFields(b []byte) (f fields, rest []byte) {
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		if len(line) == 0 {
			return f, b
		}
		if (line[0] == ' ' || line[0] == '\t') && len(f) > 0 {
			if last := &f[len(f)-1]; len(last.value) < maxValue {
				last.value = append(append(last.value, ' '), bytes.TrimSpace(line)...)
			}
			continue
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok && len(f) < maxFields {
			f = append(f, fieldLine{string(bytes.TrimSpace(name)), slices.Clip(bytes.TrimSpace(value))}) // an append must not write into b
		}
	}
	return f, nil
}

func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// mail is what a mail holds that a report can be read from.
type mail struct {
	header   fields
	status   []byte // the first message/delivery-status; nil for none
	feedback []byte // the first message/feedback-report; nil for none
	original fields // the header of the mail reported on
	text     []byte // the first text
	parts    int
}

func open(raw []byte) *mail {
	m := &mail{}
	var body []byte
	m.header, body = cutFields(raw)
	m.walk(m.header, body, 0)
	return m
}

func (m *mail) walk(h fields, body []byte, depth int) {
	m.parts++
	if m.parts > maxParts || depth > maxDepth {
		return
	}
	mediaType, params, _ := mime.ParseMediaType(h.get("Content-Type"))
	if strings.HasPrefix(mediaType, "multipart/") {
		m.walkParts(body, params["boundary"], depth)
		return
	}
	decoded := func() []byte { return decode(h.get("Content-Transfer-Encoding"), body) }
	switch mediaType {
	case "message/delivery-status", "message/global-delivery-status":
		if m.status == nil {
			m.status = decoded()
		}
	case "message/feedback-report":
		if m.feedback == nil {
			m.feedback = decoded()
		}
	case "message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers":
		if m.original == nil {
			m.original, _ = cutFields(decoded())
		}
	case "", "text/plain", "text/html":
		if m.text == nil {
			m.text = decoded()
		}
	}
}

// walkParts goes through the parts of a multipart (RFC 2046 §5.1.1). The last may lack its end: reports get cut.
func (m *mail) walkParts(body []byte, boundary string, depth int) {
	if boundary == "" {
		return
	}
	delimiter := []byte("--" + boundary)
	var part []byte // from the start of the part in hand; nil before the first
	for rest := body; ; {
		if m.parts > maxParts {
			return
		}
		here := rest
		line, next := cutLine(rest)
		tail, ok := bytes.CutPrefix(line, delimiter)
		tail = bytes.TrimRight(tail, " \t")
		last := string(tail) == "--"
		if end := len(rest) == 0; end || ok && (len(tail) == 0 || last) {
			if part != nil {
				h, b := cutFields(part[:len(part)-len(here)])
				m.walk(h, b, depth+1)
			}
			if end || last {
				return
			}
			part = next
		}
		rest = next
	}
}

// decode undoes a transfer encoding (RFC 2045 §6) as far as it can be undone.
func decode(encoding string, body []byte) []byte {
	var r io.Reader
	switch strings.ToLower(encoding) {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body))
	case "quoted-printable":
		r = quotedprintable.NewReader(bytes.NewReader(body))
	default:
		return body[:len(body):len(body)]
	}
	out, _ := io.ReadAll(r) // what stands before the fault is worth reading
	if out == nil {
		out = []byte{}
	}
	return out
}
