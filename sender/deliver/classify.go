package deliver

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

// result is an outcome and what it means for the connection, for other hosts and for the site's pace.
type result struct {
	sender.Outcome
	class     class     // of the host's reply; classNone if no host gave one
	early     bool      // nothing of the message was taken: another connection may try
	broken    bool      // the connection must not be used again
	tlsFailed bool      // the host may do better in the clear
	slowed    bool      // a host on the way to this result asked for fewer connections
	notBefore time.Time // an attempt before it makes no sense
	from      *source   // the address it was sent from; nil for the system's choice
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

// class is what a host's reply is about, and so what follows from it.
type class int8

const (
	classNone      class = iota
	classDelivered       // it has the message
	classSoft            // it passes: try again later
	classBusy            // it passes, and the host wants fewer connections or fewer messages
	classRecipient       // the address is bad, and goes on the do-not-send list
	classContent         // this message is not wanted, for what it says, how it is made or a rule of the recipient's own
	classPolicy          // the address we send from is blocked or too fast: the site gets a pause, nobody is suppressed
	classConfig          // something is not set up as it must be: authentication, DNS, TLS, or what we said
)

// String is the class's name.
func (c class) String() string {
	return [...]string{"", "delivered", "soft", "busy", "recipient", "content", "policy", "config"}[c]
}

// row is a rule of the table of replies. An empty field matches everything, and the first row that matches decides.
type row struct {
	stages   string // of the dialogue, parted by spaces
	codes    string // beginnings of the basic code, parted by spaces
	enhanced string // enhanced codes without their first digit, parted by spaces; "7." is all that begin so, "-" none
	text     words  // in the text in lower case without addresses
	class    class
}

// words are expressions of which one is in a text. Each should begin with letters: looking for those is quick.
type words []*regexp.Regexp

func anyOf(expressions ...string) words {
	w := make(words, 0, len(expressions))
	for _, e := range expressions {
		w = append(w, regexp.MustCompile(e))
	}
	return w
}

func (w words) in(text string) bool {
	return slices.ContainsFunc(w, func(re *regexp.Regexp) bool {
		start, whole := re.LiteralPrefix()
		return strings.Contains(text, start) && (whole || re.MatchString(text))
	})
}

const (
	opening = "greeting helo starttls" // the host has not heard of the message
	before  = "mail rcpt data dot"     // it has
)

var (
	// codeText is an enhanced code where qmail and its heirs put it.
	codeText = regexp.MustCompile(`#([245]\.\d{1,3}\.\d{1,3})`)

	greyText = anyOf(`greylist`, `graylist`, `grey-list`, `address verification in progress`, `unverified address`, `callout`)
	// customerText is about the customer's own names, which must not slow down what others send.
	customerText = anyOf(`your dkim domain`, `your spf domain`, `your url domains`, `same message-id`, `sending domain`, `mailfrom domain is listed`,
		`domain present in`, `sender address \S* ?blocked using`, `domain \S* ?blocked using`, `dbl\.`, `uribl`, `surbl`, `urlbl`)
	crowdText = anyOf(`too many (concurrent |simultaneous |smtp |open )*(connections|sessions|connects)`, `concurrent connections`, `concurrent sessions`,
		`connection (rate|count|limit)`, `connection frequency`, `rate of connections`, `number of connections`)
	blockText = anyOf(`blocked using`, `blocking using`, `block using`, `blacklist`, `black list`, `black-list`, `blocklist`, `block list`, `block-list`, `denylist`,
		`listed (at|in|by|on)\b`, `is listed`, `found (in|on) (one or more )?dns`, `dnsbl`, `dns bl`, `rbl\b`, `spamhaus`, `spamcop`, `sorbs`, `cloudmark`, `reputation`,
		`banned (send|ip)`, `host( address)?( \S+)? (is |has been |was )?(banned|blocked)`, `network( address)?( \S+)? (is |has been |was )?(banned|blocked)`,
		`ip( address)?( \S+)? (is |has been |was )?(banned|blocked)`, `blocked - see`, `too much mail from`, `access from ip`, `unusual rate of`,
		`unexpected volume`, `excessive volume`, `user complaints`, `permanently deferred`, `rate limit`, `rate-limit`, `ratelimit`, `slower`,
		`messages from .{0,80}(deferred|weren't sent)`, `connections will not be accepted`, `too many (messages|mails|invalid recipients|unknown recipients|bad recipients)`,
		`excessive unknown recipients`, `throttl`, `connections? not accepted from ip`, `not accepting (mail|connections) from`, `suspicious activity`,
		`daily (smtp|message|sending)`, `aup#`, `your access`, `sending mta`, `for policy reasons\. host`)
	setupText = anyOf(`spf\b`, `sender policy framework`, `dkim`, `dmarc`, `unauthenticated`, `authenticat`, `ptr\b`, `reverse dns`, `reverse host`, `rdns\b`,
		`relay(ing)?($|[ ,.;])`, `rcpthosts`, `starttls`, `tls\b`, `encryption`, `helo\b`, `sender (verify|address|domain|rejected|refused)`, `domain of sender`,
		`valid sender`, `no mx`, `invalid mx`, `no dns`, `dns check`, `unresolvable`)
	contentText = anyOf(`spam`, `virus`, `malware`, `phish`, `attachment`, `message (is )?too (large|big)`, `message size`, `size (limit|exceed)`,
		`not .{0,12}(rfc|complian)`, `non-?complian`, `malformed`, `header`, `url\b`, `suspicious`, `content`, `unsolicited`, `banned`)
	fullText = anyOf(`mailbox\b.{0,12}\bfull`, `over\W.{0,30}\b(quota|storage)`, `exceed\w*\W.{0,30}\b(quota|storage)`, `out of .{0,30}\b(quota|storage)`,
		`quota\b.{0,12}(exceed\w*|full|violation)`, `overquota`, `storage (allocation|limit)`, `mailbox size limit`, `insufficient (disk|storage|system)`)
	floodText = anyOf(`receiving mail (too quickly|at a rate)`, `messages they can receive`, `recipient thread limit`)
	goneText  = anyOf(`doesn't have an? \S+ account`, `this mailbox is disabled`, `is no longer valid`, `mailbox not found`)
	// wrongText is how hosts speak when the sender is at fault, not the address.
	wrongText = anyOf(`antispam`, `anti-spam`, `policy`, `policies`, `block`, `reputation`, `listed`, `too many`, `rate\b`, `not permitted`, `access denied`,
		`authoriz`, `client host`, `ip addr`, `sender`, `abuse`, `try again`, `temporar`, `spoof`, `prohibit`, `denied`, `not allowed`, `administrative`)
)

// replies are the rules for what is neither 2xx nor without meaning. Connections first, then what passes, then refusals.
var replies = []row{
	{opening, "", "", crowdText, classBusy},
	{opening, "", "", blockText, classPolicy},
	{opening, "", "", nil, classBusy},

	{"", "4", "", greyText, classSoft},
	{"", "4", "2. 5.3 1.1", nil, classSoft}, // the mailbox, or too many recipients
	{"", "4", "", floodText, classSoft},
	{"", "4", "", crowdText, classBusy},
	{"", "4", "7.23 7.24 7.25 7.26 7.27 7.29 7.30 7.32 7.40", nil, classConfig}, // Gmail's requirements of senders
	{"", "4", "", customerText, classSoft},
	{"", "4", "", blockText, classPolicy},
	{"", "4", "", setupText, classConfig},
	{"", "421", "", anyOf(`messages? per (connection|session)`, `timeout`, `idle`, `connection expired`), classSoft},
	{"", "421", "", nil, classBusy},
	{"", "4", "7.", nil, classBusy},
	{"", "4", "", nil, classSoft},

	{"", "5", "2.2", nil, classSoft}, // a full mailbox
	{"", "5", "- 1.1 2.0 2.1 5.", fullText, classSoft},
	{"", "5", "2.121 2.122", nil, classSoft},
	{"", "5", "", floodText, classSoft},
	{"rcpt", "552", "- 5.3", nil, classSoft}, // where 452 is meant: RFC 5321 §4.5.3.1.10
	{"rcpt", "55", "5.0", anyOf(`mailbox unavailable`), classRecipient},
	{"dot", "552 554", "-", goneText, classRecipient},
	{"", "5", "3.4 2.3 6. 7.124 7.133", nil, classContent},
	{"", "53 525 538", "", nil, classConfig}, // authentication and TLS
	{"", "5", "7.23 7.24 7.25 7.26 7.27 7.29 7.30 7.32 7.40 7.506 7.509 7.510 7.515", nil, classConfig},
	{"", "5", "", customerText, classContent},
	{"", "5", "", blockText, classPolicy},
	{"", "5", "1.7 1.8 7.10 7.11", nil, classConfig},
	{"", "5", "- 0. 1. 2. 3. 5. 7.", setupText, classConfig},
	{"rcpt", "550 551 553 556", "- 1.1 1.2 1.3 1.6 1.10 2.1", wrongText, classContent}, // doubt is for the address
	{"data dot", "5", "", contentText, classContent},
	{"rcpt", "550 551 553 556", "- 1.1 1.2 1.3 1.6 1.10 2.1", nil, classRecipient},
	{before, "50", "", nil, classConfig},
	{before, "554", "5.", nil, classConfig},
	{"", "", "", nil, classContent},
}

// firstRow finds the row of the table that a reply other than 2xx falls under.
func firstRow(r *sender.Reply) int {
	enhanced, text := r.Enhanced, r.Text
	if enhanced == "" {
		if m := codeText.FindStringSubmatch(text); m != nil {
			enhanced = m[1]
		}
	}
	if enhanced != "" {
		enhanced = enhanced[2:]
	}
	text = strings.ToLower(withoutAddresses(text))
	code := strconv.Itoa(r.Code)
	return slices.IndexFunc(replies, func(row row) bool { return row.matches(r.Stage, code, enhanced, text) }) // the last takes all
}

// withoutAddresses takes out the addresses that a reply repeats: what they say is not the host's word.
func withoutAddresses(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	words := strings.Fields(text)
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return strings.Contains(w, "@") }), " ")
}

