package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestQueueDeleted deletes the queue's data under a running process, and then once more while it is stopped. There are
// schedules and retries pending both times: all of it comes, in its time, and once.
func TestQueueDeleted(t *testing.T) {
	t.Parallel()
	out := outside(t)
	dir, inbox := folder(t), &dev{Inbox: "http://" + out.InboxAddr()}
	d := start(t, dir, "--sink", out.SMTPAddr())
	p := newPromises()
	p.mustMixed(t, d, 80)
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 80; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if err := p.mixed(d, n); err != nil {
				t.Error(err)
			}
		}
	})
	endLoad := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer endLoad()
	remove(t, filepath.Join(dir, "queue", "jetstream"))
	wait(t, 15*time.Second, "the queue to start over", func() bool { return strings.Contains(d.output.String(), "starts over") })
	d.queueBack(t)
	endLoad()
	p.once(t, inbox, 30*time.Second)
	t.Logf("%d mails arrived while the queue was deleted", len(p.notBefore))

	p = newPromises()
	p.mustMixed(t, d, 80)
	d.stop(t)
	remove(t, filepath.Join(dir, "queue"))
	d = start(t, dir, "--sink", out.SMTPAddr())
	p.once(t, inbox, 30*time.Second)
	for id := range p.notBefore {
		d.waitState(t, id, "sent")
	}
}

// remove deletes a folder at one stroke, also one that somebody writes to.
func remove(t *testing.T, dir string) {
	t.Helper()
	gone := dir + ".gone"
	if err := os.Rename(dir, gone); err != nil {
		t.Fatal(err)
	}
	wait(t, 10*time.Second, "the folder to be deleted", func() bool { return os.RemoveAll(gone) == nil })
}
