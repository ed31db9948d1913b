package shards

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Pause says that work of a kind is stopped: in a shard, for an account, or everywhere when it names neither. What
// the kinds mean is known to those who do the work.
type Pause struct {
	Kind    string    `json:"kind"`
	Shard   string    `json:"shard,omitempty"`
	Account int64     `json:"account,omitempty"`
	Since   time.Time `json:"since,omitzero"` // when it was set first
	Why     string    `json:"why"`
}

// The limits of pauses: every process holds all of them in memory.
const (
	MaxPauses   = 1000
	MaxPauseWhy = 200 // characters
)

// ErrNoPause says that there is nothing to resume.
var ErrNoPause = errors.New("no such pause")

var kindForm = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

const (
	lockPausesSQL = `lock table pauses in share row exclusive mode` // two at once must not pass the limit
	setPauseSQL   = `
insert into pauses (kind, shard, account, why)
select $1, nullif($2, ''), nullif($3::bigint, 0), $4
where (select count(*) from pauses) < $5
  or exists (select 1 from pauses where kind = $1 and coalesce(shard, '') = $2 and coalesce(account, 0) = $3)
on conflict (kind, coalesce(shard, ''), coalesce(account, 0)) do update set why = excluded.why`
	resumeSQL     = `delete from pauses where kind = $1 and coalesce(shard, '') = $2 and coalesce(account, 0) = $3`
	listPausesSQL = `select kind, coalesce(shard, ''), coalesce(account, 0), since, why from pauses order by since, kind, 2, 3`
)

// check refuses what no pause can be.
func (p Pause) check() error {
	switch {
	case !kindForm.MatchString(p.Kind):
		return fmt.Errorf("the kind of work to pause must have 1 to 64 of a-z, 0-9, _ and -, not %.70q", p.Kind)
	case p.Shard != "" && p.Account != 0:
		return errors.New("pause a shard or an account, not both: an account lives in one shard")
	case p.Account < 0:
		return fmt.Errorf("%w: %d", ErrNoAccount, p.Account)
	case utf8.RuneCountInString(p.Why) > MaxPauseWhy:
		return fmt.Errorf("why something is paused must have at most %d characters", MaxPauseWhy)
	}
	return nil
}

// SetPause stops the work that p names, in every process within about a second; what is under way is finished. Set
// again it only changes why. The shard or account must exist.
func (s *Shards) SetPause(ctx context.Context, p Pause) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Shard != "" {
		if _, err := s.named(p.Shard)(); err != nil {
			return err
		}
	}
	if p.Account != 0 {
		if _, err := s.Accounts(ctx, p.Account); err != nil {
			return fmt.Errorf("account %d: %w", p.Account, err)
		}
	}
	return pgx.BeginFunc(ctx, s.directory, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockPausesSQL); err != nil {
			return fmt.Errorf("store the pause: %w", err)
		}
		tag, err := tx.Exec(ctx, setPauseSQL, p.Kind, p.Shard, p.Account, p.Why, MaxPauses)
		if err != nil {
			return fmt.Errorf("store the pause: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("there are %d pauses already: resume some, or pause whole shards", MaxPauses)
		}
		return nil
	})
}

// Resume ends exactly the pause that p names by kind, shard and account; a wider one goes on. ErrNoPause when there is
// none.
func (s *Shards) Resume(ctx context.Context, p Pause) error {
	tag, err := s.directory.Exec(ctx, resumeSQL, p.Kind, p.Shard, p.Account)
	if err != nil {
		return fmt.Errorf("end the pause: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoPause
	}
	return nil
}

// Pauses lists what is paused, the oldest first, as the directory has it now.
func (s *Shards) Pauses(ctx context.Context) ([]Pause, error) {
	rows, err := s.directory.Query(ctx, listPausesSQL)
	if err != nil {
		return nil, fmt.Errorf("list pauses: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Pause])
}

// paused is what one version of the map knows of a kind's pauses.
type paused struct {
	everywhere bool
	shards     map[string]bool
	accounts   map[int64]bool
	living     map[string][]int64 // the same accounts by the shard they live in, rising
}

// pause puts pauses into a map that is still being made; its buckets must be complete.
func (m *Map) pause(list []Pause) {
	m.pauses = map[string]*paused{}
	for _, p := range list {
		k := m.pauses[p.Kind]
		if k == nil {
			k = &paused{shards: map[string]bool{}, accounts: map[int64]bool{}, living: map[string][]int64{}}
			m.pauses[p.Kind] = k
		}
		switch {
		case p.Account != 0:
			k.accounts[p.Account] = true
			home := m.Of(p.Account).Name
			k.living[home] = append(k.living[home], p.Account)
		case p.Shard != "":
			k.shards[p.Shard] = true
		default:
			k.everywhere = true
		}
	}
	for _, k := range m.pauses {
		for _, accounts := range k.living {
			slices.Sort(accounts)
		}
	}
}

// Paused says whether work of a kind rests for an account in its shard. Account 0 asks for the shard as a whole.
// Without pauses it costs a comparison.
func (m *Map) Paused(kind, shard string, account int64) bool {
	return len(m.pauses) > 0 && m.pauses[kind].covers(shard, account)
}

func (k *paused) covers(shard string, account int64) bool {
	return k != nil && (k.everywhere || k.shards[shard] || k.accounts[account])
}

// PausedAccounts lists, rising, the accounts living in a shard for which alone work of a kind rests; nil for none. It
// belongs to the map: do not change it.
func (m *Map) PausedAccounts(kind, shard string) []int64 {
	if k := m.pauses[kind]; k != nil {
		return k.living[shard]
	}
	return nil
}
