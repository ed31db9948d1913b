package e2e

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// testOutcomes walks the table of the sandbox: what each recipient does, and what becomes of the message.
func testOutcomes(t *testing.T, d *dev) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{
		{"accepted", outcomeAccepted}, {"bounce", outcomeBounce}, {"reject", outcomeReject}, {"defer", outcomeDefer},
		{"slow", outcomeSlow}, {"hang", outcomeHang}, {"drop", outcomeDrop}, {"late bounce", outcomeLateBounce}, {"complaint", outcomeComplaint},
		{"fetched", outcomeFetched}, {"tagged", outcomeTagged},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, d.fresh(t))
		})
	}
}

// events are the types of a message's smtp_events, in order.
func events(m object) string {
	var types []string
	for _, e := range m["smtp_events"].([]any) {
		types = append(types, e.(object)["type"].(string))
	}
	return strings.Join(types, " ")
}

func outcomeAccepted(t *testing.T, d *dev) {
	m := d.waitState(t, d.send(t, unique(t, "anybody")), "sent")
	if events(m) != "sent" || m["reject"] != nil || m["bounce_description"] != nil {
		t.Errorf("%v", m)
	}
	d.waitMail(t, m["_id"].(string))
}

// suppressed sends again to an address and wants it stopped for this reason, at once and for good.
func (d *dev) suppressed(t *testing.T, to, reason string) {
	t.Helper()
	r := d.results(t, mail(to))[0]
	if r["status"] != "rejected" || r["reject_reason"] != reason {
		t.Fatalf("a second send was answered %v", r)
	}
	m := d.state(t, r["_id"].(string))
	if why, _ := m["reject"].(object); m["state"] != "rejected" || why["reason"] != reason {
		t.Errorf("the second message is %v", m)
	}
	if n, _ := d.received(t, r["_id"].(string)); n != 0 {
		t.Errorf("the second message was delivered")
	}
}

func outcomeBounce(t *testing.T, d *dev) {
	to := unique(t, "bounce")
	m := d.waitState(t, d.send(t, to), "bounced")
	if events(m) != "bounced" || m["bounce_description"] != "bad_mailbox" || !strings.Contains(fmt.Sprint(m["diag"]), "550 5.1.1") {
		t.Errorf("%v", m)
	}
	d.suppressed(t, to, "hard-bounce")
	d.suppressed(t, strings.ToUpper(to), "hard-bounce") // a mailbox is the same in any case
	mixed := mail(to)
	mixed["message"].(object)["to"] = []object{{"email": to}, {"email": unique(t, "good")}}
	r := d.results(t, mixed)
	if r[0]["status"] != "rejected" || r[1]["status"] != "sent" {
		t.Errorf("one good recipient beside a rejected one: %v", r)
	}
	d.waitState(t, r[1]["_id"].(string), "sent")
	other := d.fresh(t) // the list is the account's own
	other.waitState(t, other.send(t, to), "bounced")
}

func outcomeReject(t *testing.T, d *dev) {
	to := unique(t, "reject")
	m := d.waitState(t, d.send(t, to), "bounced")
	if events(m) != "bounced" || !strings.Contains(fmt.Sprint(m["diag"]), "554 5.7.1") {
		t.Errorf("%v", m)
	}
	// The content was refused, not the address: it may be mailed again.
	d.waitState(t, d.send(t, to), "bounced")
}

func outcomeDefer(t *testing.T, d *dev) {
	id := d.send(t, unique(t, "defer-2"))
	m := d.waitState(t, id, "sent")
	if events(m) != "deferral deferral sent" {
		t.Errorf("its events are %q", events(m))
	}
	if first := m["smtp_events"].([]any)[0].(object); !strings.Contains(fmt.Sprint(first["diag"]), "451 4.7.1") {
		t.Errorf("the first deferral is %v", first)
	}
	if n, _ := d.received(t, id); n != 1 {
		t.Errorf("%d copies arrived", n)
	}
}

func outcomeSlow(t *testing.T, d *dev) {
	const wait = 500 * time.Millisecond
	begin := time.Now()
	id := d.send(t, unique(t, "slow-500"))
	if took := time.Since(begin); took > 400*time.Millisecond {
		t.Logf("the answer took %v", took) // a busy machine; the sender must not wait for the remote host
	}
	d.waitState(t, id, "sent")
	if took := time.Since(begin); took < wait {
		t.Errorf("sent after %v, before the host answered", took)
	}
}

