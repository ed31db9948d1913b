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
)

func jobsDeadList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the jobs that were given up, the newest first", Args: arguments(cobra.NoArgs)}
	return listJobs(c, true, allJobs, (*jobs.Queue).DeadJobs, []string{"NUMBER", "KIND", "SHARD", "ITEMS", "TRIES", "DEAD SINCE (UTC)", "REASON"}, func(j jobs.DeadJob) []string {
		return []string{strconv.FormatUint(j.Number, 10), j.Kind, j.Shard, items(j.Items), strconv.Itoa(j.Tries), j.Died.Format(time.DateTime), j.Reason}
	})
}

func jobsDeadShow() *cobra.Command {
	c := &cobra.Command{Use: "show NUMBER", Short: "Show a job that was given up, with what it is about", Args: arguments(cobra.ExactArgs(1))}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := number("NUMBER", args[0])
		if err != nil {
			return err
		}
		return withQueue(c, o, oneLook, func(ctx context.Context, q *jobs.Queue) error {
			j, err := q.Dead(ctx, uint64(n))
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, j)
			}
			rows := [][]string{{"number", args[0]}, {"kind", j.Kind}, {"shard", j.Shard}, {"reason", j.Reason}, {"tries", strconv.Itoa(j.Tries)},
				{"rung (UTC)", j.Rung.Format(time.DateTime)}, {"dead since (UTC)", j.Died.Format(time.DateTime)}, {"items", items(j.Items)}}
			for _, id := range j.IDs {
				rows = append(rows, []string{"", id})
			}
			return printTable(c, []string{"WHAT", "IS"}, rows)
		})
	}
	return c
}

func jobsDeadReplay() *cobra.Command {
	c := &cobra.Command{Use: "replay NUMBER... | --all", Short: "Give dead jobs to the handlers once more", Args: arguments(cobra.ArbitraryArgs)}
	o, f := bindOperator(c), bindFilter(c, true, false)
	every := bindAll(c.Flags())
	c.RunE = func(c *cobra.Command, args []string) error {
		numbers, err := toReplay(args, *every, *f)
		if err != nil {
			return err
		}
		return withQueue(c, o, allJobs, func(ctx context.Context, q *jobs.Queue) error {
			if *every {
				return replayAll(ctx, c, o, q, *f)
			}
			return replay(ctx, c, o, q, numbers)
		})
	}
	return c
}

func toReplay(args []string, every bool, f jobs.Filter) ([]uint64, error) {
	switch {
	case every && len(args) > 0:
		return nil, usageError{errors.New("numbers or --all, not both")}
	case !every && len(args) == 0:
		return nil, usageError{errors.New("say which: numbers (see postrider jobs dead list), or --all")}
	case !every && f != (jobs.Filter{}):
		return nil, usageError{errors.New("--kind, --shard and --reason choose among all: use them with --all")}
	case every:
		return nil, checkFilter(&f)
	}
	numbers := make([]uint64, len(args))
	for i, a := range args {
		n, err := number("NUMBER", a)
		if err != nil {
			return nil, err
		}
		numbers[i] = uint64(n)
	}
	return numbers, nil
}

// replay replays each that it can; it fails if there is one that it cannot.
func replay(ctx context.Context, c *cobra.Command, o *operatorOptions, q *jobs.Queue, numbers []uint64) error {
	var done []jobs.DeadJob
	var errs []error
	for _, n := range numbers {
		j, err := q.Replay(ctx, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("%d: %w", n, err))
			continue
		}
		done = append(done, j)
	}
	err := errors.Join(errs...)
	switch {
	case o.json && len(numbers) == 1 && len(done) == 1:
		err = printJSON(c, done[0])
	case o.json && len(numbers) > 1:
		err = errors.Join(printJSON(c, done), err)
	case !o.json:
		for _, j := range done {
			fmt.Fprintf(c.OutOrStdout(), "job %d (%s) rung again\n", j.Number, strings.Join([]string{j.Kind, j.Shard}, ", "))
		}
	}
	return err
}

func replayAll(ctx context.Context, c *cobra.Command, o *operatorOptions, q *jobs.Queue, f jobs.Filter) error {
	n, err := q.ReplayAll(ctx, f)
	if o.json {
		return errors.Join(printJSON(c, map[string]int{"replayed": n}), err)
	}
	fmt.Fprintf(c.OutOrStdout(), "%d jobs rung again\n", n)
	return err
}
