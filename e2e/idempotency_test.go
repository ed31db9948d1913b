package e2e

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

const idempotencyKey = "Idempotency-Key"

func testIdempotency(t *testing.T, d *dev) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{
		{"many at once", idempotencyRace}, {"different bodies at once", idempotencyBodies}, {"another body", idempotencyConflict},
		{"after a refusal", idempotencyRefused}, {"another account", idempotencyAccounts}, {"rejected and invalid", idempotencyRejected},
		{"without a key", idempotencyNone}, {"bad keys", idempotencyBadKeys},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, d.fresh(t))
		})
	}
}

// atOnce makes n calls at the same moment; each answer is its status and JSON.
func (d *dev) atOnce(t *testing.T, n int, call func(i int) (int, any, error)) []string {
	t.Helper()
	answers := make([]string, n)
	var ready, done sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-begin
			status, v, err := call(i)
			answers[i] = answer(status, v, err)
		})
	}
	ready.Wait()
	close(begin)
	done.Wait()
	return answers
}

func answer(status int, v any, err error) string {
	if err != nil {
		return "no answer: " + err.Error()
	}
	b, _ := json.Marshal(v)
	return fmt.Sprintf("%d %s", status, b)
}

func idempotencyRace(t *testing.T, d *dev) {
	to := unique(t, "one")
	answers := d.atOnce(t, 50, func(int) (int, any, error) {
		return d.call("/api/1.0/messages/send", mail(to), idempotencyKey, "race-1")
	})
	for _, a := range answers {
		if a != answers[0] || a[:4] != "200 " {
			t.Fatalf("answers differ: %s and %s", answers[0], a)
		}
	}
	id := d.results(t, mail(to), idempotencyKey, "race-1")[0]["_id"].(string)
	d.waitState(t, id, "sent")
	if ids := d.search(t, object{}); len(ids) != 1 || ids[0] != id {
		t.Errorf("stored: %v, want only %s", ids, id)
	}
	// A mail to the same domain that arrives later shows that no second copy was on its way.
	d.waitState(t, d.send(t, unique(t, "later")), "sent")
	if n := d.mailsTo(t, to); n != 1 {
		t.Errorf("%d mails arrived", n)
	}
}

// idempotencyBodies has two bodies race for a key: one wins, and everybody with the other gets 409.
func idempotencyBodies(t *testing.T, d *dev) {
	to := [2]string{unique(t, "left"), unique(t, "right")}
	answers := d.atOnce(t, 40, func(i int) (int, any, error) {
		return d.call("/api/1.0/messages/send", mail(to[i%2]), idempotencyKey, "race-2")
	})
	for i, a := range answers {
		if a[:4] != answers[i%2][:4] || a[:4] != "200 " && a[:4] != "409 " {
			t.Errorf("answer %d is %s, answer %d was %s", i, a, i%2, answers[i%2])
		}
	}
	if answers[0][:4] == answers[1][:4] {
		t.Errorf("both bodies were answered %s", answers[0][:4])
	}
	if ids := d.search(t, object{}); len(ids) != 1 {
		t.Errorf("%d messages are stored", len(ids))
	}
}

func idempotencyConflict(t *testing.T, d *dev) {
	first := d.results(t, mail(unique(t, "a")), idempotencyKey, "k")
	d.refused(t, 409, "/api/1.0/messages/send", mail(unique(t, "b")), idempotencyKey, "k")
	if again := d.results(t, mail(unique(t, "a")), idempotencyKey, "k"); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("after the conflict the answer is %v, was %v", again, first)
	}
	if other := d.results(t, mail(unique(t, "a")), idempotencyKey, "K"); fmt.Sprint(other) == fmt.Sprint(first) {
		t.Errorf("keys that differ in case are the same")
	}
}

func idempotencyRefused(t *testing.T, d *dev) {
	bad := mail(unique(t, "a"), object{"subject": "two\nlines"})
	for range 2 {
		d.refused(t, 422, "/api/1.0/messages/send", bad, idempotencyKey, "k")
	}
	d.results(t, mail(unique(t, "a")), idempotencyKey, "k") // the key is still free
}

