package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/shards"
)

// operate opens the shards for one command of an operator.
func operate(c *cobra.Command, o *operatorOptions, fn func(context.Context, *shards.Shards) error) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	s, err := shards.Open(ctx, shards.Config{Directory: cfg.Directory, PoolConns: 2})
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(ctx, s)
}

func accountCommand() *cobra.Command {
	return group("account", "Accounts: the customers whose keys send", accountCreate(), accountList(), accountShow())
}

func accountCreate() *cobra.Command {
	c := &cobra.Command{Use: "create --name NAME", Short: "Make an account and its first full key, which is shown this once", Args: arguments(cobra.NoArgs)}
	o, name := bindOperator(c), bindAccountName(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *name == "" || len(*name) > 200 {
			return usageError{errors.New("--name must have 1 to 200 bytes")}
		}
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			a, key, err := s.CreateAccount(ctx, *name)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, struct {
					shards.Account
					Key string `json:"key"`
				}{a, key})
			}
			fmt.Fprintf(c.OutOrStdout(), "account %d (%s) made in %s on %s\nkey %s\nThe key is shown only now: keep it safe.\n", a.ID, a.Name, a.Shard, a.Server, key)
			return nil
		})
	}
	return c
}

func accountList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List accounts and where they live", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			list, err := s.Accounts(ctx, 0)
			if err != nil {
				return err
			}
			return printAccounts(c, o, list, list)
		})
	}
	return c
}

func accountShow() *cobra.Command {
	c := &cobra.Command{Use: "show ID", Short: "Show one account", Args: arguments(cobra.ExactArgs(1))}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := number("ID", args[0])
		if err != nil {
			return err
		}
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			list, err := s.Accounts(ctx, id)
			if err != nil {
				return err
			}
			return printAccounts(c, o, list[0], list)
		})
	}
	return c
}

func printAccounts(c *cobra.Command, o *operatorOptions, value any, list []shards.Account) error {
	if o.json {
		return printJSON(c, value)
	}
	rows := make([][]string, len(list))
	for i, a := range list {
		rows[i] = []string{strconv.FormatInt(a.ID, 10), a.Name, a.Shard, a.Server, a.Created.UTC().Format(time.DateTime)}
	}
	return printTable(c, []string{"ACCOUNT", "NAME", "SHARD", "SERVER", "CREATED (UTC)"}, rows)
}

func number(what, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, usageError{fmt.Errorf("%s must be a number from 1, not %q", what, text)}
	}
	return n, nil
}
