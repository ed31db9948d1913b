package dispatch

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/postrider/postrider/shards"
)

const (
	lookForDead = 2 * time.Second
	freedFor    = 30 * time.Second // then it is looked whether a commit under way has brought more
)

// legacy is what an instance left on a server.
type legacy struct {
	server   string
	instance [16]byte
}

// inherit frees the claims of instances that are gone, soon after that shows.
func (d *Dispatcher) inherit(ctx context.Context) error {
	tick := time.NewTicker(lookForDead)
	defer tick.Stop()
	freed := map[legacy]time.Time{}
	for {
		d.freeDead(ctx, freed)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// freeDead gives back the claims of instances that are gone, server by server. freed notes when that was last done.
func (d *Dispatcher) freeDead(ctx context.Context, freed map[legacy]time.Time) {
	for _, v := range d.cfg.Shards.Map().Servers() {
		if !v.Up() {
			continue
		}
		dead, err := d.cfg.Shards.Dead(ctx, v)
		if err != nil {
			continue
		}
		for _, instance := range dead {
			key := legacy{v.Name, instance.ID}
			if time.Since(freed[key]) < freedFor && !instance.Gone || !d.freeAll(ctx, v, instance) {
				continue
			}
			freed[key] = time.Now()
			if instance.Gone && d.cfg.Shards.Forget(ctx, v, instance.ID) == nil {
				delete(freed, key)
			}
		}
	}
}

// freeAll gives back all claims of an instance on a server; it says whether every shard answered.
func (d *Dispatcher) freeAll(ctx context.Context, v *shards.Server, dead shards.Instance) bool {
	all, total := true, int64(0)
	for _, sh := range d.cfg.Shards.Map().Shards() {
		if sh.Server != v {
			continue
		}
		n, err := d.cfg.Store.Free(ctx, sh.Name, dead)
		if err != nil {
			all = false
			continue
		}
		if n > 0 {
			d.Ring(sh.Name)
		}
		total += n
	}
	if total > 0 {
		d.cfg.Log.Info("claims of an ended instance freed", zap.String("server", v.Name), zap.Int64("messages", total))
	}
	return all
}
