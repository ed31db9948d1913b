package compose

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

// part is a node of the MIME tree: a multipart with its parts, or one body.
type part struct {
	subtype string // of a multipart; empty for a body
	parts   []part

	mediaType   string
	disposition string // attachment or inline; empty for the text itself
	name        string // file name, or Content-ID of an inline image
	transfer    transfer
	text        string // what is written, unless it is a file
	file        []byte
	encoded     int // bytes that the body takes, about
}

// tree is the shape of a mail: mixed(alternative(text, related(html, images)), attachments), without the levels
// that would hold one part only.
func tree(c *sender.Content) part {
	text, html := bodies(c)
	images := files(c.Images, "inline", "image-")
	var root part
	switch {
	case html == "":
		root = textPart("text/plain; charset=utf-8", text)
	case text == "":
		root = multipart("related", textPart("text/html; charset=utf-8", html), images)
		images = nil
	default:
		root = multipart("alternative", textPart("text/plain; charset=utf-8", text),
			[]part{multipart("related", textPart("text/html; charset=utf-8", html), images)})
		images = nil
	}
	// Without HTML nothing refers to the images, so they stand beside the text.
	return multipart("mixed", root, append(images, files(c.Attachments, "attachment", "attachment-")...))
}

// multipart puts the others behind the first, or is the first when there are none.
func multipart(subtype string, first part, others []part) part {
	if len(others) == 0 {
		return first
	}
	return part{subtype: subtype, parts: append([]part{first}, others...)}
}

func textPart(mediaType, s string) part {
	p := part{mediaType: mediaType, text: s, transfer: sevenBit, encoded: plainSize(s)}
	if p.encoded < 0 {
		p.text = strings.ToValidUTF8(s, "\uFFFD")
		p.transfer, p.encoded = shorter(p.text)
	}
	return p
}

func files(list []sender.Attachment, disposition, noName string) []part {
	if len(list) == 0 {
		return nil
	}
	parts := make([]part, len(list))
	for i, f := range list {
		name := strings.ToValidUTF8(strings.TrimSpace(f.Name), "\uFFFD")
		if name == "" {
			name = noName + strconv.Itoa(i+1)
		}
		parts[i] = filePart(f, disposition, name)
	}
	return parts
}

func filePart(f sender.Attachment, disposition, name string) part {
	p := part{mediaType: mediaType(f.Type), disposition: disposition, name: name, transfer: inBase64, file: f.Content}
	p.encoded = len(f.Content)*7/5 + 16
	switch {
	case strings.HasPrefix(p.mediaType, "message/"):
		// Such a part may not be base64 (RFC 2046 §5.2.1): it goes as it is, or as a mere file.
		if n := plainSize(string(f.Content)); n >= 0 {
			p.transfer, p.text, p.file, p.encoded = sevenBit, string(f.Content), nil, n
		} else {
			p.mediaType = octets
		}
	case strings.HasPrefix(p.mediaType, "multipart/"):
		p.mediaType = octets
	case strings.HasPrefix(p.mediaType, "text/") && !strings.Contains(p.mediaType, "charset=") && utf8.Valid(f.Content):
		p.mediaType += "; charset=utf-8"
	}
	return p
}

// size guesses the written length from above.
func (p *part) size() int {
	n := 256 + 3*len(p.name) + p.encoded
	for i := range p.parts {
		n += p.parts[i].size()
	}
	return n
}

// append writes the part with its header. All multiparts share one boundary but for its last letter, which is
// the first of their subtype: a mail has at most one of each.
func (p *part) append(b []byte, boundary string) []byte {
	if p.subtype == "" {
		return p.appendBody(p.appendFields(b))
	}
	level := p.subtype[:1]
	b = append(b, "Content-Type: multipart/"...)
	b = append(b, p.subtype...)
	if p.subtype == "related" {
		b = append(b, `; type="text/html"`...) // RFC 2387 §3.1
	}
	b = append(b, ";\r\n boundary=\""...)
	b = append(b, boundary...)
	b = append(b, level...)
	b = append(b, "\"\r\n\r\n"...)
	for i := range p.parts {
		b = append(b, "--"...)
		b = append(b, boundary...)
		b = append(b, level...)
		b = append(b, lineEnd...)
		b = p.parts[i].append(b, boundary)
		b = append(b, lineEnd...) // belongs to the boundary, not to the body before it
	}
	b = append(b, "--"...)
	b = append(b, boundary...)
	b = append(b, level...)
	return append(b, "--"...)
}

func (p *part) appendFields(b []byte) []byte {
	b = append(b, "Content-Type: "...)
	b = append(b, p.mediaType...)
	b = append(b, "\r\nContent-Transfer-Encoding: "...)
	b = append(b, p.transfer...)
	if p.disposition != "" {
		if p.disposition == "inline" {
			b = append(b, "\r\nContent-ID: <"...)
			b = appendContentID(b, p.name)
			b = append(b, '>')
		}
		b = append(b, "\r\nContent-Disposition: "...)
		b = append(b, p.disposition...)
		b = appendParameter(b, "filename", p.name)
	}
	return append(b, "\r\n\r\n"...)
}

func (p *part) appendBody(b []byte) []byte {
	switch p.transfer {
	case sevenBit:
		return appendCRLF(b, p.text)
	case quotedPrintable:
		return appendQuoted(b, p.text)
	}
	if p.text != "" {
		return appendBase64(b, appendCRLF(make([]byte, 0, len(p.text)+len(p.text)/16), p.text))
	}
	return appendBase64(b, p.file)
}

// boundary is made from the id, so that it is the same at every attempt, and occurs in no part. It starts with =_,
// which neither base64 nor quoted-printable can hold (RFC 2045 §6.7), so only 7bit bodies are searched.
func boundary(id sender.ID, root *part) string {
	for n := uint64(0); ; n++ { // ends: a body of finite size holds finitely many of these
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(id[:len(id):len(id)], n))
		candidate := "=_" + hex.EncodeToString(sum[:12])
		if !root.holds(candidate) {
			return candidate
		}
	}
}

func (p *part) holds(s string) bool {
	for i := range p.parts {
		if p.parts[i].holds(s) {
			return true
		}
	}
	return p.transfer == sevenBit && strings.Contains(p.text, s)
}
