package compose

import (
	"strconv"
	"strings"

	"github.com/postrider/postrider/sender"
)

// Unsubscribe is where the recipient of one mail can say that he wants no more of them (RFC 2369 §3.2).
type Unsubscribe struct {
	// URL is an http or https link that opens a page and takes a POST; with https the mail also says that one POST
	// is enough (RFC 8058 §3.1). Empty for none.
	URL string
	// Mailto is a mailto link (RFC 6068) to which an empty mail says the same. Empty for none; it counts only beside a URL.
	Mailto string
}

// Feedback names a mail to the statistics of the large mailbox providers.
type Feedback struct {
	Campaign string // what the mail belongs to, such as its tag; empty for none
	Stream   string // the kind of mail; empty for none
	Sender   string // this installation, the same for ever; without it no Feedback-ID is written
}

const (
	maxLink         = maxToken - len("<>,") // bytes, so that a link is one token
	maxFeedbackPart = 64                    // bytes; what is counted by must be short to be read
)

// appendIdentity writes the fields which the platform adds when a submission has none of its own. skip says which of
// the submission's fields ours stand for: those are blank, or say how to use a link that is not there.
func appendIdentity(b []byte, m Mail) (_ []byte, skip []string) {
	if id := feedbackID(m); id != "" && !given(m.Content.Headers, "Feedback-ID") {
		f := begin(b, "Feedback-ID")
		f.plain(id)
		b, skip = f.end(), append(skip, "feedback-id")
	}
	u := m.Unsubscribe
	if u.URL == "" || given(m.Content.Headers, "List-Unsubscribe") {
		return b, skip
	}
	f := begin(b, "List-Unsubscribe")
	if u.Mailto == "" {
		f.token("<", u.URL, ">")
	} else {
		f.token("<", u.URL, ">,")
		f.token("<", u.Mailto, ">")
	}
	b = f.end()
	if oneClick(u.URL) {
		b = append(b, "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"...)
	}
	return b, append(skip, "list-unsubscribe", "list-unsubscribe-post")
}

// oneClick says that a link may be named in List-Unsubscribe-Post (RFC 8058 §3.1).
func oneClick(link string) bool { return strings.HasPrefix(link, "https://") }

func given(all []sender.Header, name string) bool { return strings.TrimSpace(header(all, name)) != "" }

// feedbackID is campaign:account:stream:sender, as the providers count it from its end. What is not known is left
// out with its colon; the account always is.
func feedbackID(m Mail) string {
	last := feedbackPart(m.Feedback.Sender)
	if last == "" {
		return ""
	}
	var b strings.Builder
	for _, part := range []string{feedbackPart(m.Feedback.Campaign), strconv.FormatInt(m.Message.Account, 10), feedbackPart(m.Feedback.Stream)} {
		if part != "" {
			b.WriteString(part)
			b.WriteByte(':')
		}
	}
	return b.String() + last
}

// feedbackPart makes a name out of a text: letters, digits and ._- stay, anything else becomes one dash, and
// dashes at its ends are cut.
func feedbackPart(s string) string {
	b := make([]byte, 0, min(len(s), maxFeedbackPart))
	for i := 0; i < len(s) && len(b) < maxFeedbackPart; i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_':
			b = append(b, c)
		case len(b) > 0 && b[len(b)-1] != '-':
			b = append(b, '-')
		}
	}
	return strings.TrimRight(string(b), "-")
}

func checkUnsubscribe(u Unsubscribe) error {
	if u.URL != "" && !oneClick(u.URL) && !strings.HasPrefix(u.URL, "http://") {
		return sender.Invalid("unsubscribe.url", "must begin with https://, or http:// where no receiver will see it")
	}
	if u.Mailto != "" && !strings.HasPrefix(u.Mailto, "mailto:") {
		return sender.Invalid("unsubscribe.mailto", "must begin with mailto:")
	}
	for field, link := range map[string]string{"unsubscribe.url": u.URL, "unsubscribe.mailto": u.Mailto} {
		if !linkLike(link) {
			return sender.Invalid(field, "is not a link of at most %d printable ASCII characters without <, >, comma and quotes", maxLink)
		}
	}
	return nil
}

// linkLike holds a link against everything that could end it where it stands between angle brackets (RFC 2369 §2).
func linkLike(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`<>,"\`, s[i]) >= 0 {
			return false
		}
	}
	return len(s) <= maxLink
}
