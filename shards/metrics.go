package shards

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	breaker *prometheus.GaugeVec
	batch   *prometheus.HistogramVec
	commit  *prometheus.HistogramVec
	solo    *prometheus.CounterVec
}

// newMetrics registers this package's metrics; labels are servers and statement names, never accounts.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postrider_server_down",
			Help: "1 while a physical server does not answer."}, []string{"server"}),
		batch: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postrider_group_items",
			Help: "Items in one group commit.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}}, []string{"statement"}),
		commit: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postrider_group_commit_seconds",
			Help: "Time of one group commit, begin to commit.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13)}, []string{"statement", "server"}),
		solo: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_group_solo_total",
			Help: "Parts of a group that were committed alone because the group failed."}, []string{"statement"}),
	}
	if r != nil {
		r.MustRegister(m.breaker, m.batch, m.commit, m.solo)
	}
	return m
}
