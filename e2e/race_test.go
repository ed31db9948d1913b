package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestScheduleRaces cancels and moves messages at the very moment they fire. What was cancelled never arrives; all else
// arrives once, and what was moved not before its new time.
func TestScheduleRaces(t *testing.T) {
	const messages, clients, round = 10_000, 16, 100
	out := outside(t)
	d := start(t, folder(t), "--sink", out.SMTPAddr())
	r := &races{d: d, promises: newPromises(), ends: map[string]string{}}
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for left := messages / clients; left > 0; left -= round {
				r.round(t, c, min(round, left))
			}
		})
	}
	all.Wait()
	inbox := &dev{Inbox: "http://" + out.InboxAddr()}
	count := map[string]int{}
	for id, end := range r.ends {
		count[end]++
		if end == "cancelled" {
			delete(r.promises.notBefore, id)
		}
	}
	r.promises.once(t, inbox, 30*time.Second)
	copies := inboxCopies(t, inbox)
	for id, end := range r.ends {
		if end == "cancelled" && copies[id] > 0 {
			t.Errorf("%s was cancelled, and arrived %d times", id, copies[id])
		}
	}
	t.Logf("%d messages: %v", len(r.ends), count)
	for _, end := range []string{"cancelled", "too late to cancel", "moved", "too late to move"} {
		if count[end] < len(r.ends)/100 {
			t.Errorf("there was no race: %d of %d are %s", count[end], len(r.ends), end)
		}
	}
}

// races is what became of messages that were cancelled or moved at the last moment.
type races struct {
	d        *dev
	promises *promises
	mu       sync.Mutex
	ends     map[string]string // by id
}

// round schedules some messages and then goes after each when its time comes.
func (r *races) round(t *testing.T, client, messages int) {
	type fate struct {
		id string
		at time.Time
	}
	var list []fate
	for n := range messages {
		at := time.Now().Add(2500 * time.Millisecond).Truncate(time.Millisecond)
		status, v, err := r.d.call("/api/1.0/messages/send", sendAt(fmt.Sprintf("r%d-%d@d%d.example.net", client, n, n%7), at))
		if err != nil || status != 200 {
			t.Errorf("send: %d %v %v", status, v, err)
			return
		}
		r.promises.note(v, at)
		list = append(list, fate{v.([]any)[0].(object)["_id"].(string), at})
	}
	shift := rand.N(250*time.Millisecond) - 100*time.Millisecond // by chance before it fires or after
	for _, m := range list {
		<-time.After(time.Until(m.at.Add(shift)))
		r.race(t, m.id)
	}
}

func (r *races) race(t *testing.T, id string) {
	path, body, ends := "/api/1.0/messages/cancel-scheduled", object{"id": id}, [2]string{"cancelled", "too late to cancel"}
	later := time.Now().Add(rand.N(time.Second)).Truncate(time.Millisecond)
	moves := rand.N(3) == 0
	if moves {
		path, ends = "/api/1.0/messages/reschedule", [2]string{"moved", "too late to move"}
		body["send_at"] = later.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	status, v, err := r.d.call(path, body)
	end := ends[0]
	if err == nil && status == 404 && v.(object)["name"] == "Unknown_Message" {
		end = ends[1]
	} else if err != nil || status != 200 {
		t.Errorf("%s: %d %v %v", path, status, v, err)
		return
	}
	r.mu.Lock()
	r.ends[id] = end
	r.mu.Unlock()
	if end == "moved" {
		r.promises.move(id, later)
	}
}
