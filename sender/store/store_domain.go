package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
)

// Domain is a sending domain of an account. Times that have not come about are zero.
type Domain struct {
	Account     int64
	Name        string // lower case, A-labels, without a dot at the end
	Token       string
	ReturnPath  string // a label below Name
	Tracking    string
	Ed25519Only bool
	Vouched     bool
	Created     time.Time
	Mailed      time.Time // a mailbox of the domain was last sent a link
	Mailbox     time.Time // it was followed
	Verified    time.Time
	Proved      time.Time
	Failing     time.Time
	Checked     time.Time
	Next        time.Time // zero: checked only when asked
	Results     []byte
	Keys        []DomainKey // by stage, then selector
}

// Stage is where a key is in its life.
type Stage int16

// The stages: its record is being published; it signs; it has signed mail that may still be on its way.
const (
	StageNext Stage = iota
	StageCurrent
	StageOld
)

// DomainKey is a DKIM key of a domain. Its private part is sealed by package domains.
type DomainKey struct {
	Selector  string
	Algorithm string
	Stage     Stage
	Record    string
	Sealed    []byte
	Created   time.Time
	Published time.Time
	Retires   time.Time
}

// MaxDomains is how many sending domains an account can have.
const MaxDomains = 1000

const (
	domainColumns = `account_id, domain, token, return_path, tracking, ed25519_only, vouched, created_at, mailed_at, mailbox_at, verified_at,
  proved_at, failing_since, checked_at, next_check_at, results`

	domainCountSQL = `select count(*) from domains where account_id = $1`

	insertDomainSQL = `
insert into domains (account_id, domain, token, return_path, tracking, ed25519_only, next_check_at)
values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`

	domainSQL = `select ` + domainColumns + ` from domains where account_id = $1 and domain = $2`

	domainLockSQL = domainSQL + ` for update`

	domainsSQL = `select ` + domainColumns + ` from domains where account_id = $1 order by domain limit $2`

	domainOwnersSQL = `select account_id from domains where domain = $1 order by account_id limit 100`

	domainKeysSQL = `
select domain, selector, algorithm, stage, record, sealed, created_at, published_at, retires_at
from domain_keys where account_id = $1 and ($2 = '' or domain = $2) order by domain, stage, selector`

	updateDomainSQL = `
update domains set ed25519_only = $3, vouched = $4, mailed_at = $5, mailbox_at = $6, verified_at = $7, proved_at = $8,
  failing_since = $9, checked_at = $10, next_check_at = $11, results = $12
where account_id = $1 and domain = $2`

	saveDomainKeySQL = `
insert into domain_keys (account_id, domain, selector, algorithm, stage, record, sealed, published_at, retires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (account_id, domain, selector)
do update set stage = excluded.stage, sealed = excluded.sealed, published_at = excluded.published_at, retires_at = excluded.retires_at`

	dropDomainKeysSQL = `delete from domain_keys where account_id = $1 and domain = $2 and selector <> all($3::text[])`

	// Whoever takes a domain has it to itself for a while; if that process ends, another takes it then.
	dueDomainsSQL = `
update domains d set next_check_at = now() + make_interval(secs => $2)
from (select account_id, domain from domains where next_check_at <= now() order by next_check_at limit $1 for update skip locked) due
where d.account_id = due.account_id and d.domain = due.domain
returning d.account_id, d.domain`

	signingSQL = `
select d.verified_at is not null, d.return_path, d.tracking, d.results, k.selector, k.algorithm, k.sealed
from domains d left join domain_keys k on k.account_id = d.account_id and k.domain = d.domain and k.stage = 1 and k.published_at is not null
  and not (d.ed25519_only and k.algorithm = 'rsa')
where d.account_id = $1 and d.domain = $2 order by k.algorithm desc`
)

// AddDomain stores a domain with its keys, unless the account has it, and gives what is stored.
func (s *Store) AddDomain(ctx context.Context, d *Domain) (Domain, error) {
	var out Domain
	err := s.shards.Write(ctx, d.Account, func(ctx context.Context, tx pgx.Tx) error {
		var have int
		if err := tx.QueryRow(ctx, domainCountSQL, d.Account).Scan(&have); err != nil {
			return err
		}
		if have < MaxDomains {
			tag, err := tx.Exec(ctx, insertDomainSQL, d.Account, d.Name, d.Token, d.ReturnPath, d.Tracking, d.Ed25519Only, moment(d.Next))
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 1 {
				if err := saveKeys(ctx, tx, d); err != nil {
					return err
				}
			}
		}
		var err error
		out, err = readDomain(ctx, tx, domainSQL, d.Account, d.Name)
		if errors.Is(err, pgx.ErrNoRows) {
			return sender.Invalid("domain", "is one more than the %d sending domains that an account can have", MaxDomains)
		}
		return err
	})
	return out, err
}

// Domain is one domain of an account with its keys.
func (s *Store) Domain(ctx context.Context, account int64, name string) (Domain, error) {
	var d Domain
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) (err error) {
		d, err = readDomain(ctx, tx, domainSQL, account, name)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return d, err
}

// Domains lists an account's domains by name, with their keys.
func (s *Store) Domains(ctx context.Context, account int64) ([]Domain, error) {
	var out []Domain
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, domainsSQL, account, MaxDomains)
		if err != nil {
			return err
		}
		if out, err = pgx.CollectRows(rows, scanDomain); err != nil {
			return err
		}
		keys, err := readKeys(ctx, tx, account, "")
		for i := range out {
			out[i].Keys = keys[out[i].Name]
		}
		return err
	})
	return out, err
}

