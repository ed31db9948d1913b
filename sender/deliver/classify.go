package deliver

import (
	"regexp"
	"slices"

	"github.com/postrider/postrider/sender"
)

// result is an outcome and what it means for the connection and for other hosts.
type result struct {
	sender.Outcome
	early     bool // nothing of the message was taken: another connection may try
	broken    bool // the connection must not be used again
	tlsFailed bool // the host may do better in the clear
}

// is says that there is an outcome.
func (r *result) is() bool { return r.Verdict != 0 }

// problem is a deferral for a reason on the way, not one that a host gave.
func problem(stage, enhanced, text string) result {
	return result{Outcome: sender.Outcome{Verdict: sender.OutcomeDeferred,
		Reply: sender.Reply{Enhanced: enhanced, Stage: stage, Text: text}}}
}

// cancelled is the deferral of an attempt that was not allowed to end.
func cancelled(stage string) result {
	return problem(stage, "4.3.2", "cut off: the attempt was cancelled")
}

// bounce is a refusal of our own, before a host was asked.
func bounce(stage, enhanced, text string) result {
	r := problem(stage, enhanced, text)
	r.Verdict = sender.OutcomeBounced
	return r
}

var (
	// policyText is how hosts speak when the sender is at fault, not the address.
	policyText = regexp.MustCompile(`(?i)\b(anti-?spam|spam|unsolicited|polic(y|ies)|block|black-? ?list|deny-?list|reputation|` +
		`banned|listed|rbl\b|dnsbl|spamhaus|spf\b|dkim|dmarc|ptr\b|rdns|reverse dns|gr[ea]y-?list|too many|rate|throttl|` +
		`relay|authenti|authoriz|not permitted|access denied|client host|ip addr|sender|virus|content|abuse|try again|temporar)`)
	// fullText is how hosts say that a mailbox is full, which passes (RFC 3463 §3.3: X.2.2).
	fullText = regexp.MustCompile(`(?i)\b(mailbox (is )?full|(over|exceed\w*|out of)\b.{0,30}\b(quota|storage)|quota (is )?(exceeded|full))`)
	// addressText is an address that a reply repeats: what it says is not the host's word.
	addressText = regexp.MustCompile(`\S*@\S*`)
)

// classify decides what a reply of 4xx, 5xx or (to the content) 2xx means for the message. The first digit of the
// basic code rules, whatever the enhanced code says (RFC 5321 §4.2.1).
func classify(r *sender.Reply) (v sender.Verdict, suppress bool) {
	switch {
	case r.Code/100 == 2:
		return sender.OutcomeDelivered, false
	case r.Code/100 != 5, r.Stage == "greeting", r.Stage == "helo", r.Stage == "starttls":
		return sender.OutcomeDeferred, false // a host that wants nobody says nothing about the message
	case soft(r):
		return sender.OutcomeDeferred, false
	}
	return sender.OutcomeBounced, badAddress(r)
}

// soft says that a 5xx will pass: a full mailbox, or 552 to RCPT where 452 is meant (RFC 5321 §4.5.3.1.10).
func soft(r *sender.Reply) bool {
	if r.Stage == "rcpt" && r.Code == 552 && r.Enhanced != "5.3.4" {
		return true
	}
	return r.Enhanced == "5.2.2" || r.Enhanced == "" && fullText.MatchString(r.Text)
}

// badAddress says that a refusal means the address itself, so that it is not to be mailed again. Only an answer to
// RCPT can, and only by a code for it (RFC 3463 §3.2, RFC 7505); doubt is for the address.
func badAddress(r *sender.Reply) bool {
	if r.Stage != "rcpt" || !slices.Contains([]int{550, 551, 553, 556}, r.Code) {
		return false
	}
	switch r.Enhanced {
	case "", "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1":
		return !policyText.MatchString(addressText.ReplaceAllString(r.Text, ""))
	}
	return false
}
