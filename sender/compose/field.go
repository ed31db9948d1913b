package compose

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

const (
	softLine = 76  // bytes: what RFC 2047 §2 allows a line with encoded-words, and within the 78 of RFC 5322 §2.1.1
	hardLine = 998 // bytes: RFC 5322 §2.1.1
	// maxToken is in bytes, so that a token fits hardLine even behind the longest name. A longer one is written
	// as encoded-words.
	maxToken = 900
)

// field writes one header field as tokens with a space or a fold before each.
type field struct {
	b    []byte
	line int  // where the line being written starts in b
	used bool // the line has a token, so that a fold leaves no line of spaces only
}

func begin(b []byte, name string) field {
	start := len(b)
	b = append(b, name...)
	return field{b: append(b, ':'), line: start}
}

func (f *field) end() []byte { return append(f.b, lineEnd...) }

func (f *field) fold() {
	f.b = append(f.b, lineEnd...)
	f.line, f.used = len(f.b), false
}

// token writes the pieces as one token that is never broken; together they hold at most maxToken bytes.
func (f *field) token(pieces ...string) {
	width := len(f.b) - f.line + 1
	for _, p := range pieces {
		width += len(p)
	}
	if f.used && width > softLine {
		f.fold()
	}
	f.b = append(f.b, ' ')
	for _, p := range pieces {
		f.b = append(f.b, p...)
	}
	f.used = true
}

// text writes unstructured text (RFC 5322 §3.2.5) so that it is read exactly as given.
func (f *field) text(s string) {
	if strings.Contains(s, "=?") || !plain(s) {
		f.words(s)
		return
	}
	f.plain(s)
}

// plain writes text for which plain holds, and folds only at single spaces: parsers disagree about how much of
// a longer run, or of a tab, a fold keeps.
func (f *field) plain(s string) {
	for s != "" {
		n := tokenEnd(s)
		f.token(s[:n])
		s = s[min(n+1, len(s)):]
	}
}

// tokenEnd is the place of the first single space in s, or its length.
func tokenEnd(s string) int {
	for i := 1; i < len(s)-1; i++ {
		if s[i] == ' ' && !blank(s[i-1]) && !blank(s[i+1]) {
			return i
		}
	}
	return len(s)
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// plain says that s can stand in a header as it is: printable ASCII, no blanks at its ends, which parsers
// cut, and no token too long for a line.
func plain(s string) bool {
	if s == "" {
		return true
	}
	if blank(s[0]) || blank(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if (s[i] < ' ' && s[i] != '\t') || s[i] >= 0x7f {
			return false
		}
	}
	for len(s) > maxToken {
		n := tokenEnd(s)
		if n > maxToken {
			return false
		}
		s = s[min(n+1, len(s)):]
	}
	return true
}

const (
	maxWord    = 75 // bytes of an encoded-word with its delimiters, RFC 2047 §2
	wordFrame  = len("=?utf-8?q??=")
	worthAWord = 30 // bytes left in a line below which it is not worth starting another word
)

// words writes s as encoded-words (RFC 2047), in Q or B, whichever is shorter. No character is split over two.
func (f *field) words(s string) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	q := 0
	for i := 0; i < len(s); i++ {
		q += qCost(s[i])
	}
	inQ := q <= base64.StdEncoding.EncodedLen(len(s))
	for s != "" {
		left := softLine - (len(f.b) - f.line) - 1
		if left < min(worthAWord, wordFrame+q) {
			f.fold()
			left = maxWord
		}
		room := min(left, maxWord) - wordFrame
		f.b = append(f.b, ' ')
		var n int
		if inQ {
			n = f.wordQ(s, room)
		} else {
			n = f.wordB(s, room)
		}
		f.used = true
		s = s[n:]
	}
}

// wordQ writes as much of s as fits room encoded bytes, and says how much that was.
func (f *field) wordQ(s string, room int) int {
	f.b = append(f.b, "=?utf-8?q?"...)
	n := 0
	for n < len(s) {
		_, size := utf8.DecodeRuneInString(s[n:])
		for _, c := range []byte(s[n : n+size]) {
			room -= qCost(c)
		}
		if room < 0 {
			break
		}
		for _, c := range []byte(s[n : n+size]) {
			switch {
			case c == ' ':
				f.b = append(f.b, '_')
			case qCost(c) == 1:
				f.b = append(f.b, c)
			default:
				f.b = append(f.b, '=', upperHex[c>>4], upperHex[c&15])
			}
		}
		n += size
	}
	f.b = append(f.b, "?="...)
	return n
}

// wordB is wordQ in base64.
func (f *field) wordB(s string, room int) int {
	n := 0
	for most := room / 4 * 3; n < len(s); {
		_, size := utf8.DecodeRuneInString(s[n:])
		if n+size > most {
			break
		}
		n += size
	}
	f.b = append(f.b, "=?utf-8?b?"...)
	f.b = base64.StdEncoding.AppendEncode(f.b, []byte(s[:n]))
	f.b = append(f.b, "?="...)
	return n
}

const upperHex = "0123456789ABCDEF"

// qCost is the number of bytes that c takes in Q. Only what is safe within a phrase stands for itself (RFC 2047 §5).
func qCost(c byte) int {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return 1
	case c == ' ', c == '!', c == '*', c == '+', c == '-', c == '/':
		return 1
	}
	return 3
}