func idempotencyAccounts(t *testing.T, d *dev) {
	other := d.fresh(t)
	first := d.results(t, mail(unique(t, "a")), idempotencyKey, "k")[0]
	second := other.results(t, mail(unique(t, "b")), idempotencyKey, "k")[0]
	if first["_id"] == second["_id"] {
		t.Errorf("two accounts share %v", first)
	}
	other.refused(t, 404, "/api/1.0/messages/info", object{"id": first["_id"]})
}

// idempotencyRejected repeats a call in which not every recipient is sent to.
func idempotencyRejected(t *testing.T, d *dev) {
	bounce := unique(t, "bounce")
	d.waitState(t, d.send(t, bounce), "bounced")
	body := mail("")
	body["message"].(object)["to"] = []object{{"email": bounce}, {"email": "nonsense"}, {"email": unique(t, "good")}}
	first := d.results(t, body, idempotencyKey, "k")
	for i, want := range []string{"rejected", "invalid", "sent"} {
		if first[i]["status"] != want {
			t.Errorf("recipient %d is %v, want %s", i, first[i], want)
		}
	}
	if again := d.results(t, body, idempotencyKey, "k"); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("first %v, then %v", first, again)
	}
	body = mail(unique(t, "good"))
	delete(body["message"].(object), "from_email") // nothing at all is stored
	first = d.results(t, body, idempotencyKey, "k2")
	if again := d.results(t, body, idempotencyKey, "k2"); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("first %v, then %v", first, again)
	}
}

func idempotencyNone(t *testing.T, d *dev) {
	first := d.send(t, unique(t, "a"))
	if second := d.send(t, unique(t, "a")); first == second {
		t.Error("two sends without a key are one")
	}
}

func idempotencyBadKeys(t *testing.T, d *dev) {
	d.refused(t, 422, "/api/1.0/messages/send", mail(unique(t, "a")), idempotencyKey, string(make7bit(256)))
	d.results(t, mail(unique(t, "a")), idempotencyKey, string(make7bit(255)))
}

func make7bit(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}

// TestIdempotencySurvives kills the process while calls with keys run, and asks again after a restart.
func TestIdempotencySurvives(t *testing.T) {
	const keys = 40
	out := outside(t) // the built-in inbox would die with the process
	dir := folder(t)
	d := start(t, dir, "--sink", out.SMTPAddr())
	send := func(i int) (int, any, error) {
		return d.call("/api/1.0/messages/send", mail(fmt.Sprintf("k%d@example.net", i)), idempotencyKey, fmt.Sprint("key-", i))
	}
	status, v, err := send(0)
	if err != nil || status != 200 {
		t.Fatal(status, v, err)
	}
	var done atomic.Int64
	next := make(chan int, keys)
	for i := range keys {
		next <- i
	}
	close(next)
	before := make([]string, keys)
	d.atOnce(t, 4, func(int) (int, any, error) {
		for i := range next {
			status, v, err := send(i)
			before[i] = answer(status, v, err)
			if done.Add(1) == keys/2 {
				_ = d.cmd.Process.Kill()
			}
		}
		return 0, nil, nil
	})
	<-d.ended
	d = start(t, dir, "--sink", out.SMTPAddr())
	after := d.atOnce(t, keys, send)
	answered := 0
	for i := range keys {
		if after[i][:4] != "200 " {
			t.Errorf("key %d after the restart: %s", i, after[i])
		}
		if before[i][:4] == "200 " {
			answered++
			if before[i] != after[i] {
				t.Errorf("key %d was answered %s, after the restart %s", i, before[i], after[i])
			}
		}
	}
	t.Logf("%d of %d were answered before the kill", answered, keys)
	if ids := d.search(t, object{"limit": 1000}); len(ids) != keys {
		t.Errorf("%d messages are stored for %d keys", len(ids), keys)
	}
}
