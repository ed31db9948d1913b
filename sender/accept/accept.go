// Package accept is the one door through which mail comes in: it checks a submission, sets apart what cannot
// or must not be sent, stores the rest with its search rows in one commit, and only then answers. HTTP and
// SMTP both come through it.
package accept

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// Config is what the door needs.
type Config struct {
	Shards *shards.Shards
	Store  *store.Store
	Life   time.Duration // how long a message is tried
	// Share and Burst are how many messages a second, and at once, an account may send before the rest is bulk;
	// DefaultShare and DefaultBurst if 0.
	Share, Burst int
	// MaySend says whether an account may send from a domain; nil: from any.
	MaySend func(ctx context.Context, account int64, domain string) error
	// Reserve asks the dispatcher of this process for room; with it, messages are born in its hands.
	Reserve func(messages []sender.Message, bytes int) bool
	// Hand gives the dispatcher what was stored, after the commit.
	Hand func(sub *sender.Submission, messages []sender.Message)
	// Drop takes back a reservation; unsure says that the messages may have been stored all the same.
	Drop func(account int64, ids []sender.ID, unsure bool)
	// Ring says that a shard holds messages that nobody has in hand, and At that they will be due at a time.
	Ring    func(shard string)
	At      func(shard string, at time.Time)
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Status is how a recipient's message was taken in.
type Status string

// The statuses, by their names on the wire.
const (
	Sent      Status = "sent"   // stored, delivery begins at once
	Queued    Status = "queued" // stored, delivery when its turn comes
	Scheduled Status = "scheduled"
	Rejected  Status = "rejected"
	Invalid   Status = "invalid"
)

// Result is the answer for one recipient, in the order of the submission.
type Result struct {
	Email        string              `json:"email"`
	Status       Status              `json:"status"`
	Reason       sender.RejectReason `json:"reason,omitempty"`
	QueuedReason string              `json:"queued_reason,omitempty"`
	ID           string              `json:"id"`
}

// Door takes submissions in.
type Door struct {
	cfg      Config
	group    *shards.Group[*store.Accepted]
	large    *shards.Group[*store.Accepted] // for submissions whose commit would keep others waiting
	cancel   *shards.Group[*store.Cancelling]
	queueing // of large submissions
	keys     keyLocks
	pace     *pace
	results  *prometheus.CounterVec
	took     prometheus.Histogram
}

// New makes a door; Run opens it.
func New(cfg Config) *Door {
	d := &Door{cfg: cfg, keys: keyLocks{held: map[string]*keyLock{}}, queueing: newQueueing(), pace: newPace(cmp.Or(cfg.Share, DefaultShare), cmp.Or(cfg.Burst, DefaultBurst))}
	d.large = shards.NewGroup(cfg.Shards, cfg.Store.AcceptStatement(), shards.GroupConfig{
		Committers: 1, Max: 10, MaxBytes: 8 << 20, Linger: time.Millisecond, Queue: 500})
	d.cancel = shards.NewGroup(cfg.Shards, cfg.Store.CancelStatement(), shards.GroupConfig{
		Committers: 1, Max: 200, MaxBytes: 1 << 20, Linger: time.Millisecond, Queue: 5000})
	d.group = shards.NewGroup(cfg.Shards, cfg.Store.AcceptStatement(), shards.GroupConfig{
		Committers: 2, Max: 100, MaxBytes: 8 << 20, Linger: time.Millisecond, Queue: 5000})
	d.results = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_accepted_total",
		Help: "Messages by how they were taken in."}, []string{"status"})
	d.took = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postrider_accept_seconds",
		Help: "Time from a checked submission to its commit.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(d.results, d.took)
	}
	return d
}

// Run takes submissions until ctx ends.
func (d *Door) Run(ctx context.Context) error {
	var all errgroup.Group
	all.Go(func() error { return d.large.Run(ctx) })
	all.Go(func() error { return d.group.Run(ctx) })
	all.Go(func() error { return d.cancel.Run(ctx) })
	return all.Wait()
}

// manyRecipients is the number above which a send is answered as queued.
const manyRecipients = 10

