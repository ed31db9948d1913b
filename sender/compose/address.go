package compose

import (
	"strings"

	"github.com/postrider/postrider/sender"
)

// maxQuoted bounds a quoted name in bytes, so that it never needs a fold; a longer one is written as encoded-words.
const maxQuoted = 60

// mailbox writes one entry of an address list, with the comma after it (RFC 5322 §3.4).
func (f *field) mailbox(a sender.Address, comma string) {
	name := strings.Trim(a.Name, " \t")
	if name == "" {
		f.token(a.Email, comma)
		return
	}
	f.phrase(name)
	f.token("<", a.Email, ">", comma)
}

// phrase writes a display name: as atoms if it can, else in quotes, else as encoded-words.
func (f *field) phrase(name string) {
	switch {
	case strings.Contains(name, "=?") || !plain(name) || strings.Contains(name, "\t"):
		f.words(name)
	case atoms(name):
		f.plain(name)
	case len(name) <= maxQuoted:
		f.token(`"`, quoteEscape(name), `"`)
	default:
		f.words(name)
	}
}

// atoms says that s is words of atext with single spaces between them (RFC 5322 §3.2.3).
func atoms(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
		case c == ' ' && s[i+1] != ' ': // s does not end in a space
		default:
			return false
		}
	}
	return true
}

// quoteEscape is s as it stands between quotes (RFC 5322 §3.2.4).
func quoteEscape(s string) string {
	if !strings.ContainsAny(s, `"\`) {
		return s
	}
	return strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(s)
}
