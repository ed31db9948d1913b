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

func keyCommand() *cobra.Command {
	return group("key", "API keys, which are SMTP passwords too", keyCreate(), keyList(), keyRevoke())
}

func keyCreate() *cobra.Command {
	c := &cobra.Command{Use: "create --account ID", Short: "Make a key, which is shown this once", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	account, scope := bindKey(c.Flags(), true)
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch shards.Scope(*scope) {
		case shards.ScopeFull, shards.ScopeSend, shards.ScopeRead, shards.ScopeTest:
		default:
			return usageError{errors.New("--scope must be full, send, read or test")}
		}
		if *account < 1 {
			return usageError{errors.New("--account ID is needed")}
		}
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			k, text, err := s.CreateKey(ctx, *account, shards.Scope(*scope))
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, struct {
					shards.Key
					Text string `json:"key"`
				}{k, text})
			}
			fmt.Fprintf(c.OutOrStdout(), "key %d for account %d (%s)\n%s\nThe key is shown only now: keep it safe.\n", k.ID, k.Account, k.Scope, text)
			return nil
		})
	}
	return c
}

func keyList() *cobra.Command {
	c := &cobra.Command{Use: "list [--account ID]", Short: "List keys, without their text", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	account, _ := bindKey(c.Flags(), false)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			list, err := s.Keys(ctx, *account)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			rows := make([][]string, len(list))
			for i, k := range list {
				revoked := ""
				if k.Revoked != nil {
					revoked = k.Revoked.UTC().Format(time.DateTime)
				}
				rows[i] = []string{strconv.FormatInt(k.ID, 10), strconv.FormatInt(k.Account, 10), string(k.Scope), k.Hint, k.Created.UTC().Format(time.DateTime), revoked}
			}
			return printTable(c, []string{"KEY", "ACCOUNT", "SCOPE", "BEGINS", "CREATED (UTC)", "REVOKED"}, rows)
		})
	}
	return c
}

func keyRevoke() *cobra.Command {
	c := &cobra.Command{Use: "revoke KEYID", Short: "End a key: it stops within seconds", Args: arguments(cobra.ExactArgs(1))}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := number("KEYID", args[0])
		if err != nil {
			return err
		}
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			if err := s.RevokeKey(ctx, id); err != nil {
				return err
			}
			if o.json {
				return printJSON(c, map[string]any{"id": id, "revoked": true})
			}
			fmt.Fprintf(c.OutOrStdout(), "key %d revoked\n", id)
			return nil
		})
	}
	return c
}
