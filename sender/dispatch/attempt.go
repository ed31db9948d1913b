package dispatch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/compose"
	"github.com/postrider/postrider/sender/deliver"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

var (
	errVoid     = errors.New("the claim on the message may be another's by now")
	errLifeOver = errors.New("the message's life is over")
	errUnsigned = errors.New("the domain's keys cannot be had")
)

// attempt makes one attempt at a message and has it recorded. The message stays in hand until the record is
// durable: a crash before that means one more attempt with the same Message-ID, never a loss.
func (d *Dispatcher) attempt(it *item) {
	defer func() {
		if p := recover(); p != nil { // one bad mail must not end the process, and then the next one
			d.cfg.Log.Error("attempt panicked", zap.Stringer("message", it.m.ID), zap.String("panic", fmt.Sprintf("%T", p)), zap.ByteString("stack", debug.Stack()))
			d.fault(it, "attempt", fmt.Sprintf("panic with a %T", p))
		}
	}()
	sh := d.cfg.Shards.Map().Shard(it.shard)
	if sh == nil || !sh.Server.Sure(it.since) {
		d.forget(it) // another instance may free our claims there, or has: nothing new is begun
		return
	}
	if d.untried(it) {
		return
	}
	envelope, err := d.envelope(it)
	if err != nil {
		if errors.Is(err, shards.ErrUnavailable) || d.ctx.Err() != nil {
			d.forget(it)
			return
		}
		if errors.Is(err, errUnsigned) { // mail that should be signed never goes without: it waits until the operator has mended that
			d.cfg.Log.Warn("message not signed", zap.Stringer("message", it.m.ID), zap.Error(err))
			d.record(it, sender.Outcome{Verdict: sender.OutcomeDeferred, Reply: sender.Reply{Enhanced: "4.7.0", Stage: "sign", Text: errUnsigned.Error()}})
			return
		}
		d.cfg.Log.Error("message not composed", zap.Stringer("message", it.m.ID), zap.Error(err))
		d.fault(it, "compose", "the mail cannot be composed")
		return
	}
	void := false
	envelope.Still = func() error {
		switch {
		case !sh.Server.Sure(it.since): // stopped in the middle, perhaps: by now another may have it
			void = true
			return errVoid
		case time.Now().After(it.m.Expires):
			return errLifeOver
		}
		return nil
	}
	out := d.cfg.Deliver.Try(d.ctx, envelope)
	if void && out.Verdict != sender.OutcomeDelivered {
		d.forget(it)
		return
	}
	if d.ctx.Err() != nil && out.Verdict == sender.OutcomeDeferred {
		d.forget(it) // cut off by our own stop: no fault of the other side
		return
	}
	if out.Reply.Code == 0 && !out.NotBefore.IsZero() { // the site rests: nobody was asked, so it was no attempt
		d.postpone(it, time.Until(out.NotBefore))
		return
	}
	d.conclude(it, out)
}

// untried deals with a message at which no attempt is to be made.
func (d *Dispatcher) untried(it *item) bool {
	switch {
	case d.cfg.Shards.Map().Paused(JobDeliver, it.shard, it.m.Account):
		d.setAside(it)
	case it.m.Crashes >= maxCrashes:
		d.giveUp(it, fmt.Sprintf("the process ended %d times while it had this message in hand", it.m.Crashes))
	case time.Now().After(it.m.Expires):
		d.record(it, sender.Outcome{Verdict: sender.OutcomeDeferred, Reply: sender.Reply{Enhanced: "4.4.7", Stage: "queue", Text: errLifeOver.Error()}})
	default:
		return false
	}
	return true
}

func (d *Dispatcher) envelope(it *item) (deliver.Envelope, error) {
	if it.content == nil {
		var err error
		if it.body != nil {
			it.content, err = store.DecodeContent(it.body)
		} else {
			it.content, err = d.cfg.Store.Content(d.ctx, it.m.Account, it.m.Submission)
		}
		if err != nil {
			return deliver.Envelope{}, err
		}
		it.body = nil
	}
	domain := sender.Domain(it.content.From.Email)
	from := d.cfg.ReturnPath(it.m.Account, it.m.ID, domain, it.content.ReturnPathDomain)
	m := compose.Mail{Content: it.content, Message: &it.m, MessageIDDomain: domain, SendAt: it.m.SendAt}
	if it.content.Unsubscribe && d.cfg.Unsubscribe != nil {
		m.Unsubscribe.URL = d.cfg.Unsubscribe(it.m.Account, it.m.ID)
	}
	mail, err := compose.Message(m)
	if err != nil {
		return deliver.Envelope{}, err
	}
	data, err := d.sign(it, domain, mail)
	if err != nil {
		return deliver.Envelope{}, err
	}
	signed, pool := len(data), ""
	if d.cfg.Pool != nil {
		pool = d.cfg.Pool(it.m.Account, it.content.Pool)
	}
	return deliver.Envelope{Pool: pool, From: from, To: it.m.Recipient.Email, Size: signed + len(mail), SMTPUTF8: compose.NeedsSMTPUTF8(it.content, &it.m),
		Data: compose.AppendDotStuffed(data, mail)}, nil
}

