package compose

import (
	"encoding/hex"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// ownNames are the fields which only we, or hosts on the way, may write. A submission's own are left out: most of them say
// what the submission says elsewhere, the others would be forged.
var ownNames = [...]string{
	"from", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version", "received", "return-path",
	"dkim-signature", "domainkey-signature", "resent-bcc", "authentication-results", "received-spf", "delivered-to",
}

// ownPrefixes are the first parts of such names. The x-mc- fields are instructions to the relay.
var ownPrefixes = [...]string{"content-", "arc-", "x-mc-"}

// onceNames may stand in a header once (RFC 5322 §3.6); large receivers refuse a mail with two.
var onceNames = [...]string{"reply-to", "sender", "in-reply-to", "references", "list-unsubscribe", "list-unsubscribe-post", "feedback-id"}

// addressNames are the other fields that hold addresses, in which an encoded-word may stand only for a name.
var addressNames = [...]string{
	"reply-to", "sender", "resent-from", "resent-sender", "resent-to", "resent-cc", "errors-to",
	"disposition-notification-to", "return-receipt-to", "mail-reply-to", "mail-followup-to",
}

func appendHeader(b []byte, m Mail) []byte {
	c := m.Content
	b = append(b, "Date: "...)
	b = date(m).AppendFormat(b, dateLayout)
	b = append(b, lineEnd...)
	f := begin(b, "From")
	f.mailbox(c.From, "")
	b = appendRecipients(f.end(), m)
	f = begin(b, "Subject")
	f.text(c.Subject)
	b, skip := appendIdentity(appendMessageID(f.end(), m), m)
	for i, h := range c.Headers {
		if own(h.Name) || again(c.Headers[:i], h.Name) || is(h.Name, skip) {
			continue
		}
		f = begin(b, h.Name)
		f.extra(h)
		b = f.end()
	}
	return b
}

// shown is whom the To field of a message names when it names one.
func shown(m *sender.Message) sender.Address {
	if m.Recipient.Shown.Email != "" {
		return m.Recipient.Shown
	}
	return m.Recipient.Address
}

// appendRecipients writes To and Cc. Nobody who is in Bcc is named, except to himself.
func appendRecipients(b []byte, m Mail) []byte {
	if !m.Content.PreserveRecipients {
		f := begin(b, "To")
		f.mailbox(shown(m.Message), "")
		return f.end()
	}
	before := len(b)
	b = appendKind(b, "To", m.Content.Recipients, sender.To)
	b = appendKind(b, "Cc", m.Content.Recipients, sender.Cc)
	if len(b) == before {
		b = append(b, "To: undisclosed-recipients:;\r\n"...) // all are in Bcc
	}
	return b
}

func appendKind(b []byte, name string, all []sender.Recipient, kind sender.Kind) []byte {
	last := -1
	for i := range all {
		if all[i].Kind == kind {
			last = i
		}
	}
	if last < 0 {
		return b
	}
	f := begin(b, name)
	for i := range all[:last+1] {
		if all[i].Kind != kind {
			continue
		}
		comma := ","
		if i == last {
			comma = ""
		}
		f.mailbox(all[i].Address, comma)
	}
	return f.end()
}

// A submission's own Date is kept within these bounds around ours. Far from its arrival a mail is taken for spam.
const (
	oldestDate = 366 * 24 * time.Hour
	aheadDate  = 24 * time.Hour
)

// date is the client's if it gave one that can be read and is not absurd, else the moment of accept, or for which
// it was scheduled.
func date(m Mail) time.Time {
	ours := m.Message.ID.Time()
	if m.SendAt.After(ours) {
		ours = m.SendAt.UTC()
	}
	if s := header(m.Content.Headers, "Date"); s != "" {
		if t, err := mail.ParseDate(s); err == nil && t.After(ours.Add(-oldestDate)) && t.Before(ours.Add(aheadDate)) {
			return t
		}
	}
	return ours
}

func appendMessageID(b []byte, m Mail) []byte {
	b = append(b, "Message-ID: "...)
	if s := strings.TrimSpace(header(m.Content.Headers, "Message-ID")); validMessageID(s) {
		b = append(b, s...)
		return append(b, lineEnd...)
	}
	b = append(b, '<')
	b = hex.AppendEncode(b, m.Message.ID[:])
	b = append(b, '@')
	b = append(b, m.MessageIDDomain...)
	return append(b, ">\r\n"...)
}

// validMessageID holds a client's Message-ID against the form <left@right> (RFC 5322 §3.6.4) without
// comments, folds or quotes, in at most 250 bytes.
func validMessageID(s string) bool {
	if len(s) > 250 || len(s) < 5 || s[0] != '<' || s[len(s)-1] != '>' {
		return false
	}
	s = s[1 : len(s)-1]
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`<>()\,;:"`, s[i]) >= 0 {
			return false
		}
	}
	at := strings.IndexByte(s, '@')
	return at > 0 && at < len(s)-1 && at == strings.LastIndexByte(s, '@')
}

// extra writes the value of a submission's own field. ASCII is written as it came, since it may be structured
// or already encoded.
func (f *field) extra(h sender.Header) {
	value := strings.Trim(h.Value, " \t")
	if plain(value) {
		f.plain(value)
		return
	}
	if list := addressesOf(h.Name, value); list != nil {
		for i, a := range list {
			comma := ","
			if i == len(list)-1 {
				comma = ""
			}
			f.mailbox(a, comma)
		}
		return
	}
	f.words(value)
}

func addressesOf(name, value string) []sender.Address {
	if !holdsAddresses(name) {
		return nil
	}
	return addresses(value)
}

// addresses reads a list of addresses; nil if it holds anything that we would not send to.
func addresses(value string) []sender.Address {
	parsed, err := mail.ParseAddressList(value)
	if err != nil {
		return nil
	}
	list := make([]sender.Address, len(parsed))
	for i, a := range parsed {
		if sender.CheckEmail(a.Address) != nil || broken(a.Name) {
			return nil
		}
		list[i] = sender.Address{Email: a.Address, Name: a.Name}
	}
	return list
}

func header(all []sender.Header, name string) string {
	for _, h := range all {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

func own(name string) bool {
	if is(name, ownNames[:]) {
		return true
	}
	return slices.ContainsFunc(ownPrefixes[:], func(p string) bool {
		return len(name) >= len(p) && strings.EqualFold(name[:len(p)], p)
	})
}

func again(before []sender.Header, name string) bool {
	return is(name, onceNames[:]) && slices.ContainsFunc(before, func(h sender.Header) bool { return strings.EqualFold(h.Name, name) })
}

func holdsAddresses(name string) bool { return is(name, addressNames[:]) }

func is(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}
