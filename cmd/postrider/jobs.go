package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

func jobsCommand() *cobra.Command {
	return group("jobs", "Jobs: the queue, what waits and what was given up", jobsStats(), jobsPeek(), jobsRebuild(), jobsPause(), jobsResume(), jobsPauses(),
		group("dead", "Jobs that were given up", jobsDeadList(), jobsDeadShow(), jobsDeadReplay()))
}

// withQueue connects to the queue for one command of an operator.
func withQueue(c *cobra.Command, o *operatorOptions, within time.Duration, fn func(context.Context, *jobs.Queue) error) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	at := cfg.Queue.URL
	if at == "" {
		if cfg.Queue.Listen == "" {
			return errors.New("the queue lives inside the serving process: set queue.listen and queue.token to reach it from here")
		}
		at = (&url.URL{Scheme: "nats", User: url.User(cfg.Queue.Token), Host: cfg.Queue.Listen}).String()
	}
	ctx, cancel := context.WithTimeout(c.Context(), within)
	defer cancel()
	q, err := jobs.Connect(ctx, jobs.Config{URL: at, Login: cfg.Queue.login(), Instance: "operator"})
	if err != nil {
		return err
	}
	defer q.Close()
	if err := untilReady(ctx, q); err != nil {
		return fmt.Errorf("the queue cannot be used now: %w", err)
	}
	return fn(ctx, q)
}

// untilReady gives the queue 3 s, in which servers agree on a leader, or it turns out why they do not let us in.
func untilReady(ctx context.Context, q *jobs.Queue) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = q.Ready(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

const (
	oneLook = 10 * time.Second // at the queue
	allJobs = 10 * time.Minute // for a command that may go through all of them
)

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
	Dead     int     `json:"dead"`
	Oldest   float64 `json:"oldest_seconds"`
}

func jobsStats() *cobra.Command {
	c := &cobra.Command{Use: "stats", Short: "What is in the queue, and what waits in the shards", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		a := jobsAnswer{Lanes: []laneAnswer{}, Queue: "up"}
		err := withQueue(c, o, oneLook, func(ctx context.Context, q *jobs.Queue) error {
			st, err := q.Stats(ctx)
			a.Pending, a.Dead = st.Pending, st.Dead
			for _, l := range st.Lanes {
				a.Lanes = append(a.Lanes, laneAnswer{l.Kind, l.Pending, l.InFlight, l.Dead, l.Oldest.Seconds()})
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
		show := a.print
		if o.json {
			show = func(c *cobra.Command) error { return printJSON(c, a) }
		}
		return errors.Join(show(c), a.incomplete())
	}
	return c
}

// incomplete says what the answer lacks: a script must not take the silence of the queue for an empty one.
func (a jobsAnswer) incomplete() error {
	switch {
	case a.Queue != "up":
		return errors.New("the queue did not answer, so what it holds is not counted: " + a.Queue)
	case len(a.Missing) > 0:
		return fmt.Errorf("%d shards did not answer, so what waits there is not counted: %s", len(a.Missing), strings.Join(a.Missing, " "))
	}
	return nil
}

func (a jobsAnswer) print(c *cobra.Command) error {
	rows := [][]string{{"queue", a.Queue}, {"jobs pending", strconv.Itoa(a.Pending)}, {"dead jobs", strconv.Itoa(a.Dead)},
		{"messages scheduled", strconv.Itoa(a.Scheduled)}, {"messages to be tried again", strconv.Itoa(a.Retrying)}, {"messages due now", strconv.Itoa(a.Due)}}
	if len(a.Missing) > 0 {
		rows = append(rows, []string{"shards that did not answer", strings.Join(a.Missing, " ")})
	}
	if err := printTable(c, []string{"WHAT", "HOW MANY"}, rows); err != nil || len(a.Lanes) == 0 {
		return err
	}
	rows = nil
	for _, l := range a.Lanes {
		age := time.Duration(l.Oldest * float64(time.Second)).Round(time.Second)
		rows = append(rows, []string{l.Lane, strconv.Itoa(l.Pending), strconv.Itoa(l.InFlight), strconv.Itoa(l.Dead), age.String()})
	}
	fmt.Fprintln(c.OutOrStdout())
	return printTable(c, []string{"KIND", "PENDING", "IN FLIGHT", "DEAD", "OLDEST"}, rows)
}

func jobsPeek() *cobra.Command {
	c := &cobra.Command{Use: "peek", Short: "List the jobs in the queue, the oldest first, without taking them", Args: arguments(cobra.NoArgs)}
	return listJobs(c, false, oneLook, (*jobs.Queue).Peek, []string{"NUMBER", "KIND", "SHARD", "ITEMS", "TRIES BEFORE", "RUNG (UTC)"}, func(j jobs.Waiting) []string {
		return []string{strconv.FormatUint(j.Number, 10), j.Kind, j.Shard, items(j.Items), strconv.Itoa(j.Tries), j.Rung.Format(time.DateTime)}
	})
}

// listJobs makes a command that lists what a filter lets through.
func listJobs[T any](c *cobra.Command, byReason bool, within time.Duration, list func(*jobs.Queue, context.Context, jobs.Filter) ([]T, error),
	head []string, row func(T) []string) *cobra.Command {
	o, f := bindOperator(c), bindFilter(c, byReason, true)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := checkFilter(f); err != nil {
			return err
		}
		return withQueue(c, o, within, func(ctx context.Context, q *jobs.Queue) error {
			found, err := list(q, ctx, *f)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, found)
			}
			rows := make([][]string, len(found))
			for i, x := range found {
				rows[i] = row(x)
			}
			return printTable(c, head, rows)
		})
	}
	return c
}

// items is how many ids a job carries, for people.
func items(n int) string {
	if n == 0 {
		return "what is due"
	}
	return strconv.Itoa(n)
}

// checkFilter makes what cannot be chosen by wrong use.
func checkFilter(f *jobs.Filter) error {
	if err := f.Check(); err != nil {
		return usageError{err}
	}
	return nil
}
