package compose

import (
	"encoding/base64"
	"slices"
	"strings"
)

// transfer is a content transfer encoding (RFC 2045 §6): how a body is written in lines of ASCII.
type transfer string

const (
	sevenBit        transfer = "7bit"
	quotedPrintable transfer = "quoted-printable"
	inBase64        transfer = "base64"
)

// plainSize is the length of s with CRLF line ends, or -1 if it cannot go as 7bit: it holds a byte that is
// neither printable ASCII nor a tab, or a line of more than 998 bytes (RFC 2045 §2.7).
func plainSize(s string) int {
	size, start := len(s), 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= ' ' && c < 0x7f || c == '\t':
		case c == '\n' || c == '\r':
			if i-start > hardLine {
				return -1
			}
			if c == '\r' && i+1 < len(s) && s[i+1] == '\n' {
				i++
			} else {
				size++
			}
			start = i + 1
		default:
			return -1
		}
	}
	if len(s)-start > hardLine {
		return -1
	}
	return size
}

// shorter is the encoding that makes less of s, which cannot go as 7bit, and the length that it comes to, about.
func shorter(s string) (transfer, int) {
	qp := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= ' ' && c < 0x7f && c != '=' || c == '\t':
			qp++
		case c == '\n' || c == '\r':
			qp += 2
		default:
			qp += 3
		}
	}
	if b64 := base64.StdEncoding.EncodedLen(len(s)); qp > b64 {
		return inBase64, b64 + b64/32 + 16
	}
	return quotedPrintable, qp + qp/20 + 16
}

// appendCRLF writes s with every CR, LF and CRLF as CRLF.
func appendCRLF(b []byte, s string) []byte {
	for {
		line, rest, more := strings.Cut(s, "\n")
		if more {
			line = strings.TrimSuffix(line, "\r")
		}
		for {
			i := strings.IndexByte(line, '\r')
			if i < 0 {
				break
			}
			b = append(b, line[:i]...)
			b = append(b, lineEnd...)
			line = line[i+1:]
		}
		b = append(b, line...)
		if !more {
			return b
		}
		b = append(b, lineEnd...)
		s = rest
	}
}

// appendQuoted writes s as quoted-printable (RFC 2045 §6.7), line ends as CRLF, lines of at most 76 bytes.
func appendQuoted(b []byte, s string) []byte {
	col := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\n' || c == '\r' {
			if c == '\r' && i+1 < len(s) && s[i+1] == '\n' {
				i++
			}
			b, col = append(b, lineEnd...), 0
			continue
		}
		last := i+1 == len(s) || s[i+1] == '\n' || s[i+1] == '\r'
		literal := c > ' ' && c < 0x7f && c != '=' || blank(c) && !last
		width := 3
		if literal {
			width = 1
		}
		most := 75 // room for the = of a soft line break
		if last {
			most = 76
		}
		if col+width > most {
			b, col = append(b, "=\r\n"...), 0
		}
		if literal {
			b = append(b, c)
		} else {
			b = append(b, '=', upperHex[c>>4], upperHex[c&15])
		}
		col += width
	}
	return b
}

const (
	base64Line = 76 // characters, RFC 2045 §6.8
	base64Src  = base64Line / 4 * 3
)

// appendBase64 writes data in lines of 76 characters, with no line end after the last.
func appendBase64(b, data []byte) []byte {
	n := base64.StdEncoding.EncodedLen(len(data))
	b = slices.Grow(b, n+n/base64Line*2)
	for len(data) > base64Src {
		at := len(b)
		b = b[:at+base64Line+2]
		base64.StdEncoding.Encode(b[at:], data[:base64Src])
		b[at+base64Line], b[at+base64Line+1] = '\r', '\n'
		data = data[base64Src:]
	}
	return base64.StdEncoding.AppendEncode(b, data)
}
