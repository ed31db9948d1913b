package main

import (
	"context"
	"os"
	"time"

	"github.com/postrider/postrider/loadtest"
)

func fairness(ctx context.Context, args []string) error {
	x, f := loadtest.Fairness{Log: os.Stderr}, newFlags("fairness")
	f.StringVar(&x.Postrider, "postrider", "bin/postrider", "the `program` to measure")
	f.IntVar(&x.Small, "small", 500, "accounts that send now and then")
	f.Float64Var(&x.Rate, "rate", 300, "messages a second of all of these, at random moments")
	f.IntVar(&x.Bulk, "bulk", 300_000, "messages of the mailing")
	f.IntVar(&x.Recipients, "recipients", 1000, "messages a call of the mailing")
	f.IntVar(&x.Connections, "connections", 4, "that submit the mailing")
	seconds := f.Int("seconds", 20, "that the small ones are measured for, alone and beside the mailing")
	f.IntVar(&x.Rounds, "rounds", 2, "times both are run, in turns; the table shows medians")
	f.BoolVar(&x.SameDomain, "same-domain", true, "the mailing goes to the domains that the small ones send to, and =false to others")
	f.IntVar(&x.Size, "size", 2048, "`bytes` of text in a mail")
	f.DurationVar(&x.Timeout, "timeout", time.Minute, "for one call")
	f.DurationVar(&x.Drain, "drain", time.Minute, "give up on what has not arrived when nothing came for so long")
	f.DurationVar(&x.Settle, "settle", 500*time.Millisecond, "wait after the last arrival for duplicates")
	asJSON := f.Bool("json", false, "report as one JSON object")
	if err := f.parse(args); err != nil {
		return err
	}
	x.Phase = time.Duration(*seconds) * time.Second
	rep, err := x.Run(ctx)
	if err != nil {
		return err
	}
	return show(rep, *asJSON)
}
