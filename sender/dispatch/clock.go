package dispatch

import (
	"context"
	"sync"
	"time"
)

// clock rings a shard when a retry or a schedule falls due. Bells within a quarter of a second are one, and those beyond
// ten minutes are left to the sweeper, so it stays small. It counts from its making: a step of the wall clock moves nothing.
type clock struct {
	begun time.Time
	mu    sync.Mutex
	due   map[string]map[int64]bool // by shard: quarters of a second
}

const (
	quarter = 250 * time.Millisecond
	horizon = 10 * time.Minute
)

func newClock() *clock { return &clock{begun: time.Now(), due: map[string]map[int64]bool{}} }

// set winds the clock for a shard, to ring after a while: up to a quarter of a second late, never early.
func (c *clock) set(shard string, after time.Duration) {
	if after > horizon {
		return
	}
	slot := int64((time.Since(c.begun)+after)/quarter) + 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due[shard] == nil {
		c.due[shard] = map[int64]bool{}
	}
	c.due[shard][slot] = true
}

func (c *clock) run(ctx context.Context, ring func(shard string)) error {
	tick := time.NewTicker(quarter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, shard := range c.take() {
				ring(shard)
			}
		}
	}
}

// take is the shards whose time has come.
func (c *clock) take() []string {
	limit := int64(time.Since(c.begun) / quarter)
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for shard, slots := range c.due {
		hit := false
		for s := range slots {
			if s <= limit {
				delete(slots, s)
				hit = true
			}
		}
		if hit {
			out = append(out, shard)
		}
		if len(slots) == 0 {
			delete(c.due, shard)
		}
	}
	return out
}