// Accept checks and stores a submission. When it returns results they are durable. An error is a
// *sender.Error; a KindUnavailable one may be tried again, with an idempotency key without fear of a double.
func (d *Door) Accept(ctx context.Context, sub *sender.Submission) ([]Result, error) {
	if err := check(sub); err != nil {
		return nil, err
	}
	if err := d.maySend(ctx, sub); err != nil {
		return nil, err
	}
	if sub.IdempotencyKey != "" {
		unlock, err := d.keys.lock(ctx, fmt.Sprint(sub.Account, " ", sub.IdempotencyKey))
		if err != nil {
			return nil, sender.Unavailable(err)
		}
		defer unlock()
	}
	sub.ID = sender.NewID() // after the wait: what is reserved must not be older than the floor of a heartbeat
	results, accepted, err := d.prepare(sub)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if sub.IdempotencyKey != "" {
		results, err = d.once(ctx, accepted, results)
	} else if len(accepted.Messages) > 0 {
		results, err = d.store(accepted, results)
	}
	if err != nil {
		return nil, d.refusal(err)
	}
	d.took.Observe(time.Since(start).Seconds())
	for _, r := range results {
		d.results.WithLabelValues(string(r.Status)).Inc()
	}
	return results, nil
}

// maySend asks whether the account may send from the domains that its mail names as its author and its sender.
func (d *Door) maySend(ctx context.Context, sub *sender.Submission) error {
	if d.cfg.MaySend == nil || sub.System || sub.Content.From.Email == "" {
		return nil
	}
	if err := d.cfg.MaySend(ctx, sub.Account, sender.Domain(sub.Content.From.Email)); err != nil {
		return err
	}
	for _, h := range sub.Content.Headers {
		if !strings.EqualFold(h.Name, "Sender") {
			continue
		}
		_, domain, _ := strings.Cut(h.Value, "@")
		if err := d.cfg.MaySend(ctx, sub.Account, strings.Trim(domain, "> \t")); err != nil {
			return sender.Invalid("headers.Sender", "names a domain that is not verified for this account")
		}
	}
	return nil
}

// Cancel takes back a scheduled message. The row decides: one whose attempt has begun, or that is not the account's, is
// store.ErrNotFound.
func (d *Door) Cancel(account int64, id sender.ID) (store.Scheduled, error) {
	c := &store.Cancelling{Account: account, ID: id, Request: sender.NewID()}
	switch err := d.cancel.Do(account, c, 100); {
	case err != nil:
		return store.Scheduled{}, err
	case c.Done == nil:
		return store.Scheduled{}, store.ErrNotFound
	}
	return *c.Done, nil
}

func (d *Door) refusal(err error) error {
	var known *sender.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, shards.ErrUnavailable):
		return sender.Unavailable(err)
	}
	return &sender.Error{Kind: sender.KindInternal, Message: "the submission could not be stored", Err: err}
}

// prepare makes the messages of a submission and the answer as it will be if nothing is on the do-not-send list.
func (d *Door) prepare(sub *sender.Submission) ([]Result, *store.Accepted, error) {
	a := &store.Accepted{Submission: sub}
	results := make([]Result, len(sub.Recipients))
	status, why := Sent, ""
	if sub.Async || len(sub.Recipients) > manyRecipients {
		status = Queued
	}
	if len(sub.Recipients) > manyRecipients {
		why = "multiple-recipients"
	}
	begins := time.Now()
	if !sub.SendAt.IsZero() {
		status, why, begins = Scheduled, "", sub.SendAt
	}
	expires, perishable := begins.Add(d.cfg.Life), false
	if !sub.ExpiresAt.IsZero() {
		expires, perishable = sub.ExpiresAt, true
	}
	for i, r := range sub.Recipients {
		id := sender.NewID()
		results[i] = Result{Email: r.Email, Status: status, QueuedReason: why, ID: id.String()}
		switch {
		case sub.Content.From.Email == "":
			results[i] = Result{Email: r.Email, Status: Rejected, Reason: sender.ReasonInvalidSender, ID: id.String()}
			continue
		case sender.CheckEmail(r.Email) != nil:
			results[i] = Result{Email: r.Email, Status: Invalid, Reason: sender.ReasonInvalid, ID: id.String()}
			continue
		}
		m := sender.Message{ID: id, Account: sub.Account, Submission: sub.ID, State: sender.Queued, Recipient: r, Expires: expires, Perishable: perishable}
		a.Messages = append(a.Messages, m)
		if bcc := sub.Content.BccAddress; bcc != "" {
			shown := r.Address
			m.ID, m.Recipient = sender.NewID(), sender.Recipient{Address: sender.Address{Email: bcc}, Kind: sender.Bcc, Shown: shown}
			a.Messages = append(a.Messages, m)
		}
	}
	class := d.pace.class(sub, len(a.Messages), time.Now())
	a.Metadata = make([]string, len(a.Messages))
	for i := range a.Messages {
		a.Messages[i].Class = class
		text, err := metadata(sub.Metadata, a.Messages[i].Recipient.Metadata)
		if err != nil {
			return nil, nil, err
		}
		a.Metadata[i] = text
	}
	var err error
	a.Body, err = store.EncodeContent(&sub.Content)
	return results, a, err
}

