// Package sender holds the words of Postrider: the things that every part of the
// platform talks about. It has no behaviour beyond naming, printing and parsing them.
package sender

import (
	"bytes"
	"encoding/hex"
	"errors"
	"time"

	"github.com/google/uuid"
)

// ID names a submission or a message: a UUIDv7 (RFC 9562 §5.7) made by us at accept.
// Its first 48 bits are Unix milliseconds, so ids sort by time and the tables that hold
// them are partitioned by them. Its public form is 32 lower-case hex digits.
type ID [16]byte

// NewID makes an id of this moment; ids of one process rise.
func NewID() ID { return ID(uuid.Must(uuid.NewV7())) }

// String is the public form: 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Time is when the id was made, to the millisecond.
func (id ID) Time() time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}

// Before says that an id sorts before another.
func (id ID) Before(other ID) bool { return bytes.Compare(id[:], other[:]) < 0 }

// IsZero says that no id was set.
func (id ID) IsZero() bool { return id == ID{} }

var errID = errors.New("an id is 32 hex digits")

// ParseID reads the public form.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 32 {
		return id, errID
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, errID
	}
	return id, nil
}

// IDAt is the smallest id that can be made at t: the lower bound of a time range of ids.
func IDAt(t time.Time) ID {
	var id ID
	ms := max(t.UnixMilli(), 0)
	for i := 5; i >= 0; i-- {
		id[i] = byte(ms)
		ms >>= 8
	}
	return id
}

// Account is the customer whose key sends. It owns everything and lives whole in one shard.
type Account struct {
	ID      int64
	Name    string
	Created time.Time
}

// Address is a mailbox with an optional display name. Email has passed CheckEmail.
type Address struct {
	Email string
	Name  string
}

// Kind is a recipient's place in the header.
type Kind int8

// The kinds of recipient.
const (
	To Kind = iota
	Cc
	Bcc
)

// Recipient is one entry of a submission's recipient list.
type Recipient struct {
	Address
	Kind Kind
	// Metadata is this recipient's own, laid over the submission's.
	Metadata map[string]string
	// Shown is whom the To header names in place of this recipient, who gets a copy of that one's mail
	// (bcc_address); zero for the recipient itself.
	Shown Address
}

// Header is one extra header field of a submission. Neither part holds CR, LF or NUL.
type Header struct {
	Name  string
	Value string
}

// Attachment is a file or an inline image. For an inline image Name is its Content-ID.
type Attachment struct {
	Type    string
	Name    string
	Content []byte
}

// Content is what a submission says, stored once however many recipients it has.
type Content struct {
	From               Address
	Subject            string
	HTML               string
	Text               string
	AutoText           bool // make the text part from HTML when Text is empty
	AutoHTML           bool // make the html part from Text when HTML is empty
	Headers            []Header
	Attachments        []Attachment
	Images             []Attachment
	PreserveRecipients bool // every mail shows the whole To and Cc
	// Recipients are the visible ones (To and Cc), kept only when PreserveRecipients is set.
	Recipients []Recipient
	// BccAddress gets a copy of each recipient's mail; empty for none.
	BccAddress string
	// ReturnPathDomain is the domain of the return path; empty for the platform's own.
	ReturnPathDomain string
	// Pool is the pool of source addresses that is asked for; empty for the account's own.
	Pool string
	// Unsubscribe adds List-Unsubscribe fields with a link of ours (RFC 8058), unless the headers have their own.
	Unsubscribe bool
	// Hidden says that the content must not be shown again (view_content_link false).
	Hidden bool
}

// Submission is what came in by HTTP or SMTP, already checked.
type Submission struct {
	ID         ID
	Account    int64
	Content    Content
	Recipients []Recipient
	Tags       []string
	Metadata   map[string]string
	Subaccount string
	Important  bool
	Async      bool
	System     bool      // from the platform itself, which may send from its own host name
	SendAt     time.Time // not before; zero for at once
	// ExpiresAt is when the mail is worth nothing any more, as a code or a link is: it is never delivered later.
	// Zero for none: then a message is tried for as long as the platform tries any.
	ExpiresAt time.Time
	// IdempotencyKey makes a repeat within 24 hours answer as the first did; empty for none.
	IdempotencyKey string
	// Digest is a hash of the request as it came in; a repeat must have the same.
	Digest [32]byte
}

