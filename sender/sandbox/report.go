package sandbox

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// maxOriginal is the size in bytes up to which a complaint carries the whole mail; of a larger one it
// carries the header, which RFC 5965 §2 (d) allows.
const maxOriginal = 1 << 20

// report writes the DSN or the ARF report for one recipient.
func report(e errand, hostname string) []byte {
	if e.kind == Complain {
		return complaint(e, hostname)
	}
	return bounce(e, hostname)
}

// bounce is a delivery status notification (RFC 3464, in a multipart/report by RFC 6522): the mailbox turned
// out not to exist. Addresses beyond ASCII are written as RFC 6533 asks.
func bounce(e errand, hostname string) []byte {
	status, kind := "message/delivery-status", "rfc822"
	if !isASCII(e.to) {
		status, kind = "message/global-delivery-status", "utf-8"
	}
	r := newReport(e, hostname, "Undelivered Mail Returned to Sender", "delivery-status")
	r.part("text/plain; charset=utf-8",
		"This is the mail system at %s.\r\n\r\nYour mail was accepted at first, but the mailbox of\r\n<%s> does not exist.\r\n",
		hostname, e.to)
	r.part(status,
		"Reporting-MTA: dns; %[1]s\r\nArrival-Date: %[2]s\r\n\r\n"+
			"Final-Recipient: %[3]s; %[4]s\r\nAction: failed\r\nStatus: 5.1.1\r\n"+
			"Diagnostic-Code: smtp; 550 5.1.1 No such user here\r\nLast-Attempt-Date: %[5]s\r\n",
		hostname, e.mail.at.Format(time.RFC1123Z), kind, e.to, time.Now().Format(time.RFC1123Z))
	r.original("text/rfc822-headers", header(e.mail.raw))
	return r.end()
}

// complaint is an abuse report in the Abuse Reporting Format (RFC 5965): the reader called the mail spam.
func complaint(e errand, hostname string) []byte {
	r := newReport(e, hostname, "Complaint about a mail", "feedback-report")
	r.part("text/plain; charset=utf-8",
		"This is an abuse report for a mail that was received by %s at %s.\r\n",
		hostname, e.mail.at.Format(time.RFC1123Z))
	r.part("message/feedback-report",
		"Feedback-Type: abuse\r\nUser-Agent: Sandbox/1.0\r\nVersion: 1\r\nOriginal-Mail-From: <%s>\r\n"+
			"Original-Rcpt-To: <%s>\r\nArrival-Date: %s\r\nReporting-MTA: dns; %s\r\n",
		e.mail.from, e.to, e.mail.at.Format(time.RFC1123Z), hostname)
	if len(e.mail.raw) <= maxOriginal {
		r.original("message/rfc822", e.mail.raw)
	} else {
		r.original("text/rfc822-headers", header(e.mail.raw))
	}
	return r.end()
}

// reportWriter writes a multipart/report part by part.
type reportWriter struct {
	bytes.Buffer
	boundary string
}

func newReport(e errand, hostname, subject, kind string) *reportWriter {
	r := &reportWriter{boundary: rand.Text()}
	fmt.Fprintf(r, "From: Mail Delivery System <MAILER-DAEMON@%s>\r\nTo: <%s>\r\nSubject: %s\r\n",
		hostname, e.mail.from, subject)
	fmt.Fprintf(r, "Date: %s\r\nMessage-ID: <%s@%s>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n",
		time.Now().Format(time.RFC1123Z), rand.Text(), hostname)
	fmt.Fprintf(r, "Content-Type: multipart/report; report-type=%s;\r\n\tboundary=\"%s\"\r\n\r\n", kind, r.boundary)
	return r
}

func (r *reportWriter) part(contentType, format string, args ...any) {
	r.original(contentType, fmt.Appendf(nil, format, args...))
}

// original adds bytes as they are; they never stand in quotes or base64 (RFC 2046 §5.2.1).
func (r *reportWriter) original(contentType string, body []byte) {
	encoding := "7bit"
	if !isASCII(string(body)) {
		encoding = "8bit"
	}
	fmt.Fprintf(r, "--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n", r.boundary, contentType, encoding)
	r.Write(body)
	r.WriteString("\r\n")
}

func (r *reportWriter) end() []byte {
	fmt.Fprintf(r, "--%s--\r\n", r.boundary)
	return r.Bytes()
}

// header is a mail's header with the line break of its last field.
func header(raw []byte) []byte {
	if i := bytes.Index(raw, []byte("\r\n\r\n")); i >= 0 {
		return raw[:i+2]
	}
	return raw[:min(len(raw), maxOriginal)]
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
