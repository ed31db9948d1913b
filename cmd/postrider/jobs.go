package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

func jobsCommand() *cobra.Command {
	return group("jobs", "Jobs: the queue, what waits and what was given up", jobsStats(),
		group("dead", "Jobs that were given up", jobsDeadList(), jobsDeadReplay()))
}

// withQueue connects to the queue for one command of an operator.
func withQueue(c *cobra.Command, o *operatorOptions, fn func(context.Context, *jobs.Queue) error) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	at := cfg.Queue.URL
	if at == "" {
		if cfg.Queue.Listen == "" {
			return fmt.Errorf("the queue lives inside the serving process: set queue.listen and queue.token to reach it from here")
		}
		at = (&url.URL{Scheme: "nats", User: url.User(cfg.Queue.Token), Host: cfg.Queue.Listen}).String()
	}
	ctx, cancel := context.WithTimeout(c.Context(), 10*time.Second)
	defer cancel()
	q, err := jobs.Connect(ctx, jobs.Config{URL: at, Instance: "operator"})
	if err != nil {
		return err
	}
	defer q.Close()
	return fn(ctx, q)
}

// jobsAnswer is what jobs stats says. What waits in rows is counted from the shards, so it is right without the queue.
type jobsAnswer struct {
	Lanes     []laneAnswer `json:"lanes"`
	Pending   int          `json:"pending"`
	Dead      int          `json:"dead"`
	Scheduled int          `json:"scheduled"`
	Retrying  int          `json:"retrying"`
	Due       int          `json:"due"`
	Queue     string       `json:"queue"`             // up, or why not
	Missing   []string     `json:"missing,omitempty"` // shards that did not answer
}

type laneAnswer struct {
	Lane     string  `json:"lane"`
	Pending  int     `json:"pending"`
	InFlight int     `json:"in_flight"`
	Oldest   float64 `json:"oldest_seconds"`
}

func jobsStats() *cobra.Command {
	c := &cobra.Command{Use: "stats", Short: "What is in the queue, and what waits in the shards", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		a := jobsAnswer{Lanes: []laneAnswer{}, Queue: "up"}
		err := withQueue(c, o, func(ctx context.Context, q *jobs.Queue) error {
			st, err := q.Stats(ctx)
			if err == nil {
				a.Pending, a.Dead = st.Pending, st.Dead
				a.Lanes = []laneAnswer{{"deliver", st.Pending, st.InFlight, st.Oldest.Seconds()}}
			}
			return err
		})
		if err != nil {
			a.Queue = err.Error()
		}
		err = operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			for _, sh := range s.Map().Shards() {
				b, err := store.New(s).Backlog(ctx, sh.Name)
				if err != nil {
					a.Missing = append(a.Missing, sh.Name)
					continue
				}
				a.Scheduled, a.Retrying, a.Due = a.Scheduled+b.Scheduled, a.Retrying+b.Retrying, a.Due+b.Due
			}
			return nil
		})
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(c, a)
		}
		rows := [][]string{{"queue", a.Queue}, {"bells pending", strconv.Itoa(a.Pending)}, {"dead jobs", strconv.Itoa(a.Dead)},
			{"messages scheduled", strconv.Itoa(a.Scheduled)}, {"messages to be tried again", strconv.Itoa(a.Retrying)}, {"messages due now", strconv.Itoa(a.Due)}}
		if len(a.Missing) > 0 {
			rows = append(rows, []string{"shards that did not answer", fmt.Sprint(a.Missing)})
		}
		return printTable(c, []string{"WHAT", "HOW MANY"}, rows)
	}
	return c
}

func jobsDeadList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the jobs that were given up, the newest first", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return withQueue(c, o, func(ctx context.Context, q *jobs.Queue) error {
			list, err := q.DeadJobs(ctx)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			rows := make([][]string, len(list))
			for i, j := range list {
				rows[i] = []string{strconv.FormatUint(j.Number, 10), j.Kind, j.Shard, strconv.Itoa(j.Tries), j.Died.Format(time.DateTime), j.Reason}
			}
			return printTable(c, []string{"NUMBER", "KIND", "SHARD", "TRIES", "DEAD SINCE (UTC)", "REASON"}, rows)
		})
	}
	return c
}

func jobsDeadReplay() *cobra.Command {
	c := &cobra.Command{Use: "replay NUMBER", Short: "Give a dead job to the handlers once more", Args: arguments(cobra.ExactArgs(1))}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := number("NUMBER", args[0])
		if err != nil {
			return err
		}
		return withQueue(c, o, func(ctx context.Context, q *jobs.Queue) error {
			j, err := q.Replay(ctx, uint64(n))
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, j)
			}
			fmt.Fprintf(c.OutOrStdout(), "job %d (%s, %s) rung again\n", j.Number, j.Kind, j.Shard)
			return nil
		})
	}
	return c
}
