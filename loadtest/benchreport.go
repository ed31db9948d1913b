package loadtest

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// BenchReport is a row for each system and case, and what they have to do with each other.
type BenchReport struct {
	Rounds int          `json:"rounds"`
	Size   int          `json:"size"` // bytes of text
	Rows   []BenchRow   `json:"rows"`
	Ratios []BenchRatio `json:"ratios"`
	Notes  []string     `json:"notes"`
}

// BenchRow holds medians over the rounds, and sums of what must be 0. Units as in Report.
type BenchRow struct {
	System        string   `json:"system"`
	Over          string   `json:"over"`
	Connections   int      `json:"connections"`
	Messages      int      `json:"messages"`
	AcceptedPerS  *float64 `json:"accepted_per_s"`
	DeliveredPerS *float64 `json:"delivered_per_s"`
	AcceptP50     *float64 `json:"accept_p50_ms"`
	AcceptP99     *float64 `json:"accept_p99_ms"`
	E2EP50        *float64 `json:"e2e_p50_ms"`
	E2EP99        *float64 `json:"e2e_p99_ms"`
	CPU           *float64 `json:"cpu_us"`
	FSyncs        *float64 `json:"fsyncs"`
	Syscalls      *float64 `json:"syscalls"`
	Failed        int      `json:"failed"`
	Lost          int      `json:"lost"`
	Duplicates    int      `json:"duplicates"`
}

// BenchRatio compares the first system with the second at one concurrency.
type BenchRatio struct {
	Connections int      `json:"connections"`
	Delivered   *float64 `json:"delivered"` // messages a second: above 1 is faster
	CPU         *float64 `json:"cpu"`       // CPU a message: below 1 is cheaper
}

func newBenchReport(b Bench, systems []benched, runs map[BenchCase]map[string][]Report, notes []string) BenchReport {
	rep := BenchReport{Rounds: b.Rounds, Size: b.Size, Ratios: []BenchRatio{}, Notes: append([]string{}, notes...)}
	for _, c := range b.Cases {
		first := len(rep.Rows)
		for _, s := range systems {
			reports := runs[c][s.name]
			rep.Rows = append(rep.Rows, newBenchRow(s.name, c, reports))
			for _, r := range reports {
				for _, note := range r.Notes {
					if !slices.Contains(rep.Notes, note) {
						rep.Notes = append(rep.Notes, note)
					}
				}
			}
		}
		if rows := rep.Rows[first:]; len(rows) == 2 {
			rep.Ratios = append(rep.Ratios, BenchRatio{
				Connections: c.Connections,
				Delivered:   ratio(rows[0].DeliveredPerS, rows[1].DeliveredPerS),
				CPU:         ratio(rows[0].CPU, rows[1].CPU),
			})
		}
	}
	return rep
}

func newBenchRow(system string, c BenchCase, reports []Report) BenchRow {
	row := BenchRow{
		System: system, Over: reports[0].Over, Connections: c.Connections, Messages: c.Messages,
		AcceptedPerS:  median(reports, func(r Report) *float64 { return &r.AcceptedPerS }),
		DeliveredPerS: median(reports, func(r Report) *float64 { return r.DeliveredPerS }),
		AcceptP50:     median(reports, func(r Report) *float64 { return &r.AcceptP50 }),
		AcceptP99:     median(reports, func(r Report) *float64 { return &r.AcceptP99 }),
		E2EP50:        median(reports, func(r Report) *float64 { return r.E2EP50 }),
		E2EP99:        median(reports, func(r Report) *float64 { return r.E2EP99 }),
		CPU:           median(reports, func(r Report) *float64 { return r.CPU }),
		FSyncs:        median(reports, func(r Report) *float64 { return r.FSyncs }),
		Syscalls:      median(reports, func(r Report) *float64 { return r.Syscalls }),
	}
	for _, r := range reports {
		row.Failed += r.Failed
		if r.Lost != nil {
			row.Lost += *r.Lost
			row.Duplicates += *r.Duplicates
		}
	}
	return row
}

// median leaves out what is not known; the mean of the middle two of an even number.
func median(reports []Report, field func(Report) *float64) *float64 {
	var values []float64
	for _, r := range reports {
		if v := field(r); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	return ref(round((values[(len(values)-1)/2] + values[len(values)/2]) / 2))
}

func ratio(a, b *float64) *float64 {
	if a == nil || b == nil || *b == 0 {
		return nil
	}
	return ref(round(*a / *b))
}

// Bad says why the benchmark must not pass for a good one; empty when it may.
func (rep BenchReport) Bad() string {
	for _, r := range rep.Rows {
		switch {
		case r.Lost > 0:
			return fmt.Sprintf("%s lost %d messages at %d connections", r.System, r.Lost, r.Connections)
		case r.DeliveredPerS == nil:
			return fmt.Sprintf("%s delivered nothing at %d connections", r.System, r.Connections)
		}
	}
	return ""
}

// Print writes the table for people.
func (rep BenchReport) Print(out io.Writer) {
	fmt.Fprintf(out, "%d bytes of text; median of %d; times in ms; CPU in µs a message, all processes; calls a message\n\n", rep.Size, rep.Rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "system\tconns\tmessages\tdelivered/s\taccepted/s\taccept p50\tp99\tend to end p50\tp99\tCPU\tfsyncs\tsyscalls\tfailed\tlost\tduplicates\t")
	for _, r := range rep.Rows {
		fmt.Fprintf(w, "%s %s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t\n", r.System, r.Over, r.Connections, r.Messages,
			decimal(r.DeliveredPerS, 0), decimal(r.AcceptedPerS, 0), decimal(r.AcceptP50, 2), decimal(r.AcceptP99, 2),
			decimal(r.E2EP50, 2), decimal(r.E2EP99, 2), decimal(r.CPU, 0), decimal(r.FSyncs, 3), decimal(r.Syscalls, 1), r.Failed, r.Lost, r.Duplicates)
	}
	w.Flush()
	for _, r := range rep.Ratios {
		fmt.Fprintf(out, "\n%d connections: %s times Postfix's messages a second, %s times its CPU a message", r.Connections, decimal(r.Delivered, 2), decimal(r.CPU, 2))
	}
	fmt.Fprintln(out)
	for _, note := range rep.Notes {
		fmt.Fprintln(out, note)
	}
}
