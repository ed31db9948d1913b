// Package domains keeps the sending domains of accounts: the DNS records that their owners publish, the look-ups that
// find them, the keys that sign their mail, and whether an account may send from a domain at all.
//
// A domain is verified while its owner's token (or a mailbox of it, once) and the record of at least one of its DKIM
// keys are found. What is gone is looked for again an hour later, and then the domain is verified no more; a DNS that
// does not answer takes nothing away for three days.
package domains

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/idna"
	"golang.org/x/sync/semaphore"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// Config is what sending domains need.
type Config struct {
	Shards           *shards.Shards
	Store            *store.Store
	Secret           [32]byte // of the installation: seals private keys, signs the links to mailboxes
	Resolvers        []string // host:port of recursive DNS servers; those of /etc/resolv.conf if none
	Hostname         string   // of this installation's mail exchanger
	ReturnPathDomain string   // where bounces go; its SPF record names what sends
	TrackingHost     string   // what tracking sub-domains are an alias of; empty: none are asked for
	Poll             time.Duration
	// Mail sends a text to a mailbox as the installation itself, and Link makes the link that it holds of a token. Nil:
	// ownership is proved by DNS alone.
	Mail    func(ctx context.Context, account int64, to, subject, text string) error
	Link    func(token string) string
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

const (
	checksAtOnce = 16               // look-ups that callers wait for
	checkTime    = 12 * time.Second // of one domain
	fresh        = 3 * time.Second  // a check that young is not repeated
)

// Domains is the sending domains of all accounts.
type Domains struct {
	cfg    Config
	dns    *resolver
	idna   *idna.Profile
	seal   sealer
	cache  *cache
	checks *semaphore.Weighted
	making *semaphore.Weighted // of RSA keys: each takes a core for a while
	now    func() time.Time
	limit  time.Duration // of one check
	done   *prometheus.CounterVec
}

// New makes it; Run keeps the checks going.
func New(cfg Config) *Domains {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Minute
	}
	d := &Domains{cfg: cfg, dns: newResolver(cfg.Resolvers), now: time.Now, limit: checkTime, seal: newSealer(cfg.Secret), checks: semaphore.NewWeighted(checksAtOnce), making: semaphore.NewWeighted(1),
		idna: idna.New(idna.MapForLookup(), idna.StrictDomainName(true), idna.VerifyDNSLength(true), idna.BidiRule())}
	d.cache = newCache(maxCached, d.load)
	d.done = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postrider_domain_checks_total",
		Help: "Checks of sending domains by what they found."}, []string{"found"})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(d.done)
	}
	return d
}

// ErrNotFound says that the account does not have the domain.
var ErrNotFound = store.ErrNotFound

// Domain is a sending domain as its account sees it.
type Domain struct {
	Account     int64
	Name        string // A-labels
	Token       string
	Created     time.Time
	Checked     time.Time // zero: not yet
	Verified    time.Time // zero: it is not
	Owned       bool      // the last check found the token, or a mailbox confirmed it
	Rotating    bool      // its next keys wait for their records
	Ed25519Only bool
	Records     []Result
}

// Name is a domain's name as it is stored and signed: lower case, A-labels, no dot at the end. At most 253 bytes.
func (d *Domains) Name(text string) (string, error) {
	text = strings.TrimSuffix(strings.TrimSpace(text), ".")
	if len(text) > 253 || sender.CheckEmail("x@"+text) != nil {
		return "", sender.Invalid("domain", "is not a domain name such as example.com")
	}
	name, err := d.idna.ToASCII(text)
	if err != nil || sender.CheckEmail("x@"+name) != nil {
		return "", sender.Invalid("domain", "is not a domain name such as example.com")
	}
	return name, nil
}

// Add gives an account a domain with keys, or what it already has. Nothing is looked up: a name that a resolver has
// just not found is not found for a while after it was published.
func (d *Domains) Add(ctx context.Context, account int64, domain string) (Domain, error) {
	name, err := d.Name(domain)
	if err != nil {
		return Domain{}, err
	}
	if s, err := d.cfg.Store.Domain(ctx, account, name); !errors.Is(err, store.ErrNotFound) {
		return d.show(&s), tell(err)
	}
	row, err := d.newRow(ctx, account, name)
	if err != nil {
		return Domain{}, err
	}
	s, err := d.cfg.Store.AddDomain(ctx, row)
	d.cache.drop(account, name)
	return d.show(&s), tell(err)
}

// newRow is a new row with its first keys.
func (d *Domains) newRow(ctx context.Context, account int64, name string) (*store.Domain, error) {
	row := &store.Domain{Account: account, Name: name, Token: randomText(32), ReturnPath: "bounces", Tracking: "links", Next: d.now().Add(retryEvery)}
	keys, err := d.newKeys(ctx, row, store.StageCurrent)
	row.Keys = keys
	return row, err
}

