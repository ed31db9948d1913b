package loadtest

import (
	"encoding/base64"
	mathrand "math/rand/v2"
	"strconv"
	"time"
)

const (
	lineText = 76           // characters of text in a line
	lineSize = lineText + 2 // with its end: CRLF in mail, \n written as two characters in JSON
	domains  = 20           // recipients are spread over so many, unless the load names its own
)

// mail makes the mails of a run. Its text is base64 of random bytes, so nothing on the way makes
// it smaller; each mail takes a window of one pool, so making it costs a copy.
type mail struct {
	run        string
	froms      []string // in turns, as the keys are
	size       int
	recipients int
	domains    []string // of recipients, in turns
	pool       []byte   // lines of random text without their ends, in slots of lineSize
	windows    int
	date       string
}

func newMail(run string, l Load) *mail {
	m := &mail{run: run, froms: l.Froms, size: l.Size, recipients: l.Recipients, domains: l.Domains, windows: 4096, date: time.Now().Format(time.RFC1123Z)}
	if len(m.froms) == 0 {
		m.froms = []string{l.From}
	}
	if len(m.domains) == 0 {
		m.domains = sinkDomains()
	}
	lines := m.windows + l.Size/lineSize + 1
	raw := make([]byte, lines*lineText/4*3)
	_, _ = mathrand.NewChaCha8([32]byte{}).Read(raw) // never fails
	text := base64.StdEncoding.AppendEncode(nil, raw)
	end := `\n`
	if l.SMTP != "" {
		end = "\r\n"
	}
	for i := range lines {
		m.pool = append(m.pool, text[i*lineText:(i+1)*lineText]...)
		m.pool = append(m.pool, end...)
	}
	return m
}

// appendText appends size bytes of whole lines; the last one may be shorter.
func (m *mail) appendText(b []byte, seq int) []byte {
	from := m.pool[seq*2654435761%m.windows*lineSize:]
	whole, rest := m.size/lineSize*lineSize, m.size%lineSize
	b = append(b, from[:whole]...)
	if rest > 2 {
		b = append(b, from[whole:whole+rest-2]...)
		b = append(b, from[lineText:lineSize]...)
	}
	return b
}

// appendStamp appends what the sink reads back: run, number, and when it was handed over.
func (m *mail) appendStamp(b []byte, s submission) []byte {
	b = append(b, m.run...)
	b = strconv.AppendInt(append(b, ' '), int64(s.seq), 10)
	return strconv.AppendInt(append(b, ' '), s.stamped().UnixNano(), 10)
}

func (m *mail) appendRecipient(b []byte, serial int) []byte {
	b = strconv.AppendInt(append(b, "user"...), int64(serial), 10)
	return append(append(b, '@'), m.domains[serial%len(m.domains)]...)
}

func sinkDomains() []string {
	all := make([]string, domains)
	for i := range all {
		all[i] = "d" + strconv.Itoa(i) + ".sink.test"
	}
	return all
}

// appendJSON appends the body of a messages/send call. Nothing in it needs escaping.
func (m *mail) appendJSON(b []byte, key string, s submission) []byte {
	b = append(append(b, `{"key":"`...), key...)
	if !s.at.IsZero() {
		b = s.at.UTC().AppendFormat(append(b, `","send_at":"`...), time.DateTime)
	}
	b = append(append(b, `","message":{"from_email":"`...), m.froms[s.seq%len(m.froms)]...)
	b = strconv.AppendInt(append(b, `","subject":"Load test `...), int64(s.seq), 10)
	b = m.appendStamp(append(b, `","headers":{"X-Bench":"`...), s)
	b = append(b, `"},"to":[`...)
	for i := range m.recipients {
		if i > 0 {
			b = append(b, ',')
		}
		b = m.appendRecipient(append(b, `{"email":"`...), s.first+i)
		b = append(b, `"}`...)
	}
	b = m.appendText(append(b, `],"text":"`...), s.seq)
	return append(b, `"}}`...)
}

// appendMIME appends the mail as DATA sends it, with the final dot. No line of it starts with one.
func (m *mail) appendMIME(b []byte, s submission) []byte {
	b = append(append(b, "From: "...), m.froms[0]...)
	b = m.appendRecipient(append(b, "\r\nTo: "...), s.first)
	b = strconv.AppendInt(append(b, "\r\nSubject: Load test "...), int64(s.seq), 10)
	b = append(append(b, "\r\nDate: "...), m.date...)
	b = append(append(b, "\r\nMessage-ID: <"...), m.run...)
	b = strconv.AppendInt(append(b, '.'), int64(s.seq), 10)
	b = m.appendStamp(append(b, "@loadtest.test>\r\nX-Bench: "...), s)
	b = append(b, "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"...)
	return append(m.appendText(b, s.seq), ".\r\n"...)
}
