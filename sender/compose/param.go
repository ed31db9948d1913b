package compose

import (
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	octets       = "application/octet-stream"
	maxMediaType = 127 // bytes of a type or a parameter that is kept, RFC 6838 §4.2
	maxContentID = 250 // bytes
)

// mediaType is what a client called a file, as type/subtype, with the two parameters that change how it is read: charset and,
// for invitations, method. What is no media type is octets.
func mediaType(s string) string {
	t, params, _ := mime.ParseMediaType(s) // a bad parameter still leaves a good type
	if !strings.Contains(t, "/") || len(t) > maxMediaType {
		return octets
	}
	for _, name := range [...]string{"charset", "method"} {
		if v := params[name]; v != "" && len(v) <= maxMediaType && atoms(v) && !strings.ContainsAny(v, " =?/") {
			t += "; " + name + "=" + v
		}
	}
	return t
}

// appendParameter writes a parameter of any text on lines of its own: in quotes if it is short and plain, else
// percent-encoded UTF-8, in numbered pieces if one line cannot hold it (RFC 2231 §3 and §4).
func appendParameter(b []byte, name, value string) []byte {
	if len(value) <= maxQuoted && plain(value) && !strings.ContainsAny(value, "\"\\\t%") && !strings.Contains(value, "=?") {
		b = append(b, ";\r\n "...)
		b = append(b, name...)
		b = append(b, `="`...)
		b = append(b, value...)
		return append(b, '"')
	}
	const most = 54 // encoded bytes in a line, beside name, number and charset
	whole := percentSize(value) <= most
	for n := 0; value != ""; n++ {
		b = append(b, ";\r\n "...)
		b = append(b, name...)
		if !whole {
			b = append(b, '*')
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = append(b, "*="...)
		if n == 0 {
			b = append(b, "UTF-8''"...)
		}
		for used := 0; value != ""; {
			_, size := utf8.DecodeRuneInString(value)
			used += percentSize(value[:size])
			if used > most {
				break
			}
			b = appendPercent(b, value[:size])
			value = value[size:]
		}
	}
	return b
}

// appendContentID writes the name that an HTML part refers to by cid: (RFC 2392 §2), with what cannot stand in
// an id percent-encoded, and cut at maxContentID.
func appendContentID(b []byte, name string) []byte {
	start := len(b)
	for i := 0; i < len(name) && len(b)-start < maxContentID; i++ {
		if c := name[i]; c > ' ' && c < 0x7f && strings.IndexByte(`<>()[]\,;:"`, c) < 0 {
			b = append(b, c)
		} else {
			b = appendPercent(b, name[i:i+1])
		}
	}
	return b
}

func appendPercent(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if attributeChar(s[i]) {
			b = append(b, s[i])
		} else {
			b = append(b, '%', upperHex[s[i]>>4], upperHex[s[i]&15])
		}
	}
	return b
}

func percentSize(s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		if attributeChar(s[i]) {
			n++
		} else {
			n += 3
		}
	}
	return n
}

// attributeChar is the attribute-char of RFC 2231 §7.
func attributeChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$&+-.^_`{|}~", c) >= 0
}
