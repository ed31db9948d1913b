package domains

import (
	"container/list"
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/postrider/postrider/sender"
)

const (
	maxCached = 20_000           // domains; with two keys each takes about 5 KB
	cacheTime = time.Minute      // how long another process's change may go unseen
	staleTime = 10 * time.Minute // how long what is known is used while it cannot be read again
)

type owned struct {
	account int64
	domain  string
}

type cached struct {
	owned
	id   *Identity
	read time.Time
}

// cache keeps what was read of domains; the one that was not asked for the longest goes first.
type cache struct {
	max    int
	load   func(account int64, domain string) (*Identity, error)
	flight singleflight.Group // one read at a time of a domain

	mu      sync.Mutex
	entries map[owned]*list.Element // of *cached
	recent  *list.List              // the newest first
	drops   uint64                  // a read that began before a drop is not kept
}

func newCache(size int, load func(int64, string) (*Identity, error)) *cache {
	return &cache{max: size, load: load, entries: map[owned]*list.Element{}, recent: list.New()}
}

func (c *cache) get(ctx context.Context, now time.Time, account int64, domain string) (*Identity, error) {
	key := owned{account, domain}
	known, drops := c.find(key)
	if known != nil && now.Sub(known.read) < cacheTime {
		return known.id, nil
	}
	flight := strconv.FormatInt(account, 10) + " " + domain + " " + strconv.FormatUint(drops, 10)
	read := c.flight.DoChan(flight, func() (any, error) {
		id, err := c.load(account, domain)
		if err == nil {
			c.keep(&cached{key, id, now}, drops)
		}
		return id, err
	})
	select {
	case <-ctx.Done():
		return nil, sender.Unavailable(ctx.Err())
	case got := <-read:
		if got.Err != nil && known != nil && now.Sub(known.read) < staleTime {
			return known.id, nil
		}
		id, _ := got.Val.(*Identity)
		return id, got.Err
	}
}

// find is what is kept of a domain, or nil, and how often something was dropped until now.
func (c *cache) find(key owned) (*cached, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil, c.drops
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached), c.drops
}

func (c *cache) keep(v *cached, drops uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if drops != c.drops {
		return
	}
	if e := c.entries[v.owned]; e != nil {
		e.Value = v
		c.recent.MoveToFront(e)
		return
	}
	if c.recent.Len() >= c.max {
		last := c.recent.Back()
		delete(c.entries, c.recent.Remove(last).(*cached).owned)
	}
	c.entries[v.owned] = c.recent.PushFront(v)
}

// drop forgets a domain that was changed.
func (c *cache) drop(account int64, domain string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	if e := c.entries[owned{account, domain}]; e != nil {
		delete(c.entries, c.recent.Remove(e).(*cached).owned)
	}
}
