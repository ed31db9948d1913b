package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/sender/sandbox"
)

// TestKillNine kills the process ten times at random moments under load and starts it again on the same folder.
// Every mail that was answered must arrive; one more copy is allowed for each that was under way at a kill.
func TestKillNine(t *testing.T) {
	const kills, clients = 10, 20
	// The inbox is part of the process and forgets at a kill, so the mail goes to one outside.
	out := outside(t)
	dir := folder(t)
	sink := out.SMTPAddr()
	var mu sync.Mutex
	answered := map[string]bool{}
	for kill := range kills {
		d := start(t, dir, "--sink", sink)
		stop := make(chan struct{})
		var load sync.WaitGroup
		for c := range clients {
			load.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					status, v, err := d.call("/api/1.0/messages/send", mail(fmt.Sprintf("k%d-%d-%d@d%d.example.net", kill, c, n, c%5)))
					if err != nil || status != 200 {
						continue // not answered, or refused: no promise was made
					}
					mu.Lock()
					answered[v.([]any)[0].(object)["_id"].(string)] = true
					mu.Unlock()
				}
			})
		}
		<-time.After(300*time.Millisecond + rand.N(1200*time.Millisecond))
		d.kill()
		close(stop)
		load.Wait()
	}
	d := start(t, dir, "--sink", sink)
	copies := map[string]int{}
	wait(t, 60*time.Second, fmt.Sprintf("all of %d answered mails to arrive", len(answered)), func() bool {
		copies = inboxCopies(t, &dev{Inbox: "http://" + out.InboxAddr()})
		for id := range answered {
			if copies[id] == 0 {
				return false
			}
		}
		return true
	})
	double := 0
	for _, n := range copies {
		double += n - 1
	}
	t.Logf("%d kills, %d answered, %d arrived, %d doubles", kills, len(answered), len(copies), double)
	if len(answered) < 100 {
		t.Errorf("only %d answered: the load was none", len(answered))
	}
	// In flight at a kill: what was delivered and not recorded yet. That is what the clients had just sent and at most
	// one batch of the ledger on each of the two servers.
	const inFlight = clients + 2*500
	if double > kills*inFlight || double > len(copies)/10 {
		t.Errorf("%d doubles of %d mails", double, len(copies))
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

func inboxCopies(t *testing.T, d *dev) map[string]int {
	t.Helper()
	out := map[string]int{}
	var list inboxList
	d.inbox(t, "/api/v1/messages?limit=10000", &list)
	for at := 0; len(list.Messages) > 0; {
		for _, m := range list.Messages {
			out[m.MessageID[:min(32, len(m.MessageID))]]++
		}
		at += len(list.Messages)
		list = inboxList{}
		d.inbox(t, fmt.Sprintf("/api/v1/messages?limit=10000&start=%d", at), &list)
	}
	return out
}
