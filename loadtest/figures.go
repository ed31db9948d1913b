package loadtest

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Figure is one measured number and what it is to be.
type Figure struct {
	Name  string   `json:"name"`
	Value *float64 `json:"value"` // nil when not known
	Unit  string   `json:"unit"`
	Goal  string   `json:"goal,omitempty"` // like "≥ 5000"
	OK    *bool    `json:"ok"`             // nil without a goal, or when the value is not known
	Must  bool     `json:"must"`           // one that is missed means that mail was lost, doubled or sent wrongly
}

func figure(name, unit string, value float64) Figure {
	return Figure{Name: name, Unit: unit, Value: ref(round(value))}
}

func maybe(name, unit string, value *float64) Figure {
	if value == nil {
		return Figure{Name: name, Unit: unit}
	}
	return figure(name, unit, *value)
}

func (f Figure) atLeast(goal float64) Figure {
	return f.judge("≥", goal, func(v float64) bool { return v >= goal })
}

func (f Figure) atMost(goal float64) Figure {
	return f.judge("≤", goal, func(v float64) bool { return v <= goal })
}

// none makes a figure one that must be 0.
func (f Figure) none() Figure {
	f = f.judge("=", 0, func(v float64) bool { return v == 0 })
	f.Must = true
	return f
}

// some makes a figure one that must not be 0: what measures nothing must not pass for good.
func (f Figure) some() Figure {
	f = f.atLeast(1)
	f.Must = true
	return f
}

func (f Figure) judge(sign string, goal float64, good func(float64) bool) Figure {
	f.Goal = sign + " " + plainNumber(goal)
	if f.Value != nil {
		f.OK = ref(good(*f.Value))
	}
	return f
}

func (f Figure) verdict() string {
	switch {
	case f.Goal == "":
		return ""
	case f.OK == nil:
		return "not known"
	case *f.OK:
		return "ok"
	}
	return "MISSED"
}

// FigureReport is a table of figures with their goals.
type FigureReport struct {
	Title   string   `json:"title"`
	Cores   int      `json:"cores"`
	Figures []Figure `json:"figures"`
	Phases  []Busy   `json:"phases"`
	Notes   []string `json:"notes"`
}

func newFigureReport(format string, args ...any) *FigureReport {
	return &FigureReport{Title: fmt.Sprintf(format, args...), Cores: cores(), Figures: []Figure{}, Phases: []Busy{}, Notes: []string{}}
}

func (r *FigureReport) add(figures ...Figure) { r.Figures = append(r.Figures, figures...) }

func (r *FigureReport) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// refused notes what a run was not answered well.
func (r *FigureReport) refused(what string, rep Report) {
	for _, f := range rep.Failures {
		r.note("%s: %d failed with %s, the first: %q", what, f.Count, f.Status, f.First)
	}
}

// Bad names the figures that show a wrong result, not a slow one; empty when there are none.
func (r *FigureReport) Bad() string {
	var bad []string
	for _, f := range r.Figures {
		if f.Must && (f.OK == nil || !*f.OK) {
			bad = append(bad, fmt.Sprintf("%s: %s", f.Name, orDash(f.Value)))
		}
	}
	return strings.Join(bad, "; ")
}

// Print writes the table for people.
func (r *FigureReport) Print(out io.Writer) {
	fmt.Fprintf(out, "%s\n\n", r.Title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\n", f.Name, orDash(f.Value), f.Unit, f.Goal, f.verdict())
	}
	w.Flush()
	fmt.Fprintf(out, "\nCPU in cores of %d\n", r.Cores)
	fmt.Fprintln(w, "phase\tseconds\tpostrider\tloadtest\tothers")
	for _, b := range r.Phases {
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%.2f\t%s\n", b.Phase, b.Seconds, decimal(b.System, 2), b.Load, decimal(b.Others, 2))
	}
	w.Flush()
	for _, note := range r.Notes {
		fmt.Fprintln(out, note)
	}
}

func orDash(v *float64) string {
	if v == nil {
		return "-"
	}
	return plainNumber(*v)
}

// plainNumber shows a number with as many digits as are worth reading.
func plainNumber(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 1000 || v <= -1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