// Vouch gives an account a domain that is verified by the operator's word: no look-up is made for it, now or later.
func (d *Domains) Vouch(ctx context.Context, account int64, domain string) error {
	if _, err := d.Add(ctx, account, domain); err != nil {
		return err
	}
	_, err := d.change(ctx, account, domain, func(s *store.Domain) error {
		if s.Vouched {
			return nil
		}
		s.Vouched, s.Verified, s.Next = true, d.now(), time.Time{}
		if rotating(s) { // nobody will look for the next keys' records, so they are taken at once
			retire(s, d.now())
		}
		for i := range s.Keys {
			if k := &s.Keys[i]; k.Stage != store.StageOld {
				k.Stage, k.Published = store.StageCurrent, d.now()
			}
		}
		return nil
	})
	return err
}

// Show is one domain of an account, with what its last check found. ErrNotFound if the account does not have it.
func (d *Domains) Show(ctx context.Context, account int64, domain string) (Domain, error) {
	name, err := d.Name(domain)
	if err != nil {
		return Domain{}, err
	}
	s, err := d.cfg.Store.Domain(ctx, account, name)
	return d.show(&s), tell(err)
}

// List is all domains of an account, at most store.MaxDomains, by name.
func (d *Domains) List(ctx context.Context, account int64) ([]Domain, error) {
	list, err := d.cfg.Store.Domains(ctx, account)
	out := make([]Domain, len(list))
	for i := range list {
		out[i] = d.show(&list[i])
	}
	return out, tell(err)
}

// Owners lists the accounts that have a domain, verified or not. It asks every shard, and is for operators.
func (d *Domains) Owners(ctx context.Context, domain string) ([]int64, error) {
	name, err := d.Name(domain)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, sh := range d.cfg.Shards.Map().Shards() {
		accounts, err := d.cfg.Store.DomainOwners(ctx, sh.Name, name)
		if err != nil {
			return nil, tell(err)
		}
		out = append(out, accounts...)
	}
	return out, nil
}

// Sign chooses the keys that sign an account's mail from a domain: both, or the Ed25519 one alone, which must have been
// published, since not every receiver knows it.
func (d *Domains) Sign(ctx context.Context, account int64, domain string, ed25519Only bool) (Domain, error) {
	return d.change(ctx, account, domain, func(s *store.Domain) error {
		if ed25519Only && !published(s.Keys, ed25519Name) {
			return sender.Invalid("domain", "has no Ed25519 key whose record was seen: publish it and check the domain first")
		}
		if s.Ed25519Only != ed25519Only && !s.Vouched {
			s.Next = d.now() // other records matter now
		}
		s.Ed25519Only = ed25519Only
		return nil
	})
}

// Rotate makes the next keys of a domain. They sign once their records have been seen for an hour; the records of
// those before them may go a week later. While a rotation is under way it changes nothing.
func (d *Domains) Rotate(ctx context.Context, account int64, domain string) (Domain, error) {
	now, err := d.Show(ctx, account, domain)
	if err != nil || now.Rotating {
		return now, err
	}
	next, err := d.newKeys(ctx, &store.Domain{Account: account, Name: now.Name}, store.StageNext)
	if err != nil {
		return Domain{}, err
	}
	return d.change(ctx, account, now.Name, func(s *store.Domain) error {
		if rotating(s) {
			return nil
		}
		if s.Vouched { // nobody looks for records
			retire(s, d.now())
			for _, k := range next {
				k.Stage, k.Published = store.StageCurrent, d.now()
				s.Keys = append(s.Keys, k)
			}
			return nil
		}
		s.Keys = append(s.Keys, next...)
		s.Next = d.now().Add(retryEvery)
		return nil
	})
}

// change runs fn on a domain's row and forgets what is remembered of it.
func (d *Domains) change(ctx context.Context, account int64, domain string, fn func(*store.Domain) error) (Domain, error) {
	name, err := d.Name(domain)
	if err != nil {
		return Domain{}, err
	}
	s, err := d.cfg.Store.ChangeDomain(ctx, account, name, fn)
	d.cache.drop(account, name)
	return d.show(&s), tell(err)
}

func (d *Domains) show(s *store.Domain) Domain {
	out := Domain{Account: s.Account, Name: s.Name, Token: s.Token, Created: s.Created, Checked: s.Checked, Verified: s.Verified,
		Rotating: rotating(s), Ed25519Only: s.Ed25519Only, Records: d.remembered(s)}
	out.Owned = !s.Mailbox.IsZero() || s.Vouched
	for _, r := range out.Records {
		out.Owned = out.Owned || r.Purpose == Ownership && r.State == Valid
	}
	return out
}

// tell makes a server that is away something that a caller may wait for.
func tell(err error) error {
	if errors.Is(err, shards.ErrUnavailable) {
		return sender.Unavailable(err)
	}
	return err
}

// randomText is n random characters of the alphabet of base32, 5 bits each.
func randomText(n int) string {
	b := make([]byte, (n*5+7)/8)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}