func (r *row) matches(stage, code, enhanced, text string) bool {
	return (r.stages == "" || anyField(r.stages, func(s string) bool { return s == stage })) &&
		(r.codes == "" || anyField(r.codes, func(s string) bool { return strings.HasPrefix(code, s) })) &&
		(r.enhanced == "" || anyField(r.enhanced, func(s string) bool {
			return s == enhanced || s == "-" && enhanced == "" || strings.HasSuffix(s, ".") && strings.HasPrefix(enhanced, s)
		})) && (r.text == nil || r.text.in(text))
}

func anyField(list string, good func(string) bool) bool {
	for s := range strings.SplitSeq(list, " ") {
		if good(s) {
			return true
		}
	}
	return false
}

// classify decides what a reply of 4xx, 5xx or (to the content) 2xx means for the message. The first digit of the
// basic code rules, whatever the enhanced code says (RFC 5321 §4.2.1); and a host that wants nobody says nothing about
// the message.
func classify(r *sender.Reply) (c class, v sender.Verdict) {
	if r.Code/100 == 2 {
		return classDelivered, sender.OutcomeDelivered
	}
	c = replies[firstRow(r)].class
	switch {
	case r.Code/100 != 5, c == classSoft, c == classBusy, beforeMail(r.Stage):
		return c, sender.OutcomeDeferred
	}
	return c, sender.OutcomeBounced
}
