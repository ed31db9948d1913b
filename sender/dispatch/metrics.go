package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postrider/postrider/sender"
)

type metrics struct {
	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
	oldest   prometheus.Gauge
	held     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_outcomes_total",
			Help: "Attempts by outcome: delivered, deferred, bounced, soft-bounced (life over), expired or dead (our fault)."}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postrider_attempt_seconds",
			Help: "Time of one attempt.", Buckets: prometheus.ExponentialBuckets(0.001, 3, 12)}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{Name: "postrider_queue_oldest_seconds",
			Help: "How long the longest waiting message has been due, as of the last sweep."}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{Name: "postrider_in_hand",
			Help: "Messages in this process's hands, as of the last sweep."}),
	}
	if r != nil {
		r.MustRegister(m.attempts, m.seconds, m.oldest, m.held)
	}
	return m
}

func (m *metrics) attempt(s sender.State, out sender.Outcome) {
	name := "deferred"
	switch s {
	case sender.Delivered:
		name = "delivered"
	case sender.Bounced:
		name = "bounced"
	case sender.SoftBounced:
		name = "soft-bounced"
	case sender.Expired:
		name = "expired"
	case sender.Dead:
		name = "dead"
	}
	m.attempts.WithLabelValues(name).Inc()
	m.seconds.Observe(out.Took.Seconds())
}
