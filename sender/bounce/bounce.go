// Package bounce reads what comes back to a return path: delivery status notifications (RFC 3464, RFC 6522,
// with the UTF-8 forms of RFC 6533), complaints (RFC 5965) and automatic replies (RFC 3834); and it makes and
// checks the return paths themselves.
//
// It is pure, and it reads what strangers write: whatever comes in, it answers in bounded time and memory. A report
// says what a mail claims, not what is true. Only a signed return path says which message it is about.
package bounce

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is what a report says about a message.
type Kind int8

// The kinds of report. Only a report in a standard form is ever Failed: what merely looks like a bounce is Unknown,
// with what could be read from it, so that a guess never puts an address on a do-not-send list.
const (
	Unknown   Kind = iota
	Failed         // given up; Status tells for good (5) or for lack of time (4)
	Delayed        // still being tried by the host that reports
	Delivered      // delivered, relayed or expanded
	Complaint      // the recipient called it spam
	AutoReply      // out of office and the like
)

// String is the kind's name, in lower case.
func (k Kind) String() string {
	switch k {
	case Unknown:
		return "unknown"
	case Failed:
		return "failed"
	case Delayed:
		return "delayed"
	case Delivered:
		return "delivered"
	case Complaint:
		return "complaint"
	case AutoReply:
		return "autoreply"
	}
	return fmt.Sprintf("Kind(%d)", int8(k))
}

// Report is what could be read. Any field but Kind may be empty.
type Report struct {
	Kind Kind
	// Recipient is the address as we sent to it, where the report tells, else the one that failed behind it. It has
	// passed sender.CheckEmail.
	Recipient string
	// Status is an enhanced code such as 5.1.1 (RFC 3463).
	Status string
	// Diagnostic is what the remote host said, in one line of at most 500 bytes with control bytes escaped.
	// For a complaint it is the type of feedback.
	Diagnostic string
	// OriginalMessageID is the Message-ID of the mail reported on, without its angle brackets, at most 250 bytes.
	OriginalMessageID string
}

const (
	maxInput      = 1 << 20 // bytes that are read; the rest is ignored
	maxDepth      = 20      // multiparts within multiparts
	maxParts      = 1000    // parts in all
	maxDiagnostic = 500     // bytes
	maxMessageID  = 250     // bytes
)

// Parse reads a mail as it arrived, with line ends of any kind. Of a mail over 1 MiB it reads the first 1 MiB, and of
// its parts the first 1,000, at most 20 deep. A mail that is no report is Unknown.
func Parse(raw []byte) Report {
	m := open(raw[:min(len(raw), maxInput)])
	var r Report
	switch {
	case m.feedback != nil:
		r = readFeedback(m)
	case m.status != nil:
		r = readStatus(m)
	default:
		r = guess(m)
	}
	if r.OriginalMessageID == "" {
		r.OriginalMessageID = messageID(m.original.get("Message-ID"))
	}
	r.Diagnostic = oneLine(r.Diagnostic)
	return r
}

// messageID is what stands between the first angle brackets of a field; empty if that is no id.
func messageID(s string) string {
	_, s, ok := strings.Cut(s, "<")
	if !ok {
		return ""
	}
	s, _, ok = strings.Cut(s, ">")
	if !ok || len(s) > maxMessageID || !strings.Contains(s, "@") || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' }) {
		return ""
	}
	return s
}

// oneLine makes a text fit for a log, a database and a page: blanks run together, everything that does not print is escaped.
func oneLine(s string) string {
	var b strings.Builder
	space := false
	for len(s) > 0 && b.Len() < maxDiagnostic {
		r, size := utf8.DecodeRuneInString(s)
		piece := s[:size]
		s = s[size:]
		switch {
		case r == ' ', r == '\t', r == '\r', r == '\n':
			space = b.Len() > 0
			continue
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, piece[0])
		case !unicode.IsPrint(r):
			piece = fmt.Sprintf(`\u{%x}`, r)
		}
		if space {
			piece, space = " "+piece, false
		}
		if b.Len()+len(piece) > maxDiagnostic {
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}
