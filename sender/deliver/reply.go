package deliver

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

// What a peer may say in one reply. RFC 5321 §4.5.3.1.5 asks for lines of 512 bytes; real hosts write longer ones.
const (
	maxLine  = 2 << 10
	maxLines = 100
	maxReply = 64 << 10
	maxText  = 1000 // bytes of a reply that are kept
)

// protocolError is what a peer said or did against RFC 5321. After it nothing the connection says can be trusted.
type protocolError string

func (e protocolError) Error() string { return "the host " + string(e) }

// reply is an answer as it came. It is used again for the next one.
type reply struct {
	code int
	text []byte // the lines without their codes, parted by \n
}

// read takes one whole reply, of one or many lines (RFC 5321 §4.2.1). A bare LF ends a line too.
func (r *reply) read(br *bufio.Reader) error {
	r.code, r.text = 0, r.text[:0]
	total := 0
	for range maxLines {
		line, err := br.ReadSlice('\n')
		total += len(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine:
			return protocolError("sent a line of more than 2 KiB")
		case err != nil:
			return err
		case total > maxReply:
			return protocolError("sent a reply of more than 64 KiB")
		}
		for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
			line = line[:len(line)-1]
		}
		code, more, ok := parseLine(line)
		switch {
		case !ok:
			return protocolError("sent a line that is no SMTP reply")
		case r.code != 0 && code != r.code:
			return protocolError(fmt.Sprintf("mixed codes %d and %d in one reply", r.code, code))
		}
		if r.code != 0 {
			r.text = append(r.text, '\n')
		}
		r.code, r.text = code, append(r.text, line[min(4, len(line)):]...)
		if !more {
			return nil
		}
	}
	return protocolError("sent more than 100 lines in one reply")
}

// parseLine reads the code of a line and whether another line follows.
func parseLine(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return 0, false, false
	}
	if len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	return code, len(line) > 3 && line[3] == '-', true
}

// at is the reply as it is kept and shown.
func (r *reply) at(stage, host string) sender.Reply {
	n := enhancedLen(r.text)
	enhanced := string(r.text[:n])
	return sender.Reply{Code: r.code, Enhanced: enhanced, Text: cleanText(string(r.text[n:]), enhanced), Stage: stage, Host: host}
}

// enhancedLen is the length of the enhanced status code (RFC 3463 §2, RFC 2034 §4) that a text begins with, or 0.
func enhancedLen(b []byte) int {
	if len(b) < 5 || (b[0] != '2' && b[0] != '4' && b[0] != '5') || b[1] != '.' {
		return 0
	}
	i := 2
	for part := range 2 {
		start := i
		for i < len(b) && digit(b[i]) {
			i++
		}
		if i == start || i-start > 3 {
			return 0
		}
		if part == 0 {
			if i == len(b) || b[i] != '.' {
				return 0
			}
			i++
		}
	}
	if i < len(b) && b[i] != ' ' && b[i] != '\n' {
		return 0
	}
	return i
}

// cleanText makes a peer's words safe to show: one line of at most 1,000 bytes of valid UTF-8, control characters
// escaped, the enhanced code that every line of a reply repeats said only once.
func cleanText(s, enhanced string) string {
	if enhanced != "" {
		s = strings.ReplaceAll(s, "\n"+enhanced+" ", "\n")
	}
	s = strings.TrimSpace(s)
	if len(s) <= maxText && plain(s) {
		return s
	}
	return escape(s, maxText)
}

// escape writes what is not safe to show by its number, a line end as a space, and no more than most bytes.
func escape(s string, most int) string {
	var b strings.Builder
	for _, r := range s { // an invalid byte comes as U+FFFD
		var piece string
		switch {
		case r == '\n':
			piece = " "
		case r < ' ', r >= 0x7f && r < 0xa0:
			piece = fmt.Sprintf(`\x%02x`, r)
		case r == 0x2028, r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // line ends, text direction
			piece = fmt.Sprintf(`\u%04x`, r)
		default:
			piece = string(r)
		}
		if b.Len()+len(piece) > most {
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

// plain says that a text is printable ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= utf8.RuneSelf || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func digit(b byte) bool { return b >= '0' && b <= '9' }
