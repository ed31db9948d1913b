package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// part is something that runs until its context ends and then drains.
type part struct {
	name string
	run  func(context.Context) error
}

// stage is what stops together.
type stage []part

// runStages runs all stages, and when ctx ends, or a part fails, stops them one after the other: what takes work
// in first, what the others need last. ready is called when all have been started, and its error stops them too.
func runStages(ctx context.Context, stages []stage, ready func() error) error {
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	groups := make([]errgroup.Group, len(stages))
	stops := make([]context.CancelFunc, len(stages))
	for i := len(stages) - 1; i >= 0; i-- { // what others need starts first
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		stops[i] = stop
		for _, p := range stages[i] {
			groups[i].Go(func() error {
				err := p.run(running)
				if err == nil && running.Err() == nil {
					err = errors.New("ended by itself")
				}
				if err != nil {
					err = fmt.Errorf("%s: %w", p.name, err)
					fail(err)
				}
				return err
			})
		}
	}
	if err := ready(); err != nil {
		fail(err)
	}
	<-failed.Done()
	for i := range stages {
		stops[i]()
		_ = groups[i].Wait() // the first failure is the cause
	}
	if cause := context.Cause(failed); ctx.Err() == nil && cause != nil {
		return cause
	}
	return nil
}
