package e2e

import (
	"strings"
	"testing"
	"time"
)

// hostile are the hosts that do what no host should.
var hostile = []struct {
	name, says string
	mood       mood
	doubles    bool // it may have had the mail before
}{
	{name: "a byte a second", says: "in time", mood: mood{drip: true}},
	{name: "a greeting of 64 MB", says: "more than 64 KiB", mood: mood{flood: 64 << 20}},
	{name: "codes mixed at EHLO", says: "mixed codes 250 and 550", mood: mood{answers: map[string]string{"EHLO": "250-fake\r\n550 no\r\n"}}},
	{name: "codes mixed at RCPT", says: "mixed codes 250 and 550", mood: mood{answers: map[string]string{"RCPT": "250-yes\r\n550 no\r\n"}}},
	{name: "codes mixed at the dot", says: "unknown", mood: mood{answers: map[string]string{".": "250-yes\r\n550 no\r\n"}}, doubles: true},
	{name: "killed after the dot", says: "unknown", mood: mood{dies: true}, doubles: true},
}

// testHostile sends to all of them at once more than may be under way. Their slots must come free, mail of another
// account to another host must not notice, and nothing may be lost.
func testHostile(t *testing.T, p *peers) {
	quiet, noisy := p.fresh(t), p.fresh(t)
	well := newFake(t, p.place("well.example.net"), mood{})
	const n = 100
	before := quiet.timeFor(t, well, "well.example.net", n)

	fakes, ids := make([]*fake, len(hostile)), make([][]string, len(hostile))
	for i, c := range hostile {
		domain := "hostile" + string(rune('a'+i)) + ".example.net"
		fakes[i] = newFake(t, p.place(domain), c.mood)
		ids[i] = noisy.many(t, domain, 2*peerConns)
	}
	wait(t, 10*time.Second, "mail for the slow host to be in hand", func() bool {
		fakes[0].mu.Lock()
		defer fakes[0].mu.Unlock()
		return len(fakes[0].conns) > 0
	})
	during := quiet.timeFor(t, well, "well.example.net", n)
	t.Logf("%d mails to a host that is well took %v before and %v while others were not", n, before, during)
	if during > 3*before+2*time.Second {
		t.Errorf("%d mails to a host that is well took %v, and %v before", n, during, before)
	}
	for i, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			if said := noisy.deferred(t, 40*time.Second, ids[i]...); !strings.Contains(said, c.says) {
				t.Errorf("nothing says %q: %s", c.says, said)
			}
			if taken := fakes[i].greeted; taken > 4<<20 { // what fits into the buffers of two sockets
				t.Errorf("%d bytes of greeting were taken", taken)
			}
			fakes[i].up(t, mood{})
		})
	}
	for i, c := range hostile {
		t.Run(c.name+", then well", func(t *testing.T) {
			noisy.allIn(t, 60*time.Second, ids[i], "sent")
			fakes[i].holds(t, ids[i])
			_, doubles := fakes[i].counts()
			t.Logf("%d doubles", doubles)
			if doubles > 0 && !c.doubles {
				t.Errorf("%d mails arrived twice", doubles)
			}
		})
	}
}

// timeFor is how long so many mails take to arrive.
func (d *dev) timeFor(t *testing.T, f *fake, domain string, n int) time.Duration {
	t.Helper()
	had, _ := f.counts()
	began := time.Now()
	d.many(t, domain, n)
	wait(t, 60*time.Second, "the mails to the host that is well", func() bool {
		has, _ := f.counts()
		return has == had+n
	})
	return time.Since(began)
}

// testInjected offers STARTTLS and puts an answer of its own behind the one to it, for the client to take as if it came
// through TLS (CVE-2021-38371). The connection has to end there.
func testInjected(t *testing.T, p *peers) {
	d := p.fresh(t)
	f := newFake(t, p.place("injected.example.net"), mood{answers: map[string]string{
		"EHLO": "250-fake\r\n250-PIPELINING\r\n250 STARTTLS\r\n", "STARTTLS": "220 go\r\n250 2.0.0 injected\r\n"}})
	ids := d.many(t, "injected.example.net", 5)
	wait(t, 30*time.Second, "an attempt to end", func() bool {
		return d.state(t, ids[0])["state"] == "sent" || strings.Contains(events(d.state(t, ids[0])), "deferral")
	})
	t.Logf("%v", d.state(t, ids[0])["smtp_events"])
	if f.misled > 0 {
		t.Errorf("on %d connections the client went on after the injected answer", f.misled)
	}
	f.up(t, mood{})
	d.allIn(t, 60*time.Second, ids, "sent")
	f.holds(t, ids)
}
