package relay

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/bounce"
	"github.com/postrider/postrider/sender/store"
)

// errEarly is a report that overtook the record of its delivery: its sender tries again, and by then that is there.
var errEarly = errors.New("the delivery is not recorded yet")

// take turns a report into a fact and waits until it is durable. Who is put on the do-not-send list is the
// message's own recipient: what the report says of it is the other side's word.
func (r *Relay) take(p bounce.ReturnPath, report bounce.Report) error {
	r.reports.WithLabelValues(report.Kind.String()).Inc()
	f := &store.Fact{Account: p.Account, Message: p.Message, At: time.Now(), Reply: sender.Reply{Enhanced: report.Status, Stage: "report", Text: report.Diagnostic}}
	switch report.Kind {
	case bounce.Failed:
		f.State, f.Kind = sender.Bounced, sender.EventBounced
		if strings.HasPrefix(report.Status, "4") {
			f.State, f.Kind = sender.SoftBounced, sender.EventSoftBounced
		}
		f.Reason = fault(report.Status)
	case bounce.Complaint:
		f.State, f.Kind, f.Reason = sender.Spam, sender.EventSpam, sender.ReasonSpam
	default:
		return nil // delayed, delivered, an answer by a machine, or nothing we know: no fact about the message
	}
	ctx, cancel := context.WithTimeout(context.Background(), recorded)
	defer cancel()
	m, _, err := r.cfg.Store.Info(ctx, p.Account, p.Message)
	if errors.Is(err, store.ErrNotFound) {
		return nil // expired: there is nothing left to say it of
	}
	if err != nil {
		return err
	}
	if !m.State.Final() {
		return errEarly
	}
	if f.Reason != "" {
		f.Reject = m.Recipient.Email
	}
	done := make(chan error, 1)
	r.cfg.Ledger.Record(f, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fault is what a status says against the address itself (RFC 3463 §3.2, §3.3), and not against its content, our
// reputation or the moment; empty for nothing.
func fault(status string) sender.RejectReason {
	switch status {
	case "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1":
		return sender.ReasonHardBounce
	case "5.2.2":
		return sender.ReasonSoftBounce
	}
	if strings.HasPrefix(status, "4.2.") {
		return sender.ReasonSoftBounce
	}
	return ""
}
