package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
)

// headerField is a field as it stands in the mail: value goes from the colon to the end of its last line.
type headerField struct{ name, value []byte }

// splitHeader appends the fields of a header.
func splitHeader(fields []headerField, header []byte) ([]headerField, error) {
	for len(header) > 0 {
		line, rest, err := cutLine(header)
		if err != nil {
			return nil, err
		}
		header = rest
		if len(line) > 0 && blank(line[0]) && len(fields) > 0 {
			last := &fields[len(fields)-1] // both lie in the mail, with only the end of a line between them
			last.value = last.value[:len(last.value)+len(lineEnd)+len(line)]
			continue
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || blank(line[0]) {
			return nil, errField
		}
		fields = append(fields, headerField{bytes.TrimRight(line[:colon], " \t"), line[colon+1:]})
	}
	return fields, nil
}

// cutLine cuts off the first line and its end. The last line may be without one.
func cutLine(b []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		line = b
	} else if i > 0 && b[i-1] == '\r' {
		line, rest = b[:i-1], b[i+1:]
	} else {
		return nil, nil, errLineEnd
	}
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, nil, errLineEnd
	}
	return line, rest, nil
}

// appendRelaxedField appends a field in relaxed form (RFC 6376 §3.4.2), without the end of its line.
func appendRelaxedField(dst []byte, name string, value []byte) []byte {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	dst = append(dst, ':')
	return appendRelaxed(dst, bytes.TrimLeft(value, " \t\r\n"))
}

// appendRelaxed appends text with a space for every run of blanks and line ends, and none at its end.
func appendRelaxed(dst, text []byte) []byte {
	if relaxed(text) {
		return append(dst, text...)
	}
	for start := 0; start < len(text); {
		end := start
		for end < len(text) && !gap(text[end]) {
			end++
		}
		dst = append(dst, text[start:end]...)
		for start = end; start < len(text) && gap(text[start]); {
			start++
		}
		if start > end && start < len(text) {
			dst = append(dst, ' ')
		}
	}
	return dst
}

// relaxed says that text without blanks at its end is as it should be. Most lines are.
func relaxed(text []byte) bool {
	return bytes.IndexByte(text, '\t') < 0 && bytes.IndexByte(text, '\n') < 0 && !bytes.Contains(text, []byte("  ")) &&
		len(text) > 0 && !gap(text[len(text)-1])
}

func gap(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// readBody hashes the body in relaxed form (RFC 6376 §3.4.4), in pieces of a few KB.
func (s *signing) readBody(body []byte) error {
	const piece = 4 << 10
	hash := sha256.New()
	b := make([]byte, 0, piece+hardLine+len(lineEnd))
	empty := 0 // lines that count only if something follows
	for len(body) > 0 {
		line, rest, err := cutLine(body)
		if err != nil {
			return err
		}
		body = rest
		for len(line) > 0 && blank(line[len(line)-1]) {
			line = line[:len(line)-1]
		}
		if len(line) == 0 {
			empty++
			continue
		}
		for ; empty > 0; empty-- {
			b = append(b, lineEnd...)
			if len(b) >= piece {
				hash.Write(b)
				b = b[:0]
			}
		}
		b = append(appendRelaxed(b, line), lineEnd...)
		if len(b) >= piece {
			hash.Write(b)
			b = b[:0]
		}
	}
	hash.Write(b)
	s.bodyHash = base64.StdEncoding.EncodeToString(hash.Sum(b[:0]))
	return nil
}
