package domains

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const maxSPFTerms = 10 // that need a look-up, RFC 7208 §4.6.4

// lookSPF wants the domain's one SPF record to include this installation's, directly or by another include.
func (d *Domains) lookSPF(ctx context.Context, r Record) (State, string, error) {
	w := spfWalk{dns: d.dns, want: host(d.cfg.ReturnPathDomain)}
	top, problem, err := w.record(ctx, r.Name)
	switch {
	case err != nil:
		return "", "", err
	case problem != "":
		return Wrong, problem, nil
	case top == "":
		return Missing, missing(r), nil
	}
	if problem, err = w.walk(ctx, top); err != nil {
		return "", "", err
	}
	switch {
	case w.terms > maxSPFTerms:
		return Wrong, fmt.Sprintf("the SPF record needs more than %d look-ups, so that it fails: shorten it", maxSPFTerms), nil
	case problem != "":
		return Wrong, problem, nil
	case !w.found:
		return Wrong, "the SPF record does not include " + w.want + ": put include:" + w.want + " before its last term, in the same record; found " + shown([]string{top}), nil
	}
	return Valid, "", nil
}

// spfWalk goes through an SPF record and those that it includes.
type spfWalk struct {
	dns   *resolver
	want  string
	found bool
	terms int
}

// record is the SPF record of a name; "" for none. Two are an error for every receiver (RFC 7208 §4.5).
func (w *spfWalk) record(ctx context.Context, name string) (record, problem string, err error) {
	a, err := w.dns.lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return "", "", err
	}
	list := slices.DeleteFunc(a.values, func(v string) bool {
		v = strings.ToLower(v)
		return v != "v=spf1" && !strings.HasPrefix(v, "v=spf1 ")
	})
	switch len(list) {
	case 0:
		return "", "", nil
	case 1:
		return list[0], "", nil
	}
	return "", fmt.Sprintf("%s has %d SPF records, so that none counts: make one of them", name, len(list)), nil
}

// walk counts the terms of a record that need a look-up. Ours is not looked into; its look-ups are this installation's
// own matter and few.
func (w *spfWalk) walk(ctx context.Context, record string) (problem string, err error) {
	for _, term := range strings.Fields(strings.ToLower(record))[1:] {
		refuses := term[0] == '-' || term[0] == '~'
		term = strings.TrimLeft(term, "+?~-")
		name, target, _ := strings.Cut(strings.Replace(term, "=", ":", 1), ":")
		kind, _, _ := strings.Cut(name, "/")
		switch kind {
		case "a", "mx", "ptr", "exists", "include", "redirect":
			if w.terms++; w.terms > maxSPFTerms {
				return "", nil
			}
		}
		if target = strings.TrimSuffix(target, "."); kind != "include" && kind != "redirect" || strings.Contains(target, "%") {
			continue
		}
		if target == w.want {
			w.found = w.found || !refuses
			continue
		}
		next, problem, err := w.record(ctx, target)
		if err != nil || problem != "" {
			return problem, err
		}
		if next == "" {
			return "the SPF record includes " + target + ", which has none, so that it fails: take that out", nil
		}
		if problem, err = w.walk(ctx, next); err != nil || problem != "" {
			return problem, err
		}
	}
	return "", nil
}
