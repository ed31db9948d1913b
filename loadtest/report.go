package loadtest

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
	"time"
)

// Report adds a run up. Pointers are nil where a number is not known: without a sink, a pid, perf.
type Report struct {
	Run         string `json:"run"`
	Over        string `json:"over"` // "http" or "smtp"
	Connections int    `json:"connections"`
	Size        int    `json:"size"` // bytes of text

	Submissions int       `json:"submissions"` // taken
	Accepted    int       `json:"accepted"`    // messages taken
	Failed      int       `json:"failed"`      // messages refused, or not answered
	Failures    []Failure `json:"failures"`
	Delivered   *int      `json:"delivered"` // different messages that arrived
	Lost        *int      `json:"lost"`      // taken, but not arrived
	Duplicates  *int      `json:"duplicates"`
	Sessions    *int      `json:"sessions"`   // SMTP sessions at the sink
	Signatures  *[4]int   `json:"signatures"` // messages that arrived with 0, 1, 2 and more DKIM-Signature fields

	Seconds       float64  `json:"seconds"`         // from the first submission to the last answer
	AcceptedPerS  float64  `json:"accepted_per_s"`  // messages
	DeliveredPerS *float64 `json:"delivered_per_s"` // messages / (first submission → last arrival)
	AcceptP50     float64  `json:"accept_p50_ms"`   // hand-over → answer, of a submission
	AcceptP99     float64  `json:"accept_p99_ms"`
	AcceptMax     float64  `json:"accept_max_ms"`
	E2EP50        *float64 `json:"e2e_p50_ms"` // hand-over → arrival, of a message
	E2EP99        *float64 `json:"e2e_p99_ms"`

	CPU      *float64 `json:"cpu_us"`   // µs a message accepted, all processes of the system
	FSyncs   *float64 `json:"fsyncs"`   // a message accepted
	Syscalls *float64 `json:"syscalls"` // a message accepted
	LoadCPU  float64  `json:"load_cpu_us"`
	Notes    []string `json:"notes"`
}

func (r *run) report(u Usage) Report {
	rep := Report{
		Run: r.name, Over: "http", Connections: r.Connections, Size: r.Size,
		Submissions: r.results.accepted, Accepted: r.accepted.count(), Failed: int(r.failed.Load()), Failures: r.results.sortedFailures(),
		AcceptP50: millis(r.results.latency.quantile(.5)), AcceptP99: millis(r.results.latency.quantile(.99)), AcceptMax: millis(r.results.latency.largest),
		Notes: append([]string{}, u.Notes...),
	}
	if r.SMTP != "" {
		rep.Over = "smtp"
	}
	if rep.Accepted == 0 {
		return rep
	}
	took := r.results.last.Sub(r.start)
	rep.Seconds = round(took.Seconds())
	rep.AcceptedPerS = round(float64(rep.Accepted) / took.Seconds())
	r.reportArrivals(&rep)
	each := func(n float64) *float64 { return ref(round(n / float64(rep.Accepted))) }
	rep.LoadCPU = *each(float64(u.Own.Nanoseconds()) / 1e3)
	if u.CPU != nil {
		rep.CPU = each(float64(u.CPU.Nanoseconds()) / 1e3)
	}
	if u.FSyncs != nil {
		rep.FSyncs, rep.Syscalls = each(float64(*u.FSyncs)), each(float64(*u.Syscalls))
	}
	return rep
}

func (r *run) reportArrivals(rep *Report) {
	if r.arrivals == nil {
		return
	}
	rep.Lost = ref(r.arrivals.missing(&r.accepted))
	a := r.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	rep.Delivered, rep.Duplicates, rep.Sessions = ref(a.count()), ref(a.duplicates), ref(a.sessions)
	rep.Signatures = ref(a.signatures)
	if a.count() > 0 {
		rep.DeliveredPerS = ref(round(float64(a.count()) / a.last.Sub(r.start).Seconds()))
		rep.E2EP50, rep.E2EP99 = ref(millis(a.latency.quantile(.5))), ref(millis(a.latency.quantile(.99)))
	}
}

// Bad says why the run must not pass for a good one; empty when it may.
func (rep Report) Bad() string {
	switch {
	case rep.Lost != nil && *rep.Lost > 0:
		return fmt.Sprintf("%d messages were accepted and did not arrive", *rep.Lost)
	case rep.Accepted == 0:
		return "nothing was accepted"
	}
	return ""
}

// Print writes the report for people.
func (rep Report) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("run", "%s over %s, %d connections, %d bytes of text", rep.Run, rep.Over, rep.Connections, rep.Size)
	row("accepted", "%d messages in %d submissions, %.2f s, %.0f/s", rep.Accepted, rep.Submissions, rep.Seconds, rep.AcceptedPerS)
	row("delivered", "%s messages in %s sessions, %s/s", number(rep.Delivered), number(rep.Sessions), decimal(rep.DeliveredPerS, 0))
	row("lost", "%s", number(rep.Lost))
	row("duplicates", "%s", number(rep.Duplicates))
	row("accept", "p50 %.2f ms, p99 %.2f ms, max %.2f ms", rep.AcceptP50, rep.AcceptP99, rep.AcceptMax)
	row("end to end", "p50 %s ms, p99 %s ms", decimal(rep.E2EP50, 2), decimal(rep.E2EP99, 2))
	row("a message cost", "%s µs CPU, %s fsyncs, %s system calls (and %.0f µs CPU in loadtest)",
		decimal(rep.CPU, 0), decimal(rep.FSyncs, 3), decimal(rep.Syscalls, 1), rep.LoadCPU)
	row("failed", "%d messages", rep.Failed)
	for _, f := range rep.Failures {
		row("  "+f.Status, "%d, the first: %s", f.Count, strconv.Quote(f.First))
	}
	w.Flush()
	for _, note := range rep.Notes {
		fmt.Fprintln(out, note)
	}
}

func number(n *int) string {
	if n == nil {
		return "-"
	}
	return strconv.Itoa(*n)
}

func decimal(n *float64, places int) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatFloat(*n, 'f', places, 64)
}

func millis(d time.Duration) float64 { return round(float64(d.Microseconds()) / 1e3) }

// round keeps three digits behind the point: more are noise.
func round(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return math.Round(f*1e3) / 1e3
}

func ref[T any](v T) *T { return &v }