func outcomeHang(t *testing.T, d *dev) {
	hanging := make([]string, 10)
	for i := range hanging {
		hanging[i] = d.send(t, unique(t, fmt.Sprintf("hang+%d", i)))
	}
	for i := range 20 { // at the same domain and at others
		d.waitState(t, d.send(t, unique(t, fmt.Sprintf("free-%d", i))), "sent")
		d.waitState(t, d.send(t, fmt.Sprintf("free@d%d.example.org", i)), "sent")
	}
	for _, id := range hanging {
		if m := d.state(t, id); m["state"] != "queued" {
			t.Errorf("%v", m)
		}
	}
	// A deadline of ours ends the attempt; then it is tried again.
	wait(t, 40*time.Second, "the hanging attempt to be given up", func() bool {
		return strings.Contains(events(d.state(t, hanging[0])), "deferral")
	})
	if m := d.state(t, hanging[0]); m["state"] != "queued" {
		t.Errorf("%v", m)
	}
}

func outcomeLateBounce(t *testing.T, d *dev) {
	to := unique(t, "late-bounce")
	id := d.send(t, to)
	d.waitMail(t, id)
	m := d.waitState(t, id, "bounced")
	if events(m) != "sent bounced" {
		t.Errorf("its events are %q", events(m))
	}
	d.suppressed(t, to, "hard-bounce")
}

func outcomeComplaint(t *testing.T, d *dev) {
	to := unique(t, "complain")
	id := d.send(t, to)
	d.waitMail(t, id)
	m := d.waitState(t, id, "spam")
	if events(m) != "sent spam" {
		t.Errorf("its events are %q", events(m))
	}
	d.suppressed(t, to, "spam")
}

func outcomeFetched(t *testing.T, d *dev) {
	for _, local := range []string{"open", "click"} {
		id := d.send(t, unique(t, local), object{"html": `<p>See <a href="http://127.0.0.1:9/nobody">this</a></p>`})
		d.waitMail(t, id)
		d.waitState(t, id, "sent")
	}
}

func outcomeTagged(t *testing.T, d *dev) {
	d.waitState(t, d.send(t, unique(t, "BOUNCE+order-17")), "bounced")
	d.waitState(t, d.send(t, unique(t, "bouncer")), "sent")
	d.waitState(t, d.send(t, unique(t, "defer-1+x")), "sent")
}

// outcomeDrop sends to a host that hangs up in place of its answer: nobody knows whether it has the mail.
func outcomeDrop(t *testing.T, d *dev) {
	id := d.send(t, unique(t, "drop"))
	wait(t, 30*time.Second, "two more attempts", func() bool { return strings.HasPrefix(events(d.state(t, id)), "deferral deferral") })
	if m := d.state(t, id); m["state"] != "queued" {
		t.Errorf("%v", m)
	}
}

// TestDrop sends to a host that takes the whole mail and closes before its answer: each attempt must offer the same
// bytes, so that a host that did keep it can tell the copies apart by nothing and drop one.
func TestDrop(t *testing.T) {
	sink := newDropSink(t)
	d := start(t, folder(t), "--servers", "1", "--shards", "1", "--sink", sink.addr)
	id := d.send(t, "drop@example.net", object{"html": "<p>hi</p>", "attachments": []object{{"type": "text/plain", "name": "a.txt", "content": "aGVsbG8="}}})
	var m object
	wait(t, 40*time.Second, "three attempts", func() bool { return sink.count() >= 3 })
	wait(t, 10*time.Second, "two deferrals", func() bool {
		m = d.state(t, id)
		return strings.Count(events(m), "deferral") >= 2
	})
	if m["state"] != "queued" {
		t.Errorf("%v", m)
	}
	mails := sink.all()
	for i, raw := range mails {
		if !bytes.Equal(raw, mails[0]) {
			t.Errorf("attempt %d sent other bytes:\n%s\nthan the first:\n%s", i+1, raw, mails[0])
		}
	}
	if !strings.Contains(string(mails[0]), id) {
		t.Errorf("the Message-ID does not hold the message's id %s", id)
	}
}

// dropSink is an SMTP server that reads mails and closes the connection in place of an answer.
type dropSink struct {
	addr  string
	mu    sync.Mutex
	mails [][]byte
}

func newDropSink(t *testing.T) *dropSink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sink := &dropSink{addr: l.Addr().String()}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &dropSession{sink, c}, nil }))
	server.Domain = "mx.example.net"
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return sink
}

func (s *dropSink) all() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte{}, s.mails...)
}

func (s *dropSink) count() int { return len(s.all()) }
