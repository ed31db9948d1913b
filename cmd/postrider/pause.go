package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/sender/dispatch"
	"github.com/postrider/postrider/shards"
)

// pausable are the kinds of work that look for pauses.
var pausable = []string{dispatch.JobDeliver}

// pauseOptions say what of a kind is paused: a shard, an account, or with neither everything.
type pauseOptions struct {
	shard, why string
	account    int64
	given      func(flag string) bool
}

// pause is what the command line names. An empty --shard or --account is refused: a script with an unset variable must
// not stop everything.
func (o *pauseOptions) pause(kind string) (shards.Pause, error) {
	p := shards.Pause{Kind: kind, Shard: o.shard, Account: o.account, Why: o.why}
	switch {
	case !slices.Contains(pausable, kind):
		return p, usageError{fmt.Errorf("KIND must be one of: %s, not %q", strings.Join(pausable, ", "), kind)}
	case o.given("shard") && o.given("account"):
		return p, usageError{errors.New("--shard or --account, not both: an account lives in one shard")}
	case o.given("shard") && o.shard == "":
		return p, usageError{errors.New("--shard is empty: name a shard (postrider shards list), or leave the flag out for all")}
	case o.given("account") && o.account < 1:
		return p, usageError{errors.New("--account must be a number from 1; leave the flag out for all accounts")}
	case len([]rune(o.why)) > shards.MaxPauseWhy:
		return p, usageError{fmt.Errorf("--why must have at most %d characters", shards.MaxPauseWhy)}
	}
	return p, nil
}

// of is what a pause holds back, for people.
func of(p shards.Pause) string {
	switch {
	case p.Account != 0:
		return fmt.Sprintf("for account %d", p.Account)
	case p.Shard != "":
		return "in " + p.Shard
	}
	return "everywhere"
}

// pauseAnswer is what jobs pause and jobs resume say to a program.
type pauseAnswer struct {
	shards.Pause
	Paused bool `json:"paused"`
}

func jobsPause() *cobra.Command {
	c := &cobra.Command{Use: "pause KIND [--shard SHARD | --account ID]", Short: "Let work of a kind rest, within seconds; what comes in is kept", Args: arguments(cobra.ExactArgs(1)),
		Long: "Let work of a kind rest, in a shard, for an account or everywhere, until jobs resume.\nWhat is under way is finished, and what comes in is accepted and kept. Kinds: " + strings.Join(pausable, ", ") + "."}
	o, what := bindOperator(c), bindPause(c, true)
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := what.pause(args[0])
		if err != nil {
			return err
		}
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			if err := s.SetPause(ctx, p); err != nil {
				return err
			}
			if o.json {
				return printJSON(c, pauseAnswer{p, true})
			}
			fmt.Fprintf(c.OutOrStdout(), "%s paused %s\n", p.Kind, of(p))
			return nil
		})
	}
	return c
}

func jobsResume() *cobra.Command {
	c := &cobra.Command{Use: "resume KIND [--shard SHARD | --account ID]", Short: "End a pause, named as it was set", Args: arguments(cobra.ExactArgs(1))}
	o, what := bindOperator(c), bindPause(c, false)
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := what.pause(args[0])
		if err != nil {
			return err
		}
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			if err := s.Resume(ctx, p); err != nil {
				return fmt.Errorf("%s is not paused %s (see postrider jobs pauses): %w", p.Kind, of(p), err)
			}
			if o.json {
				return printJSON(c, pauseAnswer{p, false})
			}
			fmt.Fprintf(c.OutOrStdout(), "%s resumed %s\n", p.Kind, of(p))
			return stillPaused(ctx, c, s, p.Kind)
		})
	}
	return c
}

// stillPaused tells of the other pauses of a kind, as they may cover what was just resumed.
func stillPaused(ctx context.Context, c *cobra.Command, s *shards.Shards, kind string) error {
	list, err := s.Pauses(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Kind == kind {
			fmt.Fprintf(c.OutOrStdout(), "%s is still paused %s\n", kind, of(p))
		}
	}
	return nil
}

func jobsPauses() *cobra.Command {
	c := &cobra.Command{Use: "pauses", Short: "List what is paused, the oldest first", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			list, err := s.Pauses(ctx)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			rows := make([][]string, len(list))
			for i, p := range list {
				shard, account := "all", "all"
				if p.Shard != "" {
					shard = p.Shard
				}
				if p.Account != 0 {
					account = strconv.FormatInt(p.Account, 10)
				}
				rows[i] = []string{p.Kind, shard, account, p.Since.UTC().Format(time.DateTime), p.Why}
			}
			return printTable(c, []string{"KIND", "SHARD", "ACCOUNT", "SINCE (UTC)", "WHY"}, rows)
		})
	}
	return c
}
