package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/postrider/postrider/loadtest"
)

func bench(ctx context.Context, args []string) error {
	b, f := loadtest.Bench{Log: os.Stderr}, newFlags("bench")
	f.StringVar(&b.Postrider, "postrider", "bin/postrider", "the `program` to measure")
	f.StringVar(&b.Postfix, "postfix", "plain", "compare with Postfix: plain (its defaults), tuned or none")
	f.BoolVar(&b.Signed, "signed", true, "also with DKIM signatures, and beside Postfix with opendkim; then at most 8 accounts send")
	f.IntVar(&b.Accounts, "accounts", 200, "that send, in turns")
	f.IntVar(&b.Size, "size", 2048, "`bytes` of text in a mail")
	f.IntVar(&b.WarmUp, "warmup", 2000, "messages before each case")
	f.IntVar(&b.Rounds, "rounds", 1, "times each case is run, in turns; the table shows medians")
	f.DurationVar(&b.Timeout, "timeout", time.Minute, "for one submission")
	f.DurationVar(&b.Drain, "drain", time.Minute, "give up on what has not arrived when nothing came for so long")
	f.DurationVar(&b.Settle, "settle", 500*time.Millisecond, "wait after the last arrival for duplicates and late CPU use")
	connections := f.String("connections", "1,10,50", "the cases, by connections")
	messages := f.String("n", "1000,5000,20000", "messages of each case")
	asJSON := f.Bool("json", false, "report as one JSON object")
	if err := f.parse(args); err != nil {
		return err
	}
	var err error
	if b.Cases, err = cases(*connections, *messages); err != nil {
		return err
	}
	rep, err := b.Run(ctx)
	if err != nil {
		return err
	}
	return show(rep, *asJSON)
}

func cases(connections, messages string) ([]loadtest.BenchCase, error) {
	c, err := numbers(connections)
	if err != nil {
		return nil, err
	}
	n, err := numbers(messages)
	if err != nil {
		return nil, err
	}
	if len(n) != len(c) {
		return nil, fmt.Errorf("%w: --connections and -n must be lists of the same length", errUsage)
	}
	all := make([]loadtest.BenchCase, len(c))
	for i := range c {
		all[i] = loadtest.BenchCase{Connections: c[i], Messages: n[i]}
	}
	return all, nil
}