// sign begins the data of a mail with its signatures, with room for the mail. They are as old as the message, so that a retry
// has the same.
func (d *Dispatcher) sign(it *item, domain string, mail []byte) ([]byte, error) {
	room := len(mail) + len(mail)/64 + 16
	if d.cfg.Keys == nil {
		return make([]byte, 0, room), nil
	}
	keys, err := d.cfg.Keys(d.ctx, it.m.Account, domain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsigned, err)
	}
	return compose.AppendSignatures(make([]byte, 0, room+len(keys)*1200), mail, keys, it.m.ID.Time())
}

// forget lets go of a message without an outcome. Its row still names us: the sweeper finds and frees it.
func (d *Dispatcher) forget(it *item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.letGo(it.m.ID)
	d.doubt(it.shard, it.m.ID)
	if d.closing {
		d.cut[it.shard] = append(d.cut[it.shard], it.ref())
	}
}

// reject ends a message whose recipient came onto the do-not-send list after it was accepted.
func (d *Dispatcher) reject(it *item, why sender.RejectReason) {
	f := d.fact(it, sender.Reply{Stage: "queue", Text: "its recipient came onto the do-not-send list after it was accepted"})
	f.State, f.Kind, f.Reason = sender.Rejected, sender.EventRejected, why
	d.save(it, f)
}

// record turns an outcome into a fact.
func (d *Dispatcher) record(it *item, out sender.Outcome) {
	d.conclude(it, deliver.Result{Outcome: out})
}

// conclude turns what came of an attempt into a fact: it decides when to try again.
func (d *Dispatcher) conclude(it *item, out deliver.Result) {
	f := d.fact(it, out.Reply)
	f.Transcript = out.Transcript
	switch out.Verdict {
	case sender.OutcomeDelivered:
		f.State, f.Kind = sender.Delivered, sender.EventDelivered
	case sender.OutcomeBounced:
		f.State, f.Kind = sender.Bounced, sender.EventBounced
		if out.Suppress {
			f.Reject, f.Reason = it.m.Recipient.Email, sender.ReasonHardBounce
		}
	default:
		d.putOff(it, f, out.NotBefore)
	}
	d.metrics.attempt(f.State, out.Outcome)
	d.save(it, f)
}

func (d *Dispatcher) fact(it *item, reply sender.Reply) *store.Fact {
	return &store.Fact{Account: it.m.Account, Message: it.m.ID, Attempt: it.m.Attempt, At: time.Now(), Reply: reply}
}

// putOff sets the next attempt, not before a time, or ends a message whose life does not last until then.
func (d *Dispatcher) putOff(it *item, f *store.Fact, notBefore time.Time) {
	next := f.At.Add(d.wait(it))
	if rest := notBefore.Sub(next); rest > 0 {
		next = notBefore.Add(rand.N(rest/4 + time.Second)) // not all at once when the site takes mail again
	}
	switch {
	case !next.After(it.m.Expires):
		f.State, f.Kind, f.Next = sender.Deferred, sender.EventDeferred, next
	case it.m.Perishable:
		f.State, f.Kind = sender.Expired, sender.EventExpired
	default:
		f.State, f.Kind = sender.SoftBounced, sender.EventSoftBounced
		if r := f.Reply; r.Code != 0 && (strings.HasPrefix(r.Enhanced, "4.2.") || r.Enhanced == "5.2.2") { // the mailbox, not we
			f.Reject, f.Reason = it.m.Recipient.Email, sender.ReasonSoftBounce
		}
	}
}

// save has a fact recorded and then lets go of the message.
func (d *Dispatcher) save(it *item, f *store.Fact) {
	d.cfg.Ledger.Record(f, func(err error) {
		if err != nil {
			d.forget(it)
			return
		}
		d.mu.Lock()
		d.letGo(it.m.ID)
		d.mu.Unlock()
		if !f.Next.IsZero() {
			d.clock.set(it.shard, f.Next.Sub(f.At))
		}
		if f.State == sender.Dead {
			go d.bury(it, f.Reply.Text) // not among work: the ledger may answer when that is waited for already
		}
	})
}

// wait is the time from a failed attempt to the next, with 20 % of jitter to both sides so that what failed
// together does not come back together (RFC 5321 §4.5.4.1 leaves the schedule to the sender). Mail that is worth nothing
// after a time is tried again soon: after 5 s, then twice as long each time, up to a minute or a tenth of what is left.
func (d *Dispatcher) wait(it *item) time.Duration {
	attempt := max(it.m.Attempt, 1)
	base := d.cfg.Retry[min(attempt, len(d.cfg.Retry))-1]
	if it.m.Perishable {
		base = min(base, hasty<<min(attempt-1, 20), max(hastyMost, time.Until(it.m.Expires)/10))
	}
	return time.Duration(float64(base) * (0.8 + 0.4*rand.Float64()))
}

const (
	hasty     = 5 * time.Second
	hastyMost = time.Minute
)
