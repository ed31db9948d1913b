package dispatch

import (
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/shards"
)

// Reserve takes messages in hand before they are stored, if there is room.
func (d *Dispatcher) Reserve(messages []sender.Message, bytes int) bool {
	n, account, class := len(messages), messages[0].Account, messages[0].Class
	sh := d.cfg.Shards.Of(account)
	if !sh.Server.Beating(shards.Quiet) || d.cfg.Shards.Map().Paused(JobDeliver, sh.Name, account) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closing, len(d.held)+n > d.cfg.Room, d.bytes+bytes > d.cfg.RoomBytes, d.inHand[account]+n > most(d.cfg.Room),
		bulk(class) && (d.bulk+n > d.mostBulk() || d.inHand[account]+n > d.enough()):
		return false
	}
	for i := range messages {
		d.hold(&messages[i], bytes/n)
	}
	return true
}

// holding is what a message in hand stands for.
type holding struct {
	account int64
	bytes   int
	bulk    bool
	since   time.Time // before the commit that claimed it
}

// hold takes a message in hand. The caller holds mu.
func (d *Dispatcher) hold(m *sender.Message, bytes int) {
	d.held[m.ID] = holding{m.Account, bytes, bulk(m.Class), time.Now()}
	d.inHand[m.Account]++
	if d.inHand[m.Account] >= d.enough() {
		d.sated[m.Account] = d.cfg.Shards.Of(m.Account).Name
	}
	d.bytes += bytes
	switch {
	case bulk(m.Class):
		d.bulk++
	case m.Class == sender.Suspect:
		d.suspect = m.ID
	default:
		d.prompt = time.Now()
	}
}

func (d *Dispatcher) since(id sender.ID) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held[id].since
}

// Drop lets go of reserved messages. unsure says that they may have been stored as ours all the same.
func (d *Dispatcher) Drop(account int64, ids []sender.ID, unsure bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.letGo(id)
	}
	if unsure {
		d.doubt(d.cfg.Shards.Of(account).Name, ids[0])
	}
}

func (d *Dispatcher) letGo(id sender.ID) {
	h, ok := d.held[id]
	if !ok {
		return
	}
	delete(d.held, id)
	d.bytes -= h.bytes
	if d.inHand[h.account]--; d.inHand[h.account] == 0 {
		delete(d.inHand, h.account)
	}
	if shard, sated := d.sated[h.account]; sated && d.inHand[h.account] < max(d.enough()*3/4, 1) {
		delete(d.sated, h.account)
		d.rung[shard] = true
	}
	if h.bulk {
		d.bulk--
	}
	if id == d.suspect {
		d.suspect = sender.ID{}
		for shard := range d.behind {
			d.rung[shard] = true
		}
		clear(d.behind)
	}
}

// Floor is an id below which nothing that was born claimed is in hand.
func (d *Dispatcher) Floor() [16]byte {
	floor := sender.IDAt(time.Now().Add(-10 * time.Second)) // ids are reserved well within that of being made
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.held {
		if id.Before(floor) {
			floor = id
		}
	}
	for _, at := range d.doubtful { // may be ours, and in nobody's memory
		if at.low.Before(floor) {
			floor = at.low
		}
	}
	return floor
}

// room is how many more messages may be claimed. The last quarter is kept for what comes in: a backlog must not keep new
// mail from being delivered at once.
func (d *Dispatcher) room() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing || d.bytes > d.cfg.RoomBytes {
		return 0
	}
	return most(d.cfg.Room) - len(d.held)
}

// enough is how much of one account's mail in hand ends the claims for it: slow domains of one must leave places to others.
func (d *Dispatcher) enough() int { return max(d.cfg.Room/4, 1) }
