package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

// version is stamped by the build.
var version = "dev"

// usageError is wrong use of the command line: exit 2.
type usageError struct{ error }

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
		return 2
	}
	return 1
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "postrider", Short: "A self-hosted platform for transactional email",
		Long:         "Postrider takes mail in over an HTTP API (Mandrill-compatible), stores it durably and delivers it itself.\nStart with: postrider dev",
		SilenceUsage: true, SilenceErrors: true, Version: version,
		Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{errors.New(err.Error() + " (see " + c.CommandPath() + " --help)")}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(devCommand(), serveCommand(), accountCommand(), keyCommand(), shardsCommand(), jobsCommand(), messagesCommand(), domainCommand())
	return root
}

// arguments makes a wrong number of arguments wrong use.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{errors.New(err.Error() + " (see " + c.CommandPath() + " --help)")}
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: arguments(cobra.NoArgs), RunE: func(c *cobra.Command, _ []string) error {
		_ = c.Help()
		return usageError{errors.New("say what to do: " + c.CommandPath() + " needs one of the commands above")}
	}}
	c.AddCommand(subs...)
	return c
}
