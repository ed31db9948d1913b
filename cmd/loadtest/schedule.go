package main

import (
	"context"
	"os"
	"time"

	"github.com/postrider/postrider/loadtest"
)

func schedule(ctx context.Context, args []string) error {
	s, f := loadtest.Schedule{Log: os.Stderr}, newFlags("schedule")
	f.StringVar(&s.Postrider, "postrider", "bin/postrider", "the `program` to measure")
	f.IntVar(&s.Accounts, "accounts", 200, "that schedule, in turns")
	f.IntVar(&s.Pending, "pending", 1_000_000, "messages an hour to 30 days ahead, which stay in the queue")
	f.IntVar(&s.Recipients, "recipients", 1000, "messages a call of these")
	f.IntVar(&s.Due, "due", 100_000, "messages of a slot, rounded to whole calls")
	f.DurationVar(&s.Slot, "slot", time.Minute, "the due ones are spread over the seconds of so long")
	f.DurationVar(&s.Lead, "lead", 3*time.Second, "a slot lies at least so far ahead, and farther the more it has")
	f.BoolVar(&s.AtOnce, "at-once", true, "measure also as many that are all due in the same second")
	f.IntVar(&s.Cancel, "cancel", 5000, "messages to cancel, well ahead and again in the last moment")
	f.IntVar(&s.Connections, "connections", 10, "of the senders")
	f.IntVar(&s.Size, "size", 2048, "`bytes` of text in a mail")
	f.DurationVar(&s.Timeout, "timeout", time.Minute, "for one call")
	f.DurationVar(&s.Drain, "drain", time.Minute, "give up on what has not arrived when nothing came for so long")
	f.DurationVar(&s.Settle, "settle", 2*time.Second, "wait after the last arrival for what must not come")
	asJSON := f.Bool("json", false, "report as one JSON object")
	if err := f.parse(args); err != nil {
		return err
	}
	rep, err := s.Run(ctx)
	if err != nil {
		return err
	}
	return show(rep, *asJSON)
}
