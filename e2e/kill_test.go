package e2e

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/sender/sandbox"
)

// TestKillNine kills the process ten times at random moments under load, with schedules and retries pending, and
// starts it again on the same folder. Every mail that was answered must arrive, and none before its time; one more
// copy is allowed for each that was under way at a kill.
func TestKillNine(t *testing.T) {
	const kills, clients = 10, 20
	// The inbox is part of the process and forgets at a kill, so the mail goes to one outside.
	out := outside(t)
	dir := folder(t)
	sink := out.SMTPAddr()
	answered := newPromises()
	for range kills {
		d := start(t, dir, "--sink", sink)
		stop := make(chan struct{})
		var load sync.WaitGroup
		for c := range clients {
			load.Go(func() {
				for n := c; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					_ = answered.mixed(d, n) // not answered, or refused: no promise was made
				}
			})
		}
		<-time.After(300*time.Millisecond + rand.N(1200*time.Millisecond))
		d.kill()
		close(stop)
		load.Wait()
	}
	d := start(t, dir, "--sink", sink)
	inbox := &dev{Inbox: "http://" + out.InboxAddr()}
	answered.kept(t, inbox, 60*time.Second)
	double, all := 0, len(answered.notBefore)
	for _, n := range inboxCopies(t, inbox) { // also of what was stored, and whose answer the kill cut off
		double += n - 1
	}
	t.Logf("%d kills, %d answered, all arrived, %d doubles", kills, all, double)
	if all < 100 {
		t.Errorf("only %d answered: the load was none", all)
	}
	// In flight at a kill: what was delivered and not recorded yet. That is what the clients had just sent and at most
	// one batch of the ledger on each of the two servers.
	const inFlight = clients + 2*500
	if double > kills*inFlight || double > all/10 {
		t.Errorf("%d doubles of %d mails", double, all)
	}
	d.stop(t)
}

// outside is a sandbox that outlives the processes under test.
func outside(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	s, err := sandbox.New(sandbox.Config{SMTP: "127.0.0.1:0", Inbox: "127.0.0.1:0", Capacity: 200_000})
	if err == nil {
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = s.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return s
}
