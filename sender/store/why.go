package store

import (
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

// Why says in words what a message waits for, or how it ended.
func (f *Found) Why() string {
	switch f.State {
	case sender.Scheduled:
		return "scheduled for " + clock(f.Next)
	case sender.Queued:
		if f.Next.After(time.Now()) {
			return "waits for its recipient's domain, which has others before it; next look " + clock(f.Next)
		}
		return "waits for its turn"
	case sender.Sending:
		return fmt.Sprintf("attempt %d is under way", f.Attempt)
	case sender.Deferred:
		return fmt.Sprintf("%s; next try %s, attempt %d", said(f.Reply), clock(f.Next), f.Attempt+1)
	case sender.Delivered:
		return fmt.Sprintf("delivered at attempt %d", f.Attempt)
	case sender.Rejected:
		return "not sent: the recipient is on the do-not-send list (" + string(f.Reason) + ")"
	case sender.Bounced:
		return "bounced: " + said(f.Reply)
	case sender.SoftBounced:
		return "given up when its life was over; at last: " + said(f.Reply)
	case sender.Expired:
		return "expired before it could be delivered; at last: " + said(f.Reply)
	case sender.Dead:
		return "given up by our own fault, see postrider jobs dead list: " + f.Reply.Text
	case sender.Spam:
		return "delivered; the recipient complained"
	case sender.Unsubscribed:
		return "delivered; the recipient unsubscribed"
	}
	return f.State.Name()
}

// said is a reply in words: who answered what, or why nobody could be asked.
func said(r sender.Reply) string {
	text := strings.TrimSpace(r.Enhanced + " " + r.Text)
	switch {
	case r.Code == 0 && text == "":
		return "no host was asked yet"
	case r.Code == 0:
		return text
	case r.Host == "":
		return fmt.Sprintf("the host answered %d %s", r.Code, text)
	}
	return fmt.Sprintf("%s answered %d %s", r.Host, r.Code, text)
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