// Message is one recipient's copy of a submission.
type Message struct {
	ID         ID
	Account    int64
	Submission ID
	State      State
	Recipient  Recipient
	Attempt    int       // attempts begun so far
	Expires    time.Time // no attempt after this
	SendAt     time.Time // of scheduled mail
	Perishable bool      // Expires is the customer's own: the mail is worth nothing later
	Class      Class
	Crashes    int // attempts that ended inside us: a panic, or the end of the process
}

// Class says in which order messages that wait are taken.
type Class int16

// The classes. An account that sends more than its share has the surplus in the two bulk classes, in which accounts take
// turns; what was in hand when processes ended is taken one at a time.
const (
	Prompt Class = iota
	BulkImportant
	Bulk
	Suspect
)

// State is where a message is in its life.
type State int16

// The states. Sending, Deferred and Queued are one state to the outside: queued.
const (
	Queued State = iota + 1
	Sending
	Deferred
	Scheduled
	Delivered // accepted by the next host
	Bounced
	SoftBounced
	Rejected // not sent: the recipient is on the account's do-not-send list
	Spam     // the recipient complained
	Unsubscribed
	Cancelled
	Expired // its ExpiresAt came first
	Dead    // given up by our own fault: each attempt failed inside Postrider
)

// Final says that no further attempt will be made.
func (s State) Final() bool { return s >= Delivered }

// Name is the state by its name outside, where an attempt that is under way is no news.
func (s State) Name() string {
	names := [...]string{Queued: "queued", Sending: "queued", Deferred: "deferred", Scheduled: "scheduled", Delivered: "delivered", Bounced: "bounced",
		SoftBounced: "soft_bounced", Rejected: "rejected", Spam: "spam", Unsubscribed: "unsubscribed", Cancelled: "cancelled", Expired: "expired", Dead: "dead"}
	if s < Queued || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// EventKind names an immutable fact about a message.
type EventKind int16

// The kinds of event. The accepted event is the message row itself.
const (
	EventDelivered EventKind = iota + 1
	EventDeferred
	EventBounced
	EventSoftBounced
	EventSpam
	EventExpired
	EventCancelled
	EventDead
	EventUnsubscribed
	EventRejected // its recipient came onto the do-not-send list after it was accepted
)

// Name is the kind by its name outside.
func (k EventKind) Name() string {
	names := [...]string{EventDelivered: "delivered", EventDeferred: "deferred", EventBounced: "bounced", EventSoftBounced: "soft_bounced", EventSpam: "spam",
		EventExpired: "expired", EventCancelled: "cancelled", EventDead: "dead", EventUnsubscribed: "unsubscribed", EventRejected: "rejected"}
	if k < EventDelivered || int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// Event is an immutable fact about a message. Seq rises by one within a message.
type Event struct {
	Message ID
	Account int64
	Seq     int
	Kind    EventKind
	At      time.Time
	Reply   Reply
	Attempt int
	// Transcript is the dialogue with the host, commands and replies without the content; empty for none.
	Transcript string
}

// RejectReason says why an address is on an account's do-not-send list.
type RejectReason string

// The reasons, by their names on the wire.
const (
	ReasonHardBounce    RejectReason = "hard-bounce"
	ReasonSoftBounce    RejectReason = "soft-bounce"
	ReasonSpam          RejectReason = "spam"
	ReasonUnsub         RejectReason = "unsub"
	ReasonCustom        RejectReason = "custom"
	ReasonInvalid       RejectReason = "invalid"
	ReasonInvalidSender RejectReason = "invalid-sender"
)

// Reject is an entry of an account's do-not-send list.
type Reject struct {
	Account int64
	Email   string // lower case
	Reason  RejectReason
	Detail  string
	Expires time.Time
}

// Reply is what a remote host said, or why it could not be asked (Code 0).
type Reply struct {
	Code     int    // basic code, RFC 5321 §4.2
	Enhanced string // enhanced code such as 5.1.1 (RFC 3463); empty for none
	Text     string // at most 1,000 bytes, control bytes escaped
	Stage    string // connect, greeting, helo, starttls, mail, rcpt, data, dot, dns
	Host     string // the host that said it, name or address
}

// Verdict is how an attempt ended.
type Verdict int8

// The verdicts.
const (
	OutcomeDelivered Verdict = iota + 1
	OutcomeDeferred
	OutcomeBounced
)

// Outcome is how one attempt at one remote host ended. It never says when to try again.
type Outcome struct {
	Verdict Verdict
	Reply   Reply
	// Suppress says that the address itself is bad, so it goes on the do-not-send list.
	Suppress bool
	// Unknown says that the connection broke after the final dot: the mail may have arrived.
	Unknown bool
	TLS     bool
	Took    time.Duration
}
