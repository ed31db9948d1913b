package deliver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postrider/postrider/sender"
)

type metrics struct {
	delivered, deferred, bounced prometheus.Counter
	fresh, reused, stale, failed prometheus.Counter
	seconds                      prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, p *pool) (*metrics, error) {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_deliver_attempts_total",
		Help: "Attempts by how they ended."}, []string{"verdict"})
	connections := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_deliver_connections_total",
		Help: "Connections: fresh (opened), reused (for another message), stale (the host had closed it), failed (not to be had)."}, []string{"kind"})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postrider_deliver_open_connections",
		Help: "Connections that are open or being opened."}, func() float64 { return float64(p.size()) })
	m := &metrics{
		delivered: attempts.WithLabelValues("delivered"),
		deferred:  attempts.WithLabelValues("deferred"),
		bounced:   attempts.WithLabelValues("bounced"),
		fresh:     connections.WithLabelValues("fresh"),
		reused:    connections.WithLabelValues("reused"),
		stale:     connections.WithLabelValues("stale"),
		failed:    connections.WithLabelValues("failed"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postrider_deliver_attempt_seconds",
			Help: "Time of an attempt, with the wait for a connection.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 11)}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{attempts, connections, open, m.seconds} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) attempt(out *sender.Outcome) {
	switch out.Verdict {
	case sender.OutcomeDelivered:
		m.delivered.Inc()
	case sender.OutcomeBounced:
		m.bounced.Inc()
	default:
		m.deferred.Inc()
	}
	m.seconds.Observe(out.Took.Seconds())
}
