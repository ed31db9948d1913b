package compose

import (
	"bytes"
	"slices"
)

// AppendDotStuffed writes msg to dst as DATA carries it (RFC 5321 §4.5.2): a dot at the start of a line is
// doubled, a last line without its end gets one, and a line with a lone dot closes the message. The lines of msg
// end in CRLF.
func AppendDotStuffed(dst, msg []byte) []byte {
	dst = slices.Grow(dst, len(msg)+8)
	if len(msg) > 0 && msg[0] == '.' {
		dst = append(dst, '.')
	}
	whole := len(msg) == 0 || bytes.HasSuffix(msg, []byte(lineEnd))
	for {
		i := bytes.Index(msg, []byte("\r\n."))
		if i < 0 {
			break
		}
		dst = append(dst, msg[:i+3]...)
		dst = append(dst, '.')
		msg = msg[i+3:]
	}
	dst = append(dst, msg...)
	if !whole {
		dst = append(dst, lineEnd...)
	}
	return append(dst, ".\r\n"...)
}
