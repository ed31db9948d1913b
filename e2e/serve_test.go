package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServe runs three processes on the same shards with a queue outside of them. They share the work; what a dead or a
// frozen one had in hand is delivered by another; and when the queue goes away, all that is lost is some haste.
func TestServe(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	store, address := t.TempDir(), freeAddress(t)
	queue := object{"url": "nats://" + address}
	stop := startQueue(t, store, address)
	all := []*dev{c.serve(t, queue), c.serve(t, queue), c.serve(t, queue)}
	t.Run("shared", func(t *testing.T) { c.shared(t, all) })
	t.Run("left behind", func(t *testing.T) { c.leftBehind(t, all[0], all[1], all[2]) })
	stop()
	// A process that starts now must not wait for the queue.
	all[2] = c.serve(t, queue)
	for _, d := range all {
		d.queueAway(t)
	}
	t.Run("queue away", func(t *testing.T) { c.works(t, all) })
	startQueue(t, store, address)
	for _, d := range all {
		d.queueBack(t)
	}
	t.Run("queue back", func(t *testing.T) { c.works(t, all) })
}

// shared has each process take mail, for now and for later. All of it arrives, once and in time, and each delivers some.
func (c *cluster) shared(t *testing.T, all []*dev) {
	p := newPromises()
	for _, d := range all {
		p.mustMixed(t, d, 80)
	}
	p.once(t, c.inbox, 30*time.Second)
	for i, d := range all {
		if n := d.metric("postrider_outcomes_total"); n < 1 {
			t.Errorf("process %d has made %v attempts", i, n)
		} else {
			t.Logf("process %d has made %v attempts", i, n)
		}
	}
}

// works has each process take mail of every kind, and wants it delivered as always.
func (c *cluster) works(t *testing.T, all []*dev) {
	p := newPromises()
	for _, d := range all {
		p.mustMixed(t, d, 24)
	}
	p.once(t, c.inbox, 30*time.Second)
	for id := range p.notBefore {
		all[0].waitState(t, id, "sent")
	}
}

// queueAway waits until a process has noticed, and wants it to take mail all the same.
func (d *dev) queueAway(t *testing.T) {
	t.Helper()
	wait(t, 15*time.Second, "the process to notice that the queue is away", func() bool { return d.metric("postrider_jobs_ready") == 0 })
	if status, text := d.ready(); status != 200 || !strings.Contains("\n"+text, "\nqueue: ") {
		t.Errorf("/readyz without a queue is %d, want 200 and a line that begins with \"queue: \":\n%s", status, text)
	}
}

func (d *dev) queueBack(t *testing.T) {
	t.Helper()
	wait(t, 30*time.Second, "the process to use the queue again", func() bool {
		status, text := d.ready()
		return status == 200 && !strings.Contains(text, "queue: ") && d.metric("postrider_jobs_ready") == 1
	})
}

// takeOver is how long after a process has fallen silent what it had in hand is delivered by another: its claims are
// freed when it has been silent for half a minute at most, and then there is the mail itself.
const takeOver = 35 * time.Second

