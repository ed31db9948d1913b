package sandbox

import (
	"bytes"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // header words and texts in other charsets
	gomail "github.com/emersion/go-message/mail"
)

// address is a mailbox in the inbox API.
type address struct{ Name, Address string }

// head is what the header and the envelope say, for lists and for searches.
type head struct {
	messageID, subject   string
	from                 address
	to, cc, bcc, replyTo []address
	date                 time.Time

	// The same in lower case, for searches.
	findFrom, findTo, findCc, findBcc, findSubject, findID string
}

// head reads the header when it is first asked for.
func (m *letter) head() *head {
	m.headOnce.Do(func() { m.headValue = readHead(m) })
	return &m.headValue
}

// readHead never fails: what cannot be read is taken from the envelope or left empty.
func readHead(m *letter) head {
	var h gomail.Header
	if e, _ := message.Read(bytes.NewReader(m.raw)); e != nil {
		h.Header = e.Header
	}
	d := head{
		messageID: strings.Trim(h.Get("Message-Id"), "<> \t"),
		subject:   text(h, "Subject"),
		to:        addresses(h, "To"),
		cc:        addresses(h, "Cc"),
		replyTo:   addresses(h, "Reply-To"),
		date:      m.at,
	}
	if date, err := h.Date(); err == nil && !date.IsZero() {
		d.date = date
	}
	if from := addresses(h, "From"); len(from) > 0 {
		d.from = from[0]
	}
	d.bcc = hidden(m.to, d.to, d.cc)
	d.findFrom = searchable([]address{d.from})
	d.findCc = searchable(d.cc)
	d.findBcc = searchable(d.bcc)
	d.findTo = searchable(d.to) + "\n" + d.findCc + "\n" + d.findBcc
	d.findSubject = strings.ToLower(d.subject)
	d.findID = strings.ToLower(d.messageID)
	return d
}

// fields are all header fields by name, decoded.
func (m *letter) fields() map[string][]string {
	all := map[string][]string{}
	e, _ := message.Read(bytes.NewReader(m.raw))
	if e == nil {
		return all
	}
	for f := e.Header.Fields(); f.Next(); {
		value, err := f.Text()
		if err != nil {
			value = f.Value()
		}
		all[f.Key()] = append(all[f.Key()], valid(value))
	}
	return all
}

// hidden are the envelope recipients that stand neither in To nor in Cc.
func hidden(envelope []string, shown ...[]address) []address {
	bcc := []address{}
	for _, to := range envelope {
		same := func(a address) bool { return strings.EqualFold(a.Address, to) }
		if !slices.ContainsFunc(shown, func(list []address) bool { return slices.ContainsFunc(list, same) }) {
			bcc = append(bcc, address{Address: to})
		}
	}
	return bcc
}

func addresses(h gomail.Header, key string) []address {
	parsed, err := h.AddressList(key)
	if err != nil { // shown as it stands, so that the mistake can be seen
		parsed = []*mail.Address{{Address: text(h, key)}}
	}
	list := make([]address, len(parsed))
	for i, a := range parsed {
		list[i] = address{Name: valid(a.Name), Address: valid(a.Address)}
	}
	return list
}

func text(h gomail.Header, key string) string {
	s, err := h.Text(key)
	if err != nil {
		s = h.Get(key)
	}
	return valid(s)
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func searchable(list []address) string {
	var b strings.Builder
	for _, a := range list {
		b.WriteString(strings.ToLower(a.Name + " <" + a.Address + ">\n"))
	}
	return b.String()
}
