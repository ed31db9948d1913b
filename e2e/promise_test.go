package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// promises are the mails that were answered, by id, with the time before which each must not arrive.
type promises struct {
	mu        sync.Mutex
	notBefore map[string]time.Time
}

func newPromises() *promises { return &promises{notBefore: map[string]time.Time{}} }

// send sends a mail, for later if a time is given. What is not answered, or refused, is no promise.
func (p *promises) send(d *dev, to string, at time.Time) error {
	body := mail(to)
	if !at.IsZero() {
		at = at.Truncate(time.Millisecond) // as the API is told
		body = sendAt(to, at)
	}
	status, v, err := d.call("/api/1.0/messages/send", body)
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("send: %d %v", status, v)
	}
	p.note(v, at)
	return nil
}

func (p *promises) note(v any, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range v.([]any) {
		p.notBefore[r.(object)["_id"].(string)] = at
	}
}

// mixed sends the n-th mail of a load that has something of everything: mail that goes at once, mail that is
// deferred once or twice and tried again after one and two seconds more, and mail for one to four seconds later.
func (p *promises) mixed(d *dev, n int) error {
	to, at := "now", time.Time{}
	switch n % 8 {
	case 1:
		to = "defer-1"
	case 2:
		to = "defer-2"
	case 3, 4:
		to, at = "later", time.Now().Add(time.Second+rand.N(3*time.Second))
	}
	return p.send(d, fmt.Sprintf("%s+%d@d%d.example.net", to, n, n%5), at)
}

// mustMixed sends so many, all of which have to be answered.
func (p *promises) mustMixed(t *testing.T, d *dev, n int) {
	t.Helper()
	for i := range n {
		if err := p.mixed(d, i); err != nil {
			t.Fatal(err)
		}
	}
}

// kept waits until all have arrived, and wants none of them early. It returns how many copies more than one arrived.
func (p *promises) kept(t *testing.T, inbox *dev, limit time.Duration) (doubles int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var arrived map[string][]time.Time
	lost := ""
	wait(t, limit, fmt.Sprintf("all of %d answered mails to arrive", len(p.notBefore)), func() bool {
		arrived, lost = arrivals(t, inbox), ""
		for id := range p.notBefore {
			if len(arrived[id]) == 0 {
				lost = id
			}
		}
		return lost == ""
	})
	for id, at := range p.notBefore {
		doubles += len(arrived[id]) - 1
		for _, came := range arrived[id] {
			if came.Before(at) {
				t.Errorf("%s arrived %v before its time", id, at.Sub(came))
			}
		}
	}
	return doubles
}

// once is kept where nothing was killed: nothing may arrive twice.
func (p *promises) once(t *testing.T, inbox *dev, limit time.Duration) {
	t.Helper()
	if doubles := p.kept(t, inbox, limit); doubles > 0 {
		t.Errorf("%d copies too many of %d mails", doubles, len(p.notBefore))
	}
}

// arrivals is when each mail arrived in the inbox, by the id in its Message-ID.
func arrivals(t *testing.T, d *dev) map[string][]time.Time {
	t.Helper()
	out, seen := map[string][]time.Time{}, map[string]bool{} // what arrives between two pages moves the rest on
	var list inboxList
	d.inbox(t, "/api/v1/messages?limit=10000", &list)
	for at := 0; len(list.Messages) > 0; {
		for _, m := range list.Messages {
			if id := m.MessageID[:min(32, len(m.MessageID))]; !seen[m.ID] {
				seen[m.ID], out[id] = true, append(out[id], m.Created)
			}
		}
		at += len(list.Messages)
		list = inboxList{}
		d.inbox(t, fmt.Sprintf("/api/v1/messages?limit=10000&start=%d", at), &list)
	}
	return out
}

// inboxCopies is how often each mail is in the inbox.
func inboxCopies(t *testing.T, d *dev) map[string]int {
	t.Helper()
	out := map[string]int{}
	for id, times := range arrivals(t, d) {
		out[id] = len(times)
	}
	return out
}

func (p *promises) move(id string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notBefore[id] = at
}
