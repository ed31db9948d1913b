package compose

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

const (
	maxContent    = 64 << 20 // bytes of bodies and files together
	maxHeaderName = 76       // bytes: the name and its colon fit a line, RFC 5322 §2.1.1
)

// check refuses what could end a header field or start another. Accept has refused it too, in the client's
// words; this is the last door before the wire, and it trusts nobody.
func check(m Mail) error {
	c := m.Content
	if c == nil || m.Message == nil || m.Message.ID.IsZero() {
		return sender.Invalid("message", "a mail is composed of a content and a message with an id")
	}
	if d := m.MessageIDDomain; d == "" || len(d) > 253 || !addressLike(d) || strings.Contains(d, "@") {
		return sender.Invalid("message_id_domain", "%.80q is not a host name", d)
	}
	if broken(c.Subject) {
		return brokenField("subject")
	}
	if err := checkAddresses(m); err != nil {
		return err
	}
	for _, h := range c.Headers {
		if !headerName(h.Name) {
			return sender.Invalid("headers", "%.80q is not a header name: use 1 to 76 printable ASCII characters without a colon", h.Name)
		}
		if broken(h.Value) {
			return brokenField("headers." + h.Name)
		}
	}
	if err := checkUnsubscribe(m.Unsubscribe); err != nil {
		return err
	}
	return checkFiles(c)
}

func checkAddresses(m Mail) error {
	if err := checkAddress("from", m.Content.From); err != nil {
		return err
	}
	if err := checkAddress("to", shown(m.Message)); err != nil {
		return err
	}
	if !m.Content.PreserveRecipients {
		return nil
	}
	for i := range m.Content.Recipients {
		if err := checkAddress("to", m.Content.Recipients[i].Address); err != nil {
			return err
		}
	}
	return nil
}

func checkAddress(field string, a sender.Address) error {
	if len(a.Email) > 254 || !addressLike(a.Email) || !strings.Contains(a.Email, "@") {
		return sender.Invalid(field+".email", "is not a mail address in dot-atom form (RFC 5321 §4.1.2)")
	}
	if broken(a.Name) {
		return brokenField(field + ".name")
	}
	return nil
}

// addressLike holds a part of a header against everything that could end it, or that a reader might take for an end. It
// is not the address grammar, which sender.CheckEmail held before: that one is too dear for a thousand recipients in each
// of their mails.
func addressLike(s string) bool {
	wide := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			wide = true
		case c <= ' ', c == 0x7f:
			return false
		case c == '<', c == '>', c == '(', c == ')', c == '[', c == ']', c == ',', c == ';', c == ':', c == '\\', c == '"':
			return false
		}
	}
	return !wide || utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// broken says that s holds what could end a header field.
func broken(s string) bool { return strings.ContainsAny(s, "\r\n\x00") }

func brokenField(field string) error {
	return sender.Invalid(field, "holds a line break or NUL; send it as one line")
}

// headerName holds a name against ftext (RFC 5322 §3.6.8).
func headerName(s string) bool {
	if s == "" || len(s) > maxHeaderName {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return true
}

func checkFiles(c *sender.Content) error {
	size := len(c.Text) + len(c.HTML)
	for _, list := range []struct {
		field string
		files []sender.Attachment
	}{{"attachments", c.Attachments}, {"images", c.Images}} {
		for i := range list.files {
			f := &list.files[i]
			size += len(f.Content)
			if broken(f.Name) {
				return brokenField(list.field + "." + strconv.Itoa(i) + ".name")
			}
			if broken(f.Type) {
				return brokenField(list.field + "." + strconv.Itoa(i) + ".type")
			}
		}
	}
	if size > maxContent {
		return &sender.Error{Kind: sender.KindTooLarge, Message: "The content is larger than 64 MiB; send large files as links"}
	}
	return nil
}
