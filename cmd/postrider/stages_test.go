package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

// diary notes what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// calm is a part that runs until it is told to stop.
func (d *diary) calm(name string) part {
	return part{name, func(ctx context.Context) error {
		<-ctx.Done()
		d.note(name)
		return nil
	}}
}

func TestStopsInOrder(t *testing.T) {
	var d diary
	ctx, cancel := context.WithCancel(context.Background())
	stages := []stage{{d.calm("intake"), d.calm("intake")}, {d.calm("work")}, {d.calm("base")}}
	err := runStages(ctx, stages, func() error { d.note("ready"); cancel(); return nil })
	if want := []string{"ready", "intake", "intake", "work", "base"}; err != nil || !slices.Equal(d.lines, want) {
		t.Errorf("%v, %v", d.lines, err)
	}
}

// TestStopWaits has a later stage run on until the one before it has drained.
func TestStopWaits(t *testing.T) {
	var d diary
	var stopped func() error
	started := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	drains := part{"intake", func(ctx context.Context) error {
		<-ctx.Done()
		if stopped() != nil {
			t.Error("what it needs has stopped before it")
		}
		d.note("intake")
		return nil
	}}
	needed := part{"base", func(ctx context.Context) error {
		stopped = ctx.Err
		close(started)
		<-ctx.Done()
		d.note("base")
		return nil
	}}
	err := runStages(ctx, []stage{{drains}, {needed}}, func() error { <-started; cancel(); return nil })
	if !slices.Equal(d.lines, []string{"intake", "base"}) || err != nil {
		t.Errorf("%v, %v", d.lines, err)
	}
}

// TestFailureStopsAll has a part that fails, or ends though nobody told it to, stop all others in order; its error is
// the one that is told.
func TestFailureStopsAll(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		err  error
		says string
	}{{broken, "work: broken"}, {nil, "work: ended by itself"}} {
		var d diary
		fails := part{"work", func(context.Context) error { return c.err }}
		late := part{"base", func(ctx context.Context) error {
			<-ctx.Done()
			d.note("base")
			return errors.New("a failure that only follows")
		}}
		err := runStages(context.Background(), []stage{{d.calm("intake")}, {fails, d.calm("beside")}, {late}}, func() error { return nil })
		if err == nil || err.Error() != c.says || (c.err != nil && !errors.Is(err, broken)) {
			t.Errorf("%v, want %s", err, c.says)
		}
		if !slices.Equal(d.lines, []string{"intake", "beside", "base"}) {
			t.Errorf("stopped %v", d.lines)
		}
	}
}

// TestNotReady has a failure to say that all runs stop all.
func TestNotReady(t *testing.T) {
	var d diary
	err := runStages(context.Background(), []stage{{d.calm("intake")}, {d.calm("base")}}, func() error { return errors.New("no ready file") })
	if err == nil || !strings.Contains(err.Error(), "no ready file") || !slices.Equal(d.lines, []string{"intake", "base"}) {
		t.Errorf("%v, stopped %v", err, d.lines)
	}
}
