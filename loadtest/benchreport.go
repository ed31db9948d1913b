package loadtest

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// BenchReport is a row for each system and case, and what they have to do with each other.
type BenchReport struct {
	Rounds   int          `json:"rounds"`
	Size     int          `json:"size"`     // bytes of text
	Accounts int          `json:"accounts"` // that each postrider sends from
	Cores    int          `json:"cores"`
	Rows     []BenchRow   `json:"rows"`
	Ratios   []BenchRatio `json:"ratios"`
	Notes    []string     `json:"notes"`
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
	Signatures    int      `json:"signatures"`       // DKIM-Signature fields that each mail is to carry
	WrongSigned   int      `json:"wrong_signatures"` // mails that carry another number of them
	Others        *float64 `json:"others"`           // cores used meanwhile by neither the system nor loadtest
	Absent        string   `json:"absent,omitempty"` // why nothing was measured
}

// BenchRatio compares two systems at one concurrency.
type BenchRatio struct {
	Connections int      `json:"connections"`
	System      string   `json:"system"`
	Beside      string   `json:"beside"`
	Delivered   *float64 `json:"delivered"`      // messages a second: above 1 is faster
	CPU         *float64 `json:"cpu"`            // CPU a message: below 1 is cheaper
	Goal        float64  `json:"goal,omitempty"` // of Delivered, at least
}

func newBenchReport(b Bench, systems []benched, runs map[BenchCase]map[string][]benchRun, notes []string) BenchReport {
	rep := BenchReport{Rounds: b.Rounds, Size: b.Size, Accounts: b.accounts(), Cores: cores(), Ratios: []BenchRatio{}, Notes: append([]string{}, notes...)}
	for _, c := range b.Cases {
		first := len(rep.Rows)
		for _, s := range systems {
			rep.Rows = append(rep.Rows, newBenchRow(s, c, runs[c][s.name]))
			for _, r := range runs[c][s.name] {
				for _, note := range r.Notes {
					if !slices.Contains(rep.Notes, note) {
						rep.Notes = append(rep.Notes, note)
					}
				}
			}
		}
		rep.Ratios = append(rep.Ratios, compare(c, rep.Rows[first:])...)
	}
	return rep
}

// compare puts the rows of one case beside each other, as far as they are there.
func compare(c BenchCase, rows []BenchRow) []BenchRatio {
	var ratios []BenchRatio
	for _, x := range comparisons {
		row := func(name string) int {
			return slices.IndexFunc(rows, func(r BenchRow) bool { return r.System == name && r.Absent == "" })
		}
		one, other := row(x.system), row(x.beside)
		if one < 0 || other < 0 {
			continue
		}
		r := BenchRatio{Connections: c.Connections, System: x.system, Beside: x.beside,
			Delivered: ratio(rows[one].DeliveredPerS, rows[other].DeliveredPerS), CPU: ratio(rows[one].CPU, rows[other].CPU)}
		if c.Connections >= goalConnections {
			r.Goal = x.goal
		}
		ratios = append(ratios, r)
	}
	return ratios
}

func newBenchRow(s benched, c BenchCase, runs []benchRun) BenchRow {
	row := BenchRow{
		System: s.name, Connections: c.Connections, Messages: c.Messages, Signatures: s.signatures, Absent: s.absent,
		AcceptedPerS:  median(runs, func(r benchRun) *float64 { return &r.AcceptedPerS }),
		DeliveredPerS: median(runs, func(r benchRun) *float64 { return r.DeliveredPerS }),
		AcceptP50:     median(runs, func(r benchRun) *float64 { return &r.AcceptP50 }),
		AcceptP99:     median(runs, func(r benchRun) *float64 { return &r.AcceptP99 }),
		E2EP50:        median(runs, func(r benchRun) *float64 { return r.E2EP50 }),
		E2EP99:        median(runs, func(r benchRun) *float64 { return r.E2EP99 }),
		CPU:           median(runs, func(r benchRun) *float64 { return r.CPU }),
		FSyncs:        median(runs, func(r benchRun) *float64 { return r.FSyncs }),
		Syscalls:      median(runs, func(r benchRun) *float64 { return r.Syscalls }),
		Others:        median(runs, func(r benchRun) *float64 { return r.busy.Others }),
	}
	for _, r := range runs {
		row.Over = r.Over
		row.Failed += r.Failed
		if r.Lost != nil {
			row.Lost += *r.Lost
			row.Duplicates += *r.Duplicates
			row.WrongSigned += *r.Delivered - r.Signatures[s.signatures]
		}
	}
	return row
}

// median leaves out what is not known; the mean of the middle two of an even number.
func median[R any](runs []R, field func(R) *float64) *float64 {
	var values []float64
	for _, r := range runs {
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
		case r.Absent != "":
		case r.Lost > 0:
			return fmt.Sprintf("%s lost %d messages at %d connections", r.System, r.Lost, r.Connections)
		case r.WrongSigned > 0:
			return fmt.Sprintf("%s delivered %d messages at %d connections that do not carry %d DKIM-Signature fields", r.System, r.WrongSigned, r.Connections, r.Signatures)
		case r.DeliveredPerS == nil:
			return fmt.Sprintf("%s delivered nothing at %d connections", r.System, r.Connections)
		}
	}
	return ""
}

// Print writes the table for people.
func (rep BenchReport) Print(out io.Writer) {
	fmt.Fprintf(out, "%d bytes of text; postrider from %d accounts; median of %d; times in ms; CPU in µs a message, all processes; calls a message;\n"+
		"others: cores of %d that were used by neither the system nor the load\n\n", rep.Size, rep.Accounts, rep.Rounds, rep.Cores)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "system\tconns\tmessages\tdelivered/s\taccepted/s\taccept p50\tp99\tend to end p50\tp99\tCPU\tfsyncs\tsyscalls\tothers\tfailed\tlost\tduplicates\t")
	for _, r := range rep.Rows {
		if r.Absent != "" {
			fmt.Fprintf(w, "%s\t%d\t%s\t\n", r.System, r.Connections, r.Absent)
			continue
		}
		fmt.Fprintf(w, "%s %s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t\n", r.System, r.Over, r.Connections, r.Messages,
			decimal(r.DeliveredPerS, 0), decimal(r.AcceptedPerS, 0), decimal(r.AcceptP50, 2), decimal(r.AcceptP99, 2),
			decimal(r.E2EP50, 2), decimal(r.E2EP99, 2), decimal(r.CPU, 0), decimal(r.FSyncs, 3), decimal(r.Syscalls, 1), decimal(r.Others, 2), r.Failed, r.Lost, r.Duplicates)
	}
	w.Flush()
	fmt.Fprintln(out)
	for _, r := range rep.Ratios {
		fmt.Fprintln(out, r)
	}
	for _, note := range rep.Notes {
		fmt.Fprintln(out, note)
	}
}

// String is the ratio in words.
func (r BenchRatio) String() string {
	s := fmt.Sprintf("%d connections: %s: %s times the messages a second of %s, %s times the CPU a message",
		r.Connections, r.System, decimal(r.Delivered, 2), r.Beside, decimal(r.CPU, 2))
	if r.Goal == 0 || r.Delivered == nil {
		return s
	}
	return fmt.Sprintf("%s (goal for messages ≥ %g: %s)", s, r.Goal, Figure{Value: r.Delivered}.atLeast(r.Goal).verdict())
}
