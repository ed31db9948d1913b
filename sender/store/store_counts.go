package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
)

// Window counts an account's messages by the state they are in now.
type Window struct {
	Sent, Bounced, SoftBounced, Rejected, Spam, Unsubscribed, Opens, Clicks int
}

// Counts are an account's windows: today, and the last 7, 30, 60 and 90 days; and what is not sent yet.
type Counts struct {
	Windows [5]Window
	Backlog int
}

const countsSQL = `
select (id >= $3)::int + (id >= $4)::int + (id >= $5)::int + (id >= $6)::int, state, count(*), sum(opens), sum(clicks)
from search where account_id = $1 and id >= $2 group by 1, 2`

// Counts counts an account's search rows. It reads them all, so it is for people, not for programs in a loop.
func (s *Store) Counts(ctx context.Context, account int64, now time.Time) (Counts, error) {
	var out Counts
	day := now.UTC().Truncate(24 * time.Hour)
	args := []any{account}
	for _, days := range []int{89, 59, 29, 6, 0} {
		args = append(args, [16]byte(sender.IDAt(day.AddDate(0, 0, -days))))
	}
	err := s.shards.Read(ctx, account, func(ctx context.Context, tx pgx.Tx) error {
		out = Counts{}
		rows, err := tx.Query(ctx, countsSQL, args...)
		if err != nil {
			return err
		}
		var newest, n, opens, clicks int
		var state sender.State
		_, err = pgx.ForEachRow(rows, []any{&newest, &state, &n, &opens, &clicks}, func() error {
			for w := 4 - newest; w < len(out.Windows); w++ { // a row of today counts in every window
				out.Windows[w].add(state, n, opens, clicks)
			}
			if !state.Final() {
				out.Backlog += n
			}
			return nil
		})
		return err
	})
	return out, err
}

func (w *Window) add(state sender.State, n, opens, clicks int) {
	if !state.Final() {
		return
	}
	w.Opens += opens
	w.Clicks += clicks
	switch state {
	case sender.Rejected:
		w.Rejected += n
		return
	case sender.Bounced:
		w.Bounced += n
	case sender.SoftBounced, sender.Expired:
		w.SoftBounced += n
	case sender.Spam:
		w.Spam += n
	case sender.Unsubscribed:
		w.Unsubscribed += n
	}
	w.Sent += n
}
