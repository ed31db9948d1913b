package jobs

import (
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the queue's numbers. Kinds are constants of the program, so they are fit to be labels.
type metrics struct {
	rings   *prometheus.CounterVec
	results *prometheus.CounterVec
	panics  *prometheus.CounterVec
	buried  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	stored  *prometheus.GaugeVec
	ready   prometheus.Gauge

	waiting, oldest, dead *prometheus.GaugeVec
	kinds                 map[string]bool // whose lanes were told; the watcher's
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		rings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_jobs_rung_total",
			Help: "Jobs put into the queue (taken), and calls of Ring that it refused for want of room (full) or that failed otherwise (failed)."}, []string{"result"}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_jobs_total",
			Help: "Jobs that handlers ended, by what they answered."}, []string{"kind", "result"}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_jobs_panics_total",
			Help: "Panics of job handlers."}, []string{"kind"}),
		buried: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_jobs_dead_total",
			Help: "Jobs given up."}, []string{"kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postrider_jobs_seconds",
			Help: "How long handlers took.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}, []string{"kind"}),
		stored: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postrider_jobs_stored",
			Help: "Entries of a stream, as last seen."}, []string{"stream"}),
		ready: prometheus.NewGauge(prometheus.GaugeOpts{Name: "postrider_jobs_ready",
			Help: "1 while the queue can be used."}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postrider_jobs_waiting",
			Help: "Jobs in the queue, those being done too, as last seen."}, []string{"kind"}),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postrider_jobs_oldest_seconds",
			Help: "Age of the oldest job that is not done, as last seen."}, []string{"kind"}),
		dead: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postrider_jobs_dead",
			Help: "Jobs given up and still kept, as last seen."}, []string{"kind"}),
		kinds: map[string]bool{},
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.rings, m.results, m.panics, m.buried, m.seconds, m.stored, m.ready, m.waiting, m.oldest, m.dead} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) rung(taken int, err error) {
	m.rings.WithLabelValues("taken").Add(float64(taken))
	switch {
	case errors.Is(err, ErrFull):
		m.rings.WithLabelValues("full").Inc()
	case err != nil:
		m.rings.WithLabelValues("failed").Inc()
	}
}

func (m *metrics) ended(kind string, res Result, took time.Duration) {
	m.results.WithLabelValues(kind, res.verdict.String()).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
}

func (v verdict) String() string {
	return [...]string{"retry", "done", "snooze", "dead", "per_item"}[v]
}

func (m *metrics) measure(info *jetstream.StreamInfo) {
	m.stored.WithLabelValues(info.Config.Name).Set(float64(info.State.Msgs))
}

// lanes tells of every lane, and of those that are no more.
func (m *metrics) lanes(list []Lane) {
	now := map[string]Lane{}
	for _, l := range list {
		now[l.Kind], m.kinds[l.Kind] = l, true
	}
	for kind := range m.kinds {
		l := now[kind]
		m.waiting.WithLabelValues(kind).Set(float64(l.Pending + l.InFlight))
		m.oldest.WithLabelValues(kind).Set(l.Oldest.Seconds())
		m.dead.WithLabelValues(kind).Set(float64(l.Dead))
	}
}

func (m *metrics) up(yes bool) {
	if yes {
		m.ready.Set(1)
	} else {
		m.ready.Set(0)
	}
}
