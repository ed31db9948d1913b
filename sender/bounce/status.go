package bounce

import (
	"bytes"
	netmail "net/mail"
	"regexp"
	"strconv"
	"strings"

	"github.com/postrider/postrider/sender"
)

const maxGroups = 100 // recipients of one status report that are looked at

var (
	statusStart = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}\b`)
	statusIn    = regexp.MustCompile(`(?:^|[\s(#:\-])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:$|[\s):;,\-])`)
	hexEscape   = regexp.MustCompile(`\\x\{([0-9A-Fa-f]{2,6})\}`)
)

// readStatus reads a delivery status (RFC 3464 §2): fields about the message, then a group for each recipient.
// Our messages have one recipient; of several groups, where a list behind it was expanded, the first
// failure counts, else the first.
func readStatus(m *mail) Report {
	var chosen Report
	rest := m.status
	for n := 0; n < maxGroups && len(rest) > 0; n++ {
		var group fields
		group, rest = cutFields(rest)
		if group.get("Action") == "" && group.get("Final-Recipient") == "" && group.get("Status") == "" {
			continue // about the message, or an empty line too many
		}
		r := readGroup(group)
		if chosen == (Report{}) || chosen.Kind != Failed && r.Kind == Failed {
			chosen = r
		}
	}
	if chosen == (Report{}) {
		return guess(m)
	}
	if chosen.Recipient == "" {
		chosen.Recipient = firstAddress(m.header.get("X-Failed-Recipients"))
	}
	return chosen
}

func readGroup(g fields) Report {
	r := Report{Status: statusStart.FindString(g.get("Status")), Diagnostic: g.get("Diagnostic-Code")}
	action, _, _ := strings.Cut(strings.ToLower(g.get("Action")), " ") // a comment may follow
	switch strings.TrimSuffix(action, ";") {
	case "failed":
		r.Kind = Failed
	case "delayed":
		r.Kind = Delayed
	case "delivered", "relayed", "expanded":
		r.Kind = Delivered
	}
	r.Status = refine(r.Status, r.Diagnostic)
	for _, name := range []string{"Original-Recipient", "Final-Recipient"} {
		if r.Recipient == "" {
			r.Recipient = typedAddress(g.get(name))
		}
	}
	return r
}

// refine takes the code that the remote host gave where the reporting host gave none or only its class (x.0.0).
func refine(status, diagnostic string) string {
	if status != "" && !strings.HasSuffix(status, ".0.0") {
		return status
	}
	found := firstStatus(diagnostic)
	if found == "" || status != "" && found[0] != status[0] {
		return status
	}
	return found
}

func firstStatus(s string) string {
	if m := statusIn.FindStringSubmatch(s[:min(len(s), 4096)]); m != nil {
		return m[1]
	}
	return ""
}

// typedAddress reads "rfc822; a@example.com" (RFC 3464 §2.1.2) and "utf-8; \x{E9}@example.com" (RFC 6533 §3).
// X.400 and other worlds are no addresses of ours.
func typedAddress(s string) string {
	kind, address, ok := strings.Cut(s, ";")
	if !ok {
		kind, address = "rfc822", s
	}
	address = strings.TrimSpace(address)
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "rfc822":
	case "utf-8":
		address = hexEscape.ReplaceAllStringFunc(address, func(e string) string {
			n, err := strconv.ParseUint(e[3:len(e)-1], 16, 32)
			if err != nil || n > 0x10ffff {
				return e
			}
			return string(rune(n))
		})
	default:
		return ""
	}
	return firstAddress(address)
}

// firstAddress is an address, with or without angle brackets, at the start of a list; empty if it is none that we send to.
func firstAddress(s string) string {
	s, _, _ = strings.Cut(s, ",")
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "<") {
		s, _, _ = strings.Cut(s[1:], ">")
	}
	if sender.CheckEmail(s) != nil {
		return ""
	}
	return s
}

// readFeedback reads a feedback report (RFC 5965 §3). What the recipient did not mean as a complaint is Unknown.
func readFeedback(m *mail) Report {
	f, _ := cutFields(bytes.TrimLeft(m.feedback, "\r\n"))
	r := Report{Diagnostic: f.get("Feedback-Type")}
	switch strings.ToLower(r.Diagnostic) {
	case "abuse", "fraud", "opt-out", "opt-out-list":
		r.Kind = Complaint
	}
	for _, name := range []string{"Original-Rcpt-To", "Removal-Recipient"} {
		if r.Recipient == "" {
			r.Recipient = typedAddress(f.get(name))
		}
	}
	if r.Recipient == "" {
		if a, err := netmail.ParseAddress(m.original.get("To")); err == nil {
			r.Recipient = firstAddress(a.Address)
		}
	}
	return r
}
