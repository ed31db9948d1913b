package dispatch

import (
	"context"
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
)

// claim takes what is due in a shard, as far as there is room.
func (d *Dispatcher) claim(ctx context.Context, shard string) yield {
	m := d.cfg.Shards.Map()
	sh := m.Shard(shard)
	if sh == nil || !sh.Server.Beating(shards.Quiet) || m.Paused(JobDeliver, shard, 0) {
		return drained
	}
	d.claims.RLock()
	defer d.claims.RUnlock()
	take := d.take(shard)
	if take.Prompt <= 0 {
		return full
	}
	take.Without = m.PausedAccounts(JobDeliver, shard)
	since := time.Now() // before the commit: a freeze right after it must not make the claim look younger than it is
	claimed, err := d.cfg.Store.Claim(ctx, shard, take)
	if err != nil { // cut off by our own end, too: it may have been committed all the same
		d.cfg.Log.Debug("due messages not claimed", zap.String("shard", shard), zap.Error(err))
		d.mu.Lock()
		d.doubt(shard)
		d.mu.Unlock()
		return drained // the sweeper rings again
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
func (d *Dispatcher) take(shard string) store.Take {
	n := min(d.room(), claimAtOnce)
	d.mu.Lock()
	defer d.mu.Unlock()
	last, most := d.turns[shard], n
	if last.busy {
		most = n / 4
	}
	t := store.Take{Prompt: n, Bulk: max(min(most, d.mostBulk()-d.bulk), 0), After: last.account}
	if d.suspect.IsZero() {
		t.Suspect = 1
	} else {
		d.behind[shard] = true
	}
	return t
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
		}
	}
	d.turns[shard] = turn{account: last, busy: prompt >= max(t.Prompt/4, 1)}
	switch {
	case prompt == t.Prompt || bulks > 0 || t.Bulk > 0 && t.After > 0:
		return more
	case t.Bulk == 0:
		return full
	}
	return drained
}
