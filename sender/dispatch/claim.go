package dispatch

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

const claimAtOnce = 200 // messages

// yield is how a claim ended.
type yield int8

const (
	drained yield = iota // nothing is left that is due, as far as can be seen
	more                 // there may be more
	full                 // there may be more, and no room for it
	failed               // nobody knows: the server did not answer, or refused
)

// claim takes what is due in a shard, as far as there is room.
func (d *Dispatcher) claim(ctx context.Context, shard string) yield {
	m := d.cfg.Shards.Map()
	sh := m.Shard(shard)
	if sh == nil || !sh.Server.Beating(shards.Quiet) || m.Paused(JobDeliver, shard, 0) {
		return drained
	}
	claims := d.claiming(shard)
	claims.RLock()
	defer claims.RUnlock()
	take := d.take(m, shard)
	if take.Prompt <= 0 {
		return full
	}
	since := time.Now() // before the commit: a freeze right after it must not make the claim look younger than it is
	claimed, err := d.cfg.Store.Claim(ctx, shard, take)
	if err != nil { // cut off by our own end, too: it may have been committed all the same
		d.cfg.Log.Debug("due messages not claimed", zap.String("shard", shard), zap.Error(err))
		d.mu.Lock()
		d.doubt(shard, sender.ID{})
		d.asking = d.asking && take.Suspect == 0
		d.mu.Unlock()
		return failed
	}
	end := d.took(shard, take, claimed)
	for i := range claimed {
		it := &item{m: claimed[i].Message, body: claimed[i].Body, size: claimed[i].Size, shard: shard, since: since}
		if why := claimed[i].Rejected; why != "" {
			d.reject(it, why)
			continue
		}
		d.begin(it)
	}
	return end
}

// turn is how far the accounts' turns in a shard's bulk have come, and whether other mail keeps us busy there.
type turn struct {
	account int64 // the last one
	busy    bool
}

// take shares out the room of one claim. Bulk gets a quarter beside the rest, all while there is no rest.
func (d *Dispatcher) take(m *shards.Map, shard string) store.Take {
	n := min(d.room(), claimAtOnce)
	if n <= 0 {
		return store.Take{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	last, most := d.turns[shard], n
	if last.busy {
		most = n / 4
	}
	t := store.Take{Prompt: n, Bulk: max(min(most, d.mostBulk()-d.bulk), 0), After: last.account, Without: d.without(m, shard)}
	if t.Bulk == 0 {
		d.hungry[shard] = true
	}
	if d.suspect.IsZero() && !d.asking {
		t.Suspect, d.asking = 1, true
	} else {
		d.behind[shard] = true
	}
	return t
}

// without is whose mail stays in a shard's rows: of accounts that are paused, and of those that have enough in hand. The caller
// holds mu.
func (d *Dispatcher) without(m *shards.Map, shard string) []int64 {
	out := slices.Clone(m.PausedAccounts(JobDeliver, shard))
	for account := range d.sated {
		out = append(out, account)
	}
	return out
}

// took takes in hand what was claimed. Accounts had their turns in bulk up to the last one named; when there are no more
// after it, the first ones are next.
func (d *Dispatcher) took(shard string, t store.Take, claimed []store.Claimed) yield {
	d.mu.Lock()
	defer d.mu.Unlock()
	prompt, bulks, last := 0, 0, int64(0)
	for i := range claimed {
		c := &claimed[i]
		d.hold(&c.Message, c.Size)
		switch {
		case bulk(c.Class):
			bulks++
			last = max(last, c.Account)
		case c.Class == sender.Prompt:
			prompt++
		case c.Class == sender.Suspect:
			d.behind[shard] = true // there may be another
		}
	}
	d.asking = d.asking && t.Suspect == 0
	d.turns[shard] = turn{account: last, busy: prompt >= max(t.Prompt/4, 1)}
	if prompt == t.Prompt || bulks > 0 || t.Bulk > 0 && t.After > 0 {
		return more
	}
	return drained
}
