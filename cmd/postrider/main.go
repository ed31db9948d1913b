// Postrider is a self-hosted platform for transactional email: `postrider dev` runs all of it on a laptop,
// `postrider serve` one or more of its roles on real servers.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "postrider: "+err.Error())
		os.Exit(exitCode(err))
	}
}
