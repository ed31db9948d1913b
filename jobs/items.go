package jobs

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"
)

// part is some of a job's ids and what becomes of them.
type part struct {
	Result
	ids [][16]byte
}

// split sorts a job's ids by what is to become of them: one part that is done, one to be retried and one to be snoozed,
// each after the longest of its waits, and one for each reason to be dead. There is always one part at least.
func (r Result) split(ids [][16]byte) []part {
	if r.verdict != perItem {
		return []part{{r, ids}}
	}
	var parts []part
	for _, id := range ids {
		item := r.items[id]
		if item.verdict == perItem {
			item = Result{}
		}
		i := slices.IndexFunc(parts, func(p part) bool {
			return p.verdict == item.verdict && (item.verdict != dead || p.reason == item.reason)
		})
		if i < 0 {
			i, parts = len(parts), append(parts, part{Result: item})
		}
		parts[i].ids = append(parts[i].ids, id)
		parts[i].after = max(parts[i].after, item.after)
	}
	if len(parts) == 0 {
		return []part{{}}
	}
	return parts
}

// apart takes a job apart, and is done with it when each part is where it belongs. If one cannot be put there, the whole
// job is retried: what was done is then done again, as every job may be.
func (w *worker) apart(ctx context.Context, d delivery, parts []part) Result {
	for _, p := range parts {
		tries, after := d.try, min(max(p.after, 0), maxDelay)
		if p.verdict == snooze {
			tries, after = tries-1, min(after, maxSnooze)
		}
		var err error
		switch {
		case p.verdict == done:
		case p.verdict == dead:
			err = w.interPart(d, p.ids, Job{IDs: p.ids}.encode(), p.reason)
		case ctx.Err() != nil: // cut short by us: no failure of the job's
			err = w.q.goOn(context.WithoutCancel(ctx), d, p.ids, d.try-1, 0)
		case p.verdict == retry && d.try >= w.q.cfg.MaxDeliver:
			err = w.interPart(d, p.ids, Job{IDs: p.ids}.encode(), w.spent(d, p.Result))
		default:
			err = w.q.goOn(ctx, d, p.ids, tries, after)
		}
		if err != nil {
			w.q.log.Debug("job not taken apart", zap.String("kind", w.kind), zap.Error(err))
			return Result{verdict: retry, after: deadline, reason: "its items have different ends, and those could not be stored"}
		}
	}
	return Done()
}

// spent is why a job is dead that asks for one retry too many.
func (w *worker) spent(d delivery, r Result) string {
	if r.reason == "" {
		r.reason = "asked for a retry"
	}
	return fmt.Sprintf("%s at try %d of %d", r.reason, d.try, w.q.cfg.MaxDeliver)
}