// leftBehind freezes one process and kills another while both have mail in hand, some on the wire and more of it
// waiting. The third delivers all of it, and when the frozen one thaws it must not deliver any of it again.
func (c *cluster) leftBehind(t *testing.T, survivor, frozen, killed *dev) {
	inHand := map[string][]string{"frozen": frozen.hold(t, "frozen"), "killed": killed.hold(t, "killed")}
	thaw := func() { _ = frozen.cmd.Process.Signal(syscall.SIGCONT) }
	t.Cleanup(thaw)
	_ = frozen.cmd.Process.Signal(syscall.SIGSTOP)
	killed.kill()
	began := time.Now()
	for name, ids := range inHand {
		if left := survivor.unsent(t, ids); left == 0 {
			t.Errorf("nothing of the %s process was in its hands", name)
		}
	}
	wait(t, takeOver-time.Since(began), "the third process to deliver what the others had in hand", func() bool {
		return survivor.unsent(t, inHand["frozen"])+survivor.unsent(t, inHand["killed"]) == 0
	})
	t.Logf("delivered by the third process after %v", time.Since(began))
	before := inboxCopies(t, c.inbox)
	for name, ids := range inHand {
		doubles := 0
		for _, id := range ids {
			if before[id] == 0 {
				t.Errorf("%s of the %s process was not delivered", id, name)
			}
			doubles += max(before[id]-1, 0)
		}
		// What the other host had read when its sender fell silent, it takes. There was one domain, so that is as much as a
		// process has under way for one.
		if doubles > perDomain {
			t.Errorf("%d of the %s process arrived twice, at most %d were on the wire", doubles, name, perDomain)
		}
	}
	thaw()
	frozen.settle(t)
	after := inboxCopies(t, c.inbox)
	for _, ids := range inHand {
		for _, id := range ids {
			if after[id] != before[id] {
				t.Errorf("%s was there %d times, and %d times after the frozen process went on", id, before[id], after[id])
			}
		}
	}
}

// hold sends mail to a host that takes its time over each, four times as much as may be under way at once, and returns
// at once.
func (d *dev) hold(t *testing.T, domain string) (ids []string) {
	t.Helper()
	var to []object
	for i := range 4 * perDomain {
		to = append(to, object{"email": fmt.Sprintf("slow-400+%d@%s.example.net", i, domain)})
	}
	for _, r := range d.results(t, mail("", object{"to": to})) {
		ids = append(ids, r["_id"].(string))
	}
	return ids
}

// unsent is how many of some messages have not been sent.
func (d *dev) unsent(t *testing.T, ids []string) int {
	t.Helper()
	n := 0
	for _, id := range ids {
		if d.state(t, id)["state"] != "sent" {
			n++
		}
	}
	return n
}

// settle waits until a process has let go of everything that it had in hand before: it takes one more mail in hand, is
// seen to hold it, and then nothing. A process that thaws leaves new mail to others until its heartbeat is stored again, so it
// gets another mail every few seconds.
func (d *dev) settle(t *testing.T) {
	t.Helper()
	var ids []string
	var last time.Time
	wait(t, 40*time.Second, "the process to have the mail in hand", func() bool {
		if time.Since(last) > 5*time.Second {
			ids, last = append(ids, d.send(t, "slow-4000@settle.example.net")), time.Now()
		}
		return d.metric("postrider_in_hand") >= 1
	})
	for _, id := range ids {
		d.waitState(t, id, "sent")
	}
	wait(t, 10*time.Second, "the process to have nothing in hand", func() bool { return d.metric("postrider_in_hand") == 0 })
}

// TestQueueHostKilled kills the one of two processes that the queue is part of, while it has mail in hand. The other
// delivers that without a queue, and also what falls due after.
func TestQueueHostKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	queue, address := t.TempDir(), freeAddress(t)
	const token = "a token of this test"
	host := c.serve(t, object{"dir": queue, "listen": address, "token": token})
	guest := c.serve(t, object{"url": "nats://" + strings.ReplaceAll(token, " ", "%20") + "@" + address})
	p := newPromises()
	p.mustMixed(t, host, 40)
	p.mustMixed(t, guest, 40)
	p.once(t, c.inbox, 30*time.Second)
	later := newPromises()
	for i := range 20 {
		if err := later.send(host, fmt.Sprintf("later+%d@host.example.net", i), time.Now().Add(5*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	ids := host.hold(t, "host")
	host.kill()
	began := time.Now()
	later.once(t, c.inbox, 15*time.Second)
	t.Logf("schedules fired %v after the kill", time.Since(began))
	wait(t, takeOver-time.Since(began), "the other process to deliver what the host had in hand", func() bool { return guest.unsent(t, ids) == 0 })
	t.Logf("delivered by the other process after %v", time.Since(began))
	again := c.serve(t, object{"dir": queue, "listen": address, "token": token})
	guest.queueBack(t)
	c.works(t, []*dev{again, guest})
}
