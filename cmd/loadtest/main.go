// Command loadtest sends mail into a Postrider (or any SMTP server), receives what comes out, and
// reports speed, latency, cost and losses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `loadtest sends mail into a system, receives what comes out and reports.

  loadtest send      send by HTTP or SMTP, to a sink of its own or elsewhere
  loadtest sink      only receive, with a control address for scripts
  loadtest bench     measure a fresh Postrider beside Postfix
  loadtest schedule  measure scheduled sends: a million pending, a slot that is due, cancelling
  loadtest fairness  measure what a large mailing does to those who send little

loadtest COMMAND --help lists the flags of a command.
`

// errUsage is wrong use: exit 2.
var errUsage = errors.New("wrong use")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(exitCode(dispatch(ctx, os.Args[1:])))
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("%w: name a command", errUsage)
	}
	switch args[0] {
	case "send":
		return send(ctx, args[1:])
	case "sink":
		return sink(ctx, args[1:])
	case "bench":
		return bench(ctx, args[1:])
	case "schedule":
		return schedule(ctx, args[1:])
	case "fairness":
		return fairness(ctx, args[1:])
	case "help", "-h", "-help", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("%w: there is no command %q; loadtest --help lists them", errUsage, args[0])
}

func exitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "loadtest:", err)
		return 2
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintln(os.Stderr, "loadtest:", err)
	return 1
}