func metadata(all, own map[string]string) (string, error) {
	if len(all) == 0 && len(own) == 0 {
		return "", nil
	}
	merged := make(map[string]string, len(all)+len(own))
	for _, from := range []map[string]string{all, own} {
		for k, v := range from {
			merged[k] = v
		}
	}
	b, err := json.Marshal(merged)
	return string(b), err
}

func ids(a *store.Accepted) []sender.ID {
	out := make([]sender.ID, len(a.Messages))
	for i := range a.Messages {
		out[i] = a.Messages[i].ID
	}
	return out
}

// size is about what a submission adds to a statement and to memory, in bytes.
func size(a *store.Accepted) int {
	n := len(a.Body)
	for i := range a.Messages {
		n += 600 + len(a.Metadata[i])
	}
	return n
}

// reserve asks for room in the dispatcher, so that the messages are born in its hands.
func (d *Door) reserve(a *store.Accepted) {
	a.Claimed = len(a.Messages) > 0 && a.Submission.SendAt.IsZero() && d.cfg.Reserve(a.Messages, size(a))
}

// store commits with whatever else is waiting. If the commit is unsure, the messages may be there all the
// same: the caller is told to try again, and the sweeper finds them by their rows.
func (d *Door) store(a *store.Accepted, results []Result) ([]Result, error) {
	d.reserve(a)
	group := d.group
	if len(a.Messages) > largeSubmission {
		group = d.large
		defer d.enter()()
	} else {
		d.pass()
	}
	if err := group.Do(a.Submission.Account, a, size(a)); err != nil {
		if a.Claimed {
			d.cfg.Drop(a.Submission.Account, ids(a), true)
		}
		return nil, err
	}
	d.handOver(a)
	return d.settle(a, results), nil
}

// handOver passes on what was stored: to the dispatcher's memory, or by a bell.
func (d *Door) handOver(a *store.Accepted) {
	if len(a.Messages) == 0 {
		return
	}
	shard := d.cfg.Shards.Of(a.Submission.Account).Name
	switch {
	case !a.Submission.SendAt.IsZero():
		d.cfg.At(shard, a.Submission.SendAt)
		return
	case !a.Claimed:
		d.cfg.Ring(shard)
		return
	}
	live := a.Messages
	if len(a.Rejected) > 0 {
		var gone []sender.ID
		live = nil
		for _, m := range a.Messages {
			if _, no := a.Rejected[m.ID]; no {
				gone = append(gone, m.ID)
			} else {
				live = append(live, m)
			}
		}
		d.cfg.Drop(a.Submission.Account, gone, false)
	}
	for i := range live {
		live[i].State, live[i].Attempt = sender.Sending, 1
	}
	d.cfg.Hand(a.Submission, live)
}

// settle writes into the answer what the do-not-send list held.
func (d *Door) settle(a *store.Accepted, results []Result) []Result {
	if len(a.Rejected) == 0 {
		return results
	}
	byID := map[string]sender.RejectReason{}
	for id, why := range a.Rejected {
		byID[id.String()] = why
	}
	for i := range results {
		if why, ok := byID[results[i].ID]; ok {
			results[i].Status, results[i].Reason, results[i].QueuedReason = Rejected, why, ""
		}
	}
	return results
}

// once stores under an idempotency key, or gives the first answer again.
func (d *Door) once(ctx context.Context, a *store.Accepted, results []Result) ([]Result, error) {
	sub := a.Submission
	if len(a.Messages) > largeSubmission {
		defer d.enter()()
	}
	d.reserve(a)
	known, err := d.cfg.Store.AcceptOnce(ctx, a, func() ([]byte, error) { return json.Marshal(d.settle(a, results)) })
	if a.Claimed && (err != nil || known != nil) {
		d.cfg.Drop(sub.Account, ids(a), err != nil)
	}
	if err != nil {
		return nil, err
	}
	if known == nil {
		d.handOver(a)
		return d.settle(a, results), nil
	}
	if known.Digest != sub.Digest {
		return nil, &sender.Error{Kind: sender.KindConflict, Field: "Idempotency-Key",
			Message: "this Idempotency-Key was used with another request in the last 24 hours: use a new key, or send the same request again"}
	}
	var first []Result
	if err := json.Unmarshal(known.Answer, &first); err != nil {
		return nil, fmt.Errorf("read the first answer: %w", err)
	}
	return first, nil
}
