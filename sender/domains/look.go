package domains

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/sender/compose"
)

const (
	lookersAtOnce = 4   // records of one domain looked up side by side
	maxShown      = 200 // bytes of a record that was found, in an error
)

// look looks all records up. Those that are the same records as before stay in their order.
func (d *Domains) look(ctx context.Context, records []Record) []Result {
	out := make([]Result, len(records))
	var all errgroup.Group
	all.SetLimit(lookersAtOnce)
	for i, r := range records {
		all.Go(func() error {
			out[i] = d.lookAt(ctx, r)
			return nil
		})
	}
	_ = all.Wait()
	return out
}

// lookAt looks one record up.
func (d *Domains) lookAt(ctx context.Context, r Record) Result {
	var state State
	var what string
	var err error
	switch r.Purpose {
	case Ownership:
		state, what, err = d.lookOwnership(ctx, r)
	case DKIM, DKIMNext, DKIMOld:
		state, what, err = d.lookDKIM(ctx, r)
	case SPF:
		state, what, err = d.lookSPF(ctx, r)
	case DMARC:
		state, what, err = d.lookDMARC(ctx, r)
	case ReturnPath, Tracking:
		state, what, err = d.lookAlias(ctx, r)
	}
	if err != nil {
		state, what = Unknown, err.Error()+": try again later"
	}
	return Result{Record: r, State: state, Error: what}
}

// lookOwnership wants the token at the name itself. Where an alias leads, others may publish: a forgotten alias to a
// service that anybody can rent is how domains are taken.
func (d *Domains) lookOwnership(ctx context.Context, r Record) (State, string, error) {
	a, err := d.dns.lookup(ctx, r.Name, dns.TypeTXT)
	switch {
	case err != nil:
		return "", "", err
	case a.aliased:
		return Wrong, r.Name + " is an alias: publish the TXT record at the name itself", nil
	case slices.Contains(a.values, r.Value):
		return Valid, "", nil
	case len(a.values) > 0:
		return Wrong, "found " + shown(a.values) + ": add a TXT record with the value " + r.Value, nil
	}
	return Missing, missing(r), nil
}

// lookDKIM holds a key record (RFC 6376 §3.6.1) against the one wanted. Two at one name are undefined (§3.6.2.2).
func (d *Domains) lookDKIM(ctx context.Context, r Record) (State, string, error) {
	a, err := d.dns.lookup(ctx, r.Name, dns.TypeTXT)
	if err != nil {
		return "", "", err
	}
	found := slices.DeleteFunc(a.values, func(v string) bool { return !strings.Contains(v, "p=") })
	switch len(found) {
	case 0:
		return Missing, missing(r), nil
	case 1:
	default:
		return Wrong, fmt.Sprintf("found %d key records: leave only the one wanted", len(found)), nil
	}
	if fault := keyFault(found[0], r.Value); fault != "" {
		return Wrong, fault, nil
	}
	return Valid, "", nil
}

// keyFault says why a key record does not do what the one wanted does; "" if it does.
func keyFault(found, want string) string {
	have, full := tags(found), tags(want)["p"]
	if p := have["p"]; p != "" && p != full && strings.HasPrefix(full, p) {
		return fmt.Sprintf("the value is cut off after %d characters: enter it in quoted parts of at most 255", len(found))
	}
	key, err := compose.ParseRecord(found)
	if err != nil {
		return err.Error() + "; found " + shown([]string{found})
	}
	switch ours, err := compose.ParseRecord(want); {
	case err != nil || !ours.(interface{ Equal(crypto.PublicKey) bool }).Equal(key):
		return "found another key, " + shown([]string{found})
	case slices.Contains(strings.Split(have["t"], ":"), "y"):
		return "the record's t=y has receivers take mail as if it were not signed: remove it"
	}
	return ""
}

// tags reads a tag list (RFC 6376 §3.2) without the white space in it.
func tags(s string) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		name, value, ok := strings.Cut(part, "=")
		if ok {
			out[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
		}
	}
	return out
}

// lookDMARC wants a policy at the domain, or at one above it (RFC 9989 §4.10, at most 8 look-ups).
func (d *Domains) lookDMARC(ctx context.Context, r Record) (State, string, error) {
	labels := strings.Split(strings.TrimPrefix(r.Name, "_dmarc."), ".")
	for n := 0; len(labels) >= 2 && n < 8; n++ {
		a, err := d.dns.lookup(ctx, "_dmarc."+strings.Join(labels, "."), dns.TypeTXT)
		if err != nil {
			return "", "", err
		}
		found := slices.DeleteFunc(a.values, func(v string) bool { return tags(v)["v"] != "DMARC1" || !strings.HasPrefix(strings.TrimSpace(v), "v") })
		switch len(found) {
		case 0:
		case 1:
			policy := strings.ToLower(tags(found[0])["p"])
			if !slices.Contains([]string{"none", "quarantine", "reject"}, policy) {
				return Wrong, "the policy p= must be none, quarantine or reject: found " + shown(found), nil
			}
			return Valid, "", nil
		default:
			return Wrong, fmt.Sprintf("found %d DMARC records, so that none counts: leave one", len(found)), nil
		}
		labels = labels[max(1, len(labels)-7):]
	}
	return Missing, missing(r), nil
}

// lookAlias wants an alias, or for the return path an MX record that leads to this installation.
func (d *Domains) lookAlias(ctx context.Context, r Record) (State, string, error) {
	a, err := d.dns.lookup(ctx, r.Name, dns.TypeCNAME)
	switch {
	case err != nil:
		return "", "", err
	case slices.Contains(a.values, host(r.Value)):
		return Valid, "", nil
	case len(a.values) > 0:
		return Wrong, "found an alias of " + shown(a.values) + " in place of " + r.Value, nil
	}
	if r.Purpose == ReturnPath {
		mx, err := d.dns.lookup(ctx, r.Name, dns.TypeMX)
		switch {
		case err != nil:
			return "", "", err
		case slices.Contains(mx.values, host(d.cfg.Hostname)):
			state, what, err := d.lookSPF(ctx, Record{Name: r.Name, Type: "TXT"}) // which an alias would have brought with it
			if err == nil && state != Valid {
				state, what = Wrong, "its MX is right, its SPF is not: "+what
			}
			return state, what, err
		case len(mx.values) > 0:
			return Wrong, "found MX " + shown(mx.values) + ": publish a CNAME to " + r.Value + ", or an MX to " + d.cfg.Hostname, nil
		}
	}
	return Missing, missing(r), nil
}

func missing(r Record) string { return "no " + r.Type + " record of this kind was found at " + r.Name }

// shown is what was found, for an error. The DNS library has escaped what cannot be printed.
func shown(values []string) string {
	s := strings.Join(values, ", ")
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return "\"" + s + "\""
}
