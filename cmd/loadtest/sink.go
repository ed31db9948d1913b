package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/postrider/postrider/loadtest"
)

func sink(ctx context.Context, args []string) error {
	f := newFlags("sink")
	addr := f.String("addr", "127.0.0.1:2526", "receive SMTP at this `host:port`")
	control := f.String("ctl", "", "answer POST /reset, GET /stats and GET /wait?n=N over HTTP at this `host:port`")
	if err := f.parse(args); err != nil {
		return err
	}
	s, err := loadtest.NewSink(*addr)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "sink at", s.Addr())
	if *control == "" {
		return s.Run(ctx)
	}
	l, err := net.Listen("tcp", *control)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	fmt.Fprintln(os.Stderr, "control at", l.Addr())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- s.ServeControl(ctx, l) }()
	err = <-done
	stop() // one does not go on without the other
	<-done
	return err
}
