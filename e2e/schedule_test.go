package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

func sendAt(to string, at time.Time) object {
	m := mail(to)
	m["send_at"] = at.UTC().Format("2006-01-02T15:04:05.000Z")
	return m
}

// schedule sends one mail for a time and returns its id.
func (d *dev) schedule(t *testing.T, to string, at time.Time) string {
	t.Helper()
	r := d.must(t, "/api/1.0/messages/send", sendAt(to, at)).([]any)[0].(object)
	if r["status"] != "scheduled" {
		t.Fatalf("status %v", r["status"])
	}
	return r["_id"].(string)
}

// TestSchedules holds scheduled sends to their time, through a cancel, a move, wrong input and a kill.
func TestSchedules(t *testing.T) {
	dir := folder(t)
	out := outside(t)
	d := start(t, dir, "--sink", out.SMTPAddr())
	inbox := &dev{Inbox: "http://" + out.InboxAddr()}
	soon := time.Now().Add(3 * time.Second)
	kept, dropped, moved := d.schedule(t, "kept@example.net", soon), d.schedule(t, "dropped@example.net", soon), d.schedule(t, "moved@example.net", soon.Add(time.Hour))
	list := d.must(t, "/api/1.0/messages/list-scheduled", object{}).([]any)
	if len(list) != 3 || list[2].(object)["_id"] != moved {
		t.Fatalf("list: %v", list)
	}
	if m := d.must(t, "/api/1.0/messages/cancel-scheduled", object{"id": dropped}).(object); m["to"] != "dropped@example.net" {
		t.Errorf("cancelled %v", m)
	}
	d.must(t, "/api/1.0/messages/reschedule", object{"id": moved, "send_at": "2001-01-01 00:00:00"})
	d.waitState(t, moved, "sent")
	if s := d.state(t, kept)["state"]; s != "scheduled" && time.Now().Before(soon) {
		t.Errorf("%v before its time", s)
	}
	d.waitState(t, kept, "sent")
	if late := time.Since(soon); late < 0 || late > 3*time.Second {
		t.Errorf("sent %v after its time", late)
	}
	if s := d.state(t, dropped)["state"]; s != "cancelled" {
		t.Errorf("the cancelled one is %v", s)
	}
	for _, id := range []string{dropped, kept, strings.Repeat("0", 32)} {
		if status, v, err := d.call("/api/1.0/messages/cancel-scheduled", object{"id": id}); status != 404 || v.(object)["name"] != "Unknown_Message" {
			t.Errorf("cancel of what is not scheduled: %d %v %v", status, v, err)
		}
	}
	for _, bad := range []string{"tomorrow", "9999-12-31 23:59:59", "2026-03-29 02:30:00 CEST", "1", "2026-13-01 00:00:00"} {
		m := mail("a@example.net")
		m["send_at"] = bad
		if status, v, err := d.call("/api/1.0/messages/send", m); status != 422 || !strings.Contains(fmt.Sprint(v), "send_at") {
			t.Errorf("send_at %q: %d %v %v", bad, status, v, err)
		}
	}
	soon = time.Now().Add(4 * time.Second)
	through := d.schedule(t, "through@example.net", soon)
	d.kill()
	d = start(t, dir, "--sink", out.SMTPAddr())
	d.waitState(t, through, "sent")
	if n := inboxCopies(t, inbox); n[dropped] != 0 || n[kept] != 1 || n[moved] != 1 || n[through] != 1 {
		t.Errorf("copies: dropped %d, kept %d, moved %d, through a kill %d", n[dropped], n[kept], n[moved], n[through])
	}
}

// TestScheduleRaces cancels and moves messages at the very moment they fire: what was cancelled never arrives, and all
// else arrives once.
func TestScheduleRaces(t *testing.T) {
	const messages, clients = 2000, 16
	out := outside(t)
	d := start(t, folder(t), "--sink", out.SMTPAddr())
	ids := make(chan string, messages)
	var sent sync.WaitGroup
	at := time.Now().Add(8 * time.Second)
	for c := range clients {
		sent.Go(func() {
			for n := range messages / clients {
				status, v, err := d.call("/api/1.0/messages/send", sendAt(fmt.Sprintf("r%d-%d@d%d.example.net", c, n, n%7), at.Add(rand.N(2*time.Second))))
				if err != nil || status != 200 {
					t.Errorf("send: %d %v %v", status, v, err)
					return
				}
				ids <- v.([]any)[0].(object)["_id"].(string)
			}
		})
	}
	sent.Wait()
	close(ids)
	<-time.After(time.Until(at))
	var mu sync.Mutex
	cancelled, all, moved := map[string]bool{}, map[string]bool{}, 0
	var races sync.WaitGroup
	for range clients {
		races.Go(func() {
			for id := range ids {
				path, body := "/api/1.0/messages/cancel-scheduled", object{"id": id}
				if rand.N(3) == 0 {
					path, body = "/api/1.0/messages/reschedule", object{"id": id, "send_at": time.Now().Add(rand.N(time.Second)).UTC().Format("2006-01-02T15:04:05.000Z")}
				}
				status, v, err := d.call(path, body)
				if err != nil || status != 200 && status != 404 {
					t.Errorf("%s: %d %v %v", path, status, v, err)
				}
				mu.Lock()
				all[id] = true
				if status == 200 && strings.Contains(path, "cancel") {
					cancelled[id] = true
				} else if status == 200 {
					moved++
				}
				mu.Unlock()
			}
		})
	}
	races.Wait()
	inbox := &dev{Inbox: "http://" + out.InboxAddr()}
	var copies map[string]int
	wait(t, 30*time.Second, "everything that was not cancelled to arrive", func() bool {
		copies = inboxCopies(t, inbox)
		return len(copies) >= len(all)-len(cancelled)
	})
	for id := range all {
		want := 1
		if cancelled[id] {
			want = 0
		}
		if copies[id] != want {
			t.Errorf("%s arrived %d times, want %d", id, copies[id], want)
		}
	}
	t.Logf("%d messages, %d cancelled in time, %d moved", len(all), len(cancelled), moved)
	if len(cancelled) == 0 || len(cancelled) == len(all) {
		t.Error("there was no race")
	}
}