// DomainOwners lists the accounts of a shard that have a domain. It is for people.
func (s *Store) DomainOwners(ctx context.Context, shard, name string) ([]int64, error) {
	var out []int64
	err := s.shards.ReadShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, domainOwnersSQL, name)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return out, err
}

// ChangeDomain runs fn on a domain under its row lock and stores what fn makes of it and of its keys. fn may run again
// on the row as it is then. Name, token, labels and the records of keys stay as they are.
func (s *Store) ChangeDomain(ctx context.Context, account int64, name string, fn func(*Domain) error) (Domain, error) {
	var d Domain
	err := s.shards.Write(ctx, account, func(ctx context.Context, tx pgx.Tx) (err error) {
		if d, err = readDomain(ctx, tx, domainLockSQL, account, name); err != nil {
			return err
		}
		if err = fn(&d); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, updateDomainSQL, account, name, d.Ed25519Only, d.Vouched, moment(d.Mailed), moment(d.Mailbox), moment(d.Verified),
			moment(d.Proved), moment(d.Failing), moment(d.Checked), moment(d.Next), append([]byte{}, d.Results...))
		if err != nil {
			return err
		}
		return saveKeys(ctx, tx, &d)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return d, err
}

// DomainRef names a domain of an account.
type DomainRef struct {
	Account int64
	Name    string
}

// DueDomains takes up to limit domains of a shard whose check is due, and keeps them from others for so long.
func (s *Store) DueDomains(ctx context.Context, shard string, limit int, lease time.Duration) ([]DomainRef, error) {
	var out []DomainRef
	err := s.shards.WriteShard(ctx, shard, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, dueDomainsSQL, limit, lease.Seconds())
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DomainRef])
		return err
	})
	return out, err
}

// Signing is what sending from a domain needs.
type Signing struct {
	Verified   bool
	ReturnPath string // labels
	Tracking   string
	Results    []byte      // of the last check
	Keys       []DomainKey // those that sign and whose record was seen: selector, algorithm and sealed part; RSA first
}

// Signing reads what sending from a domain needs; the zero value when the account does not have it.
func (s *Store) Signing(ctx context.Context, account int64, name string) (Signing, error) {
	var out Signing
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		out = Signing{}
		rows, err := tx.Query(ctx, signingSQL, account, name)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var selector, algorithm *string
			var k DomainKey
			if err := rows.Scan(&out.Verified, &out.ReturnPath, &out.Tracking, &out.Results, &selector, &algorithm, &k.Sealed); err != nil {
				return err
			}
			if selector != nil {
				k.Selector, k.Algorithm = *selector, *algorithm
				out.Keys = append(out.Keys, k)
			}
		}
		return rows.Err()
	})
	return out, err
}

func readDomain(ctx context.Context, tx pgx.Tx, query string, account int64, name string) (Domain, error) {
	rows, err := tx.Query(ctx, query, account, name)
	if err != nil {
		return Domain{}, err
	}
	d, err := pgx.CollectExactlyOneRow(rows, scanDomain)
	if err != nil {
		return d, err
	}
	keys, err := readKeys(ctx, tx, account, name)
	d.Keys = keys[name]
	return d, err
}

func scanDomain(r pgx.CollectableRow) (Domain, error) {
	var d Domain
	var mailed, mailbox, verified, proved, failing, checked, next *time.Time
	err := r.Scan(&d.Account, &d.Name, &d.Token, &d.ReturnPath, &d.Tracking, &d.Ed25519Only, &d.Vouched, &d.Created,
		&mailed, &mailbox, &verified, &proved, &failing, &checked, &next, &d.Results)
	d.Created, d.Mailed, d.Mailbox = d.Created.UTC(), orZero(mailed), orZero(mailbox)
	d.Verified, d.Proved = orZero(verified), orZero(proved)
	d.Failing, d.Checked, d.Next = orZero(failing), orZero(checked), orZero(next)
	return d, err
}

// readKeys reads an account's keys by domain: of one domain, or of all if it is "".
func readKeys(ctx context.Context, tx pgx.Tx, account int64, name string) (map[string][]DomainKey, error) {
	rows, err := tx.Query(ctx, domainKeysSQL, account, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string][]DomainKey{}
	for rows.Next() {
		var k DomainKey
		var domain string
		var published, retires *time.Time
		if err := rows.Scan(&domain, &k.Selector, &k.Algorithm, &k.Stage, &k.Record, &k.Sealed, &k.Created, &published, &retires); err != nil {
			return nil, err
		}
		k.Published, k.Retires = orZero(published), orZero(retires)
		out[domain] = append(out[domain], k)
	}
	return out, rows.Err()
}

// saveKeys makes a domain's keys those that it has.
func saveKeys(ctx context.Context, tx pgx.Tx, d *Domain) error {
	selectors := make([]string, len(d.Keys))
	for i, k := range d.Keys {
		selectors[i] = k.Selector
		_, err := tx.Exec(ctx, saveDomainKeySQL, d.Account, d.Name, k.Selector, k.Algorithm, k.Stage, k.Record, append([]byte{}, k.Sealed...),
			moment(k.Published), moment(k.Retires))
		if err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, dropDomainKeysSQL, d.Account, d.Name, selectors)
	return err
}

// moment is a time for a column in which null means that it has not come about.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
