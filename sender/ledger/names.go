package ledger

import "github.com/postrider/postrider/sender"

// stateName is a state as a metric label.
func stateName(s sender.State) string {
	switch s {
	case sender.Delivered:
		return "delivered"
	case sender.Deferred:
		return "deferred"
	case sender.Bounced:
		return "bounced"
	case sender.SoftBounced:
		return "soft-bounced"
	case sender.Rejected:
		return "rejected"
	case sender.Spam:
		return "spam"
	case sender.Unsubscribed:
		return "unsubscribed"
	case sender.Cancelled:
		return "cancelled"
	case sender.Expired:
		return "expired"
	case sender.Dead:
		return "dead"
	}
	return "other"
}
