package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
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
)

// attempt makes one attempt at a message and has it recorded. The message stays in hand until the record is
// durable: a crash before that means one more attempt with the same Message-ID, never a loss.
func (d *Dispatcher) attempt(it *item) {
	defer func() {
		if p := recover(); p != nil { // one bad mail must not end the process, and then the next one
			d.cfg.Log.Error("attempt panicked", zap.Stringer("message", it.m.ID), zap.String("panic", fmt.Sprintf("%T", p)), zap.ByteString("stack", debug.Stack()))
			d.record(it, internalError("attempt"))
		}
	}()
	sh := d.cfg.Shards.Map().Shard(it.shard)
	if sh == nil || !sh.Server.Sure(it.since) {
		d.forget(it) // another instance may free our claims there, or has: nothing new is begun
		return
	}
	if time.Now().After(it.m.Expires) {
		d.record(it, sender.Outcome{Verdict: sender.OutcomeDeferred, Reply: sender.Reply{Enhanced: "4.4.7", Stage: "queue", Text: errLifeOver.Error()}})
		return
	}
	envelope, err := d.envelope(it)
	if err != nil {
		if errors.Is(err, shards.ErrUnavailable) || d.ctx.Err() != nil {
			d.forget(it)
			return
		}
		// Never undeliverable by our own fault: what cannot be composed is tried again and shows in the log.
		d.cfg.Log.Error("message not composed", zap.Stringer("message", it.m.ID), zap.Error(err))
		d.record(it, internalError("compose"))
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
	out := d.cfg.Deliver.Deliver(d.ctx, envelope)
	if void && out.Verdict != sender.OutcomeDelivered {
		d.forget(it)
		return
	}
	if d.ctx.Err() != nil && out.Verdict == sender.OutcomeDeferred {
		d.forget(it) // cut off by our own stop: no fault of the other side
		return
	}
	d.record(it, out)
}

func internalError(stage string) sender.Outcome {
	return sender.Outcome{Verdict: sender.OutcomeDeferred, Reply: sender.Reply{Enhanced: "4.3.0", Stage: stage, Text: "internal error"}}
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
	from := d.cfg.ReturnPath(it.m.Account, it.m.ID, it.content.ReturnPathDomain)
	mail, err := compose.Message(compose.Mail{Content: it.content, Message: &it.m, MessageIDDomain: sender.Domain(it.content.From.Email)})
	if err != nil {
		return deliver.Envelope{}, err
	}
	return deliver.Envelope{From: from, To: it.m.Recipient.Email, Size: len(mail), SMTPUTF8: compose.NeedsSMTPUTF8(it.content, &it.m),
		Data: compose.AppendDotStuffed(make([]byte, 0, len(mail)+len(mail)/64+16), mail)}, nil
}

// forget lets go of a message without an outcome. Its row still names us: the sweeper finds and frees it.
func (d *Dispatcher) forget(it *item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.letGo(it.m.ID)
	d.doubt(it.shard)
}

// hardBounceLife is how long a hard bounce keeps an address on the do-not-send list, as in Mandrill.
const hardBounceLife = 7 * 24 * time.Hour

// record turns an outcome into a fact: it decides when to try again.
func (d *Dispatcher) record(it *item, out sender.Outcome) {
	now := time.Now()
	f := &store.Fact{Account: it.m.Account, Message: it.m.ID, Attempt: it.m.Attempt, At: now, Reply: out.Reply}
	switch out.Verdict {
	case sender.OutcomeDelivered:
		f.State, f.Kind = sender.Delivered, sender.EventDelivered
	case sender.OutcomeBounced:
		f.State, f.Kind = sender.Bounced, sender.EventBounced
		if out.Suppress {
			f.Reject, f.Reason, f.RejectFor = it.m.Recipient.Email, sender.ReasonHardBounce, hardBounceLife
		}
	default:
		f.State, f.Kind, f.Next = sender.Deferred, sender.EventDeferred, now.Add(d.wait(it.m.Attempt))
		if f.Next.After(it.m.Expires) {
			f.State, f.Kind, f.Next = sender.SoftBounced, sender.EventSoftBounced, time.Time{}
		}
	}
	d.metrics.attempt(f.State, out)
	d.cfg.Ledger.Record(f, func(err error) {
		if err != nil {
			d.forget(it)
			return
		}
		d.mu.Lock()
		d.letGo(it.m.ID)
		d.mu.Unlock()
		if !f.Next.IsZero() {
			d.clock.set(it.shard, f.Next)
		}
	})
}

// wait is the time from a failed attempt to the next, with 20 % of jitter to both sides so that what failed
// together does not come back together (RFC 5321 §4.5.4.1 leaves the schedule to the sender).
func (d *Dispatcher) wait(attempt int) time.Duration {
	i := min(max(attempt, 1), len(d.cfg.Retry)) - 1
	base := float64(d.cfg.Retry[i])
	return time.Duration(base * (0.8 + 0.4*rand.Float64()))
}

// claim takes what is due in a shard, as far as there is room, and says whether more may be due.
func (d *Dispatcher) claim(ctx context.Context, shard string) (more bool) {
	const atOnce = 200
	n := min(d.room(), atOnce)
	sh := d.cfg.Shards.Map().Shard(shard)
	if n <= 0 || sh == nil || !sh.Server.Beating(shards.Quiet) {
		return true
	}
	d.claims.RLock()
	defer d.claims.RUnlock()
	claimed, err := d.cfg.Store.Claim(ctx, shard, n)
	if err != nil {
		if ctx.Err() == nil {
			d.cfg.Log.Debug("due messages not claimed", zap.String("shard", shard), zap.Error(err))
			d.mu.Lock()
			d.doubt(shard)
			d.mu.Unlock()
		}
		return false // the sweeper rings again
	}
	d.mu.Lock()
	for _, c := range claimed {
		d.hold(c.ID, c.Account, c.Size)
	}
	d.mu.Unlock()
	for i := range claimed {
		d.begin(&item{m: claimed[i].Message, body: claimed[i].Body, size: claimed[i].Size, shard: shard, since: time.Now()})
	}
	return len(claimed) == n
}
