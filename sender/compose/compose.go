// Package compose turns a submission and one of its messages into the bytes that go over the wire: an
// Internet message (RFC 5322) with MIME parts (RFC 2045 to 2049), and those bytes made ready for DATA.
//
// It is pure. Date, Message-ID and boundaries come from the message's id, so a second attempt sends the same
// bytes as the first. What it writes can pass any host: bodies are ASCII, lines end in CRLF and hold at most
// 998 bytes, and only an address outside ASCII makes a header need SMTPUTF8 (RFC 6532).
package compose

import (
	"bytes"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

const lineEnd = "\r\n"

// Mail is what one message is made of. Nothing in it is changed.
type Mail struct {
	Content *sender.Content
	Message *sender.Message
	// MessageIDDomain is the right side of the Message-ID; empty for the domain of From.
	MessageIDDomain string
	// SendAt is when the mail was to leave: its Date, unless the submission has one. Zero for the moment of accept.
	SendAt time.Time
	// Unsubscribe is written unless the submission has a List-Unsubscribe of its own; zero for none.
	Unsubscribe Unsubscribe
	// Feedback makes a Feedback-ID unless the submission has one; zero for none.
	Feedback Feedback
}

// Message is the whole mail: every line ends in CRLF, no dot is stuffed.
//
// The content may hold 64 MiB in all. CR, LF or NUL in anything that stands in a header, an address that could
// end its field, and a header name outside RFC 5322 §2.2 are errors (*sender.Error) which name the field:
// they are never repaired. Bytes that are not UTF-8 become U+FFFD.
func Message(m Mail) ([]byte, error) {
	if m.MessageIDDomain == "" && m.Content != nil {
		m.MessageIDDomain = sender.Domain(m.Content.From.Email)
	}
	if err := check(m); err != nil {
		return nil, err
	}
	root := tree(m.Content)
	b := make([]byte, 0, headerSize(m)+root.size())
	b = appendHeader(b, m)
	b = append(b, "MIME-Version: 1.0\r\n"...)
	if root.subtype == "" {
		b = root.append(b, "")
	} else {
		b = root.append(b, boundary(m.Message.ID, &root))
	}
	if !bytes.HasSuffix(b, []byte(lineEnd)) {
		b = append(b, lineEnd...)
	}
	return b, nil
}

// NeedsSMTPUTF8 says that an address in the envelope or the header is not ASCII, so that the next host must
// offer SMTPUTF8 (RFC 6531). Names and subjects never need it.
func NeedsSMTPUTF8(c *sender.Content, m *sender.Message) bool {
	if !ascii(c.From.Email) || !ascii(m.Recipient.Email) || !ascii(shown(m).Email) {
		return true
	}
	if c.PreserveRecipients {
		for i := range c.Recipients {
			if !ascii(c.Recipients[i].Email) {
				return true
			}
		}
	}
	for _, h := range c.Headers {
		if ascii(h.Value) || !holdsAddresses(h.Name) {
			continue
		}
		for _, a := range addresses(h.Value) {
			if !ascii(a.Email) {
				return true
			}
		}
	}
	return false
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// headerSize guesses the header's length from above, so that one allocation holds the mail.
func headerSize(m Mail) int {
	n := 512 + 2*len(m.Content.Subject) + 2*len(m.Content.From.Name) + len(m.Unsubscribe.URL) + len(m.Unsubscribe.Mailto)
	for _, h := range m.Content.Headers {
		n += len(h.Name) + len(h.Value) + 16
	}
	if m.Content.PreserveRecipients {
		for i := range m.Content.Recipients {
			n += len(m.Content.Recipients[i].Email) + 2*len(m.Content.Recipients[i].Name) + 8
		}
	}
	return n
}
