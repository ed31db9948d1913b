package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/postrider/postrider/shards"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{Use: "serve --config FILE", Short: "Run one or more roles on a real server", Args: arguments(cobra.NoArgs)}
	o := bindServe(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		for _, r := range o.roles {
			if r != roleAPI && r != roleSender {
				return usageError{fmt.Errorf("--roles: %q is not a role of this version (api, sender)", r)}
			}
		}
		cfg, err := (&operatorOptions{config: o.config}).load()
		if err != nil {
			return err
		}
		log, err := newLogger(cfg.Log)
		if err != nil {
			return err
		}
		defer func() { _ = log.Sync() }()
		ctx := c.Context()
		if err := shards.Setup(ctx, cfg.Directory, specs(cfg), cfg.Shards); err != nil {
			return fmt.Errorf("set up the directory: %w", err)
		}
		a, err := newApp(ctx, cfg, log)
		if err != nil {
			return err
		}
		defer a.close()
		if err := a.shards.Migrate(ctx, func(done, total int) { log.Info("shards migrated", zap.Int("done", done), zap.Int("total", total)) }); err != nil {
			return err
		}
		a.shards.Beat(ctx)
		return runStages(ctx, a.only(o.roles), func() error {
			log.Info("serving", zap.String("http", a.apiAddr.Addr().String()), zap.Strings("roles", o.roles))
			return nil
		})
	}
	return c
}

func specs(cfg config) []shards.ServerSpec {
	out := make([]shards.ServerSpec, len(cfg.Servers))
	for i, s := range cfg.Servers {
		out[i] = shards.ServerSpec{Name: s.Name, DSN: s.DSN}
	}
	return out
}

// only leaves out the stages of roles that this process does not have. The sender's dispatcher always runs: an api
// process delivers what it has accepted while it has room, and leaves the rest to the others.
func (a *app) only(roles []string) []stage {
	all := a.stages()
	for _, r := range roles {
		if r == roleAPI {
			return all
		}
	}
	_ = a.apiAddr.Close()
	if a.smtpAddr != nil {
		_ = a.smtpAddr.Close() // refused by this process rather than never answered
	}
	return all[2:]
}
