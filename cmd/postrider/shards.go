package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/shards"
)

func shardsCommand() *cobra.Command {
	return group("shards", "Shards: where accounts live", shardsList())
}

func shardsList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List shards with their server, accounts and size", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
			list, err := s.List(ctx)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			rows := make([][]string, len(list))
			for i, x := range list {
				size := "server away"
				if x.Bytes != nil {
					size = bytesText(*x.Bytes)
				}
				rows[i] = []string{x.Shard, x.Server, x.State, strconv.Itoa(x.Accounts), size}
			}
			return printTable(c, []string{"SHARD", "SERVER", "STATE", "ACCOUNTS", "SIZE"}, rows)
		})
	}
	return c
}
