package jobs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Headers of a dead job.
const (
	headerReason = "Postrider-Reason"
	headerTries  = "Postrider-Tries"
	headerRung   = "Postrider-Rung" // when it entered the queue, RFC 3339
)

// bury moves a job to the dead stream. If that fails it is tried again later: no job vanishes unseen.
func (w *worker) bury(msg jetstream.Msg, meta *jetstream.MsgMetadata, reason string) {
	reason = headerLine(reason)
	log := w.q.log.With(zap.String("kind", w.kind), zap.String("shard", shardOf(msg.Subject())), zap.String("reason", reason),
		zap.Uint64("tries", meta.NumDelivered))
	grave := nats.NewMsg("dead." + strings.TrimPrefix(msg.Subject(), "jobs."))
	grave.Data = msg.Data()
	grave.Header.Set(headerReason, reason)
	grave.Header.Set(headerTries, strconv.FormatUint(meta.NumDelivered, 10))
	grave.Header.Set(headerRung, meta.Timestamp.UTC().Format(time.RFC3339Nano))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	once := fmt.Sprintf("%d.%d", meta.Sequence.Stream, meta.Timestamp.UnixNano())
	if _, err := w.q.js.PublishMsg(ctx, grave, jetstream.WithMsgID(once)); err != nil {
		log.Debug("dead job not stored yet", zap.Error(err))
		w.told(msg.NakWithDelay(deadline))
		return
	}
	w.told(msg.Term())
	w.q.metrics.buried.WithLabelValues(w.kind).Inc()
	log.Error("job given up, see postrider jobs dead list")
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
