package domains

import (
	"encoding/json"
	"strings"

	"github.com/postrider/postrider/sender/store"
)

// Record is a DNS record to publish, ready to paste. A value longer than 255 bytes is one value: its parts, where a
// form wants parts, are joined without a space.
type Record struct {
	Name    string  `json:"name"` // in full, without a dot at the end
	Type    string  `json:"type"`
	Value   string  `json:"value"`
	Purpose Purpose `json:"purpose"`
}

// Ed25519 says that a DKIM record is that of an Ed25519 key.
func (r Record) Ed25519() bool { return strings.Contains(r.Value, "k="+ed25519Name+";") }

// Purpose is what a record is for.
type Purpose string

// The purposes.
const (
	Ownership  Purpose = "ownership"
	DKIM       Purpose = "dkim"
	DKIMNext   Purpose = "dkim-next" // signs once it has been seen for an hour
	DKIMOld    Purpose = "dkim-old"  // signs no more; its record stays for mail that is under way
	SPF        Purpose = "spf"
	DMARC      Purpose = "dmarc"
	ReturnPath Purpose = "return-path"
	Tracking   Purpose = "tracking"
)

// State is what a look-up found.
type State string

// The states. Unknown says that the DNS could not be asked: it is no news about the record.
const (
	Unchecked State = "unchecked"
	Valid     State = "valid"
	Missing   State = "missing"
	Wrong     State = "wrong"
	Unknown   State = "unknown"
)

// Result is a record and what its last look-up found.
type Result struct {
	Record
	State State  `json:"state"`
	Error string `json:"error,omitempty"` // what to do about it; empty when valid
}

const (
	ownershipLabel = "_postrider."
	ownershipText  = "postrider-verify="
)

// records lists what a domain's owner is to publish.
func (d *Domains) records(s *store.Domain) []Record {
	out := []Record{{ownershipLabel + s.Name, "TXT", ownershipText + s.Token, Ownership}}
	purposes := map[store.Stage]Purpose{store.StageCurrent: DKIM, store.StageNext: DKIMNext, store.StageOld: DKIMOld}
	for _, stage := range []store.Stage{store.StageCurrent, store.StageNext, store.StageOld} {
		for _, algorithm := range []string{rsaName, ed25519Name} {
			for _, k := range s.Keys {
				if k.Stage == stage && k.Algorithm == algorithm && (stage == store.StageOld || signs(s, k)) {
					out = append(out, Record{dkimName(k.Selector, s.Name), "TXT", k.Record, purposes[stage]})
				}
			}
		}
	}
	out = append(out, Record{s.Name, "TXT", "v=spf1 include:" + d.cfg.ReturnPathDomain + " ~all", SPF},
		Record{"_dmarc." + s.Name, "TXT", "v=DMARC1; p=none", DMARC},
		Record{s.ReturnPath + "." + s.Name, "CNAME", d.cfg.ReturnPathDomain, ReturnPath})
	if d.cfg.TrackingHost != "" {
		out = append(out, Record{s.Tracking + "." + s.Name, "CNAME", d.cfg.TrackingHost, Tracking})
	}
	return out
}

// signs says that a key is among those that the domain's mail is signed with, once its record is there.
func signs(s *store.Domain, k store.DomainKey) bool { return !s.Ed25519Only || k.Algorithm != rsaName }

func dkimName(selector, domain string) string { return selector + "._domainkey." + domain }

// remembered is a domain's records with what the last check found of each.
func (d *Domains) remembered(s *store.Domain) []Result {
	last := map[string]Result{}
	for _, r := range decodeResults(s.Results) {
		last[r.Name+r.Type+r.Value] = r
	}
	records := d.records(s)
	out := make([]Result, len(records))
	for i, r := range records {
		known := last[r.Name+r.Type+r.Value]
		out[i] = Result{Record: r, State: known.State, Error: known.Error}
		if known.State == "" {
			out[i].State = Unchecked
		}
	}
	return out
}

// decodeResults reads what a check stored. What cannot be read is no results: the next check writes them again.
func decodeResults(b []byte) []Result {
	var out []Result
	if json.Unmarshal(b, &out) != nil {
		return nil
	}
	return out
}

func encodeResults(list []Result) []byte {
	b, _ := json.Marshal(list) // strings only
	return b
}
