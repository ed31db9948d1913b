package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// rebuildAnswer is what jobs rebuild did, and what waits in the rows it looked at.
type rebuildAnswer struct {
	Wiped     bool     `json:"wiped"`
	Rung      []string `json:"rung"` // shards
	Scheduled int      `json:"scheduled"`
	Retrying  int      `json:"retrying"`
	Due       int      `json:"due"`
	Missing   []string `json:"missing"` // shards that did not answer
}

func jobsRebuild() *cobra.Command {
	c := &cobra.Command{Use: "rebuild", Short: "Ring again for all that is due, from the rows of the shards", Args: arguments(cobra.NoArgs),
		Long: "Ring again for all that is due, from the rows of the shards. It is never needed: the sweepers do the same all the time.\nIt does it at once, and shows that the queue holds nothing that the rows do not."}
	o := bindOperator(c)
	shard, wipe := bindRebuild(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *wipe && *shard != "" {
			return usageError{errors.New("--wipe empties the queue for all shards: leave out --shard, so that all are rung for")}
		}
		a := rebuildAnswer{Wiped: *wipe, Rung: []string{}, Missing: []string{}}
		err := operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			list := s.Map().Shards()
			if *shard != "" {
				one := s.Map().Shard(*shard)
				if one == nil {
					return fmt.Errorf("there is no shard %q: see postrider shards list", *shard)
				}
				list = []*shards.Shard{one}
			}
			return withQueue(c, o, allJobs, func(_ context.Context, q *jobs.Queue) error { return a.rebuild(ctx, c, q, store.New(s), list) })
		})
		if err != nil {
			return err
		}
		return a.print(c, o)
	}
	return c
}

// rebuild rings for each shard in which something is due now. What is due later is no business of the queue: the
// processes keep timers for it.
func (a *rebuildAnswer) rebuild(ctx context.Context, c *cobra.Command, q *jobs.Queue, st *store.Store, list []*shards.Shard) error {
	progress := func(format string, v ...any) { fmt.Fprintf(c.ErrOrStderr(), format+"\n", v...) }
	if a.Wiped {
		if err := q.Wipe(ctx); err != nil {
			return err
		}
		progress("the queue is empty")
	}
	for i, sh := range list {
		after, err := st.Due(ctx, sh.Name, store.Wanted{Bulk: true, Suspect: true})
		var b store.Backlog
		if err == nil {
			b, err = st.Backlog(ctx, sh.Name)
		}
		if err != nil {
			a.Missing = append(a.Missing, sh.Name)
			progress("%d of %d: %s does not answer: %v", i+1, len(list), sh.Name, err)
			continue
		}
		a.Scheduled, a.Retrying, a.Due = a.Scheduled+b.Scheduled, a.Retrying+b.Retrying, a.Due+b.Due
		if after > 0 {
			continue
		}
		if err := q.Ring(ctx, jobs.Job{Kind: dispatch.JobDeliver, Shard: sh.Name}); err != nil {
			return err
		}
		a.Rung = append(a.Rung, sh.Name)
		progress("%d of %d: %s rung, the oldest is due since %s", i+1, len(list), sh.Name, (-after).Round(time.Second))
	}
	return nil
}

func (a *rebuildAnswer) print(c *cobra.Command, o *operatorOptions) error {
	var err error
	if o.json {
		err = printJSON(c, a)
	} else {
		err = printTable(c, []string{"WHAT", "HOW MANY"}, [][]string{{"shards rung", strconv.Itoa(len(a.Rung))}, {"messages scheduled", strconv.Itoa(a.Scheduled)},
			{"messages to be tried again", strconv.Itoa(a.Retrying)}, {"messages due now", strconv.Itoa(a.Due)}})
	}
	if len(a.Missing) > 0 {
		err = errors.Join(err, fmt.Errorf("%d shards did not answer, run it again when they do: %s", len(a.Missing), strings.Join(a.Missing, " ")))
	}
	return err
}
