package jobs

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Headers of a dead job, and of a job that was in the queue before under another number.
const (
	headerReason    = "Postrider-Reason"
	headerTries     = "Postrider-Tries"      // how often it was tried
	headerRung      = "Postrider-Rung"       // when it first entered the queue, RFC 3339
	headerNotBefore = "Postrider-Not-Before" // when it is to be tried, RFC 3339
)

// Bury gives a job up that the caller found to be hopeless, after so many tries: it is put on the dead jobs, from where
// it can be replayed, without having to be in the queue. The reason is stored and logged: it must hold no address and
// no content. It answers within 2 s; after an error the job may be there all the same, and after a repeat twice.
func (q *Queue) Bury(ctx context.Context, j Job, reason string, tries int) error {
	if err := j.check(); err != nil {
		return fmt.Errorf("bury: %w", err)
	}
	if !q.nc.IsConnected() {
		return fmt.Errorf("bury: %w", q.away())
	}
	return q.inter(ctx, grave{Job: j, data: j.encode(), reason: reason, tries: tries, rung: time.Now()})
}

// grave is what is to be put on the dead jobs.
type grave struct {
	Job
	data   []byte
	reason string
	tries  int
	rung   time.Time
	once   string // the same for the same grave dug again; empty: each time another
}

func (q *Queue) inter(ctx context.Context, g grave) error {
	g.reason = headerLine(g.reason)
	msg := nats.NewMsg("dead." + g.Kind + "." + g.Shard)
	msg.Data = g.data
	msg.Header.Set(headerReason, g.reason)
	msg.Header.Set(headerTries, strconv.Itoa(g.tries))
	msg.Header.Set(headerRung, g.rung.UTC().Format(time.RFC3339Nano))
	var opts []jetstream.PublishOpt
	if g.once != "" {
		opts = append(opts, jetstream.WithMsgID(g.once))
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if _, err := q.js.PublishMsg(ctx, msg, opts...); err != nil {
		return fmt.Errorf("bury: %w", q.why(err))
	}
	q.metrics.buried.WithLabelValues(g.Kind).Inc()
	q.log.Error("job given up, see postrider jobs dead list", zap.String("kind", g.Kind), zap.String("shard", g.Shard),
		zap.String("reason", g.reason), zap.Int("tries", g.tries), zap.Int("ids", len(g.IDs)))
	return nil
}

// bury moves a job to the dead ones. If that fails it is tried again later: no job vanishes unseen.
func (w *worker) bury(d delivery, reason string) {
	if err := w.interPart(d, d.IDs, d.msg.Data(), reason); err != nil {
		w.q.log.Debug("dead job not stored yet", zap.String("kind", w.kind), zap.Error(err))
		w.told(d.msg.NakWithDelay(deadline))
		return
	}
	w.told(d.msg.Term())
}

// interPart buries some of a job's ids, also while this process stops.
func (w *worker) interPart(d delivery, ids [][16]byte, data []byte, reason string) error {
	h := fnv.New64a()
	_, _ = h.Write(data)
	return w.q.inter(context.Background(), grave{Job: Job{Kind: d.Kind, Shard: d.Shard, IDs: ids}, data: data, reason: reason, tries: d.try,
		rung: d.rung, once: fmt.Sprintf("%d.%d.%x", d.seq, d.stored.UnixNano(), h.Sum64())})
}

// headerLine makes text fit into a header: one line of at most 500 bytes.
func headerLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}
