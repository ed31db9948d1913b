package e2e

import (
	"strings"
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
	soon = time.Now().Add(4 * time.Second)
	through := d.schedule(t, "through@example.net", soon)
	d.kill()
	d = start(t, dir, "--sink", out.SMTPAddr())
	d.waitState(t, through, "sent")
	if n := inboxCopies(t, inbox); n[dropped] != 0 || n[kept] != 1 || n[moved] != 1 || n[through] != 1 {
		t.Errorf("copies: dropped %d, kept %d, moved %d, through a kill %d", n[dropped], n[kept], n[moved], n[through])
	}
}

// testSchedule is what scheduling refuses.
func testSchedule(t *testing.T, d *dev) {
	t.Run("not a time", func(t *testing.T) { scheduleBadTime(t, d.fresh(t)) })
	t.Run("not scheduled", func(t *testing.T) { scheduleNotOurs(t, d.fresh(t), d.fresh(t)) })
}

// scheduleBadTime wants each to be refused with the name of the field, and with what is right in its place.
func scheduleBadTime(t *testing.T, d *dev) {
	id := d.schedule(t, unique(t, "kept"), time.Now().Add(time.Hour))
	for bad, says := range map[string]string{
		"tomorrow": "2026-01-31 13:45:00", "1": "2026-01-31 13:45:00", "2026-13-01 00:00:00": "2026-01-31 13:45:00",
		"2026-03-29 02:30 CET": "UTC", "2026-03-29 02:30:00 CEST": "ISO 8601", "9999-12-31 23:59:59": "year ahead",
	} {
		m := mail(unique(t, "bad"))
		m["send_at"] = bad
		for path, body := range map[string]object{"/api/1.0/messages/send": m, "/api/1.0/messages/reschedule": {"id": id, "send_at": bad}} {
			status, v, err := d.call(path, body)
			if text := refusal(t, 422, status, v, err); v.(object)["name"] != "ValidationError" || !strings.Contains(text, "send_at") || !strings.Contains(text, says) {
				t.Errorf("%s with send_at %q: %v, want a ValidationError that names send_at and says %q", path, bad, v, says)
			}
		}
	}
	if s := d.state(t, id)["state"]; s != "scheduled" {
		t.Errorf("after wrong times the scheduled message is %v", s)
	}
}

// scheduleNotOurs cancels and moves what is not there to be cancelled, by an account to which it is not.
func scheduleNotOurs(t *testing.T, d, other *dev) {
	soon := time.Now().Add(time.Hour)
	cancelled, theirs := d.schedule(t, unique(t, "cancelled"), soon), other.schedule(t, unique(t, "theirs"), soon)
	sent := d.send(t, unique(t, "sent"))
	d.waitState(t, sent, "sent")
	d.must(t, "/api/1.0/messages/cancel-scheduled", object{"id": cancelled})
	for what, id := range map[string]string{"sent": sent, "cancelled": cancelled, "another account's": theirs, "unknown": strings.Repeat("0", 32)} {
		for path, body := range map[string]object{"cancel-scheduled": {"id": id}, "reschedule": {"id": id, "send_at": "2001-01-01 00:00:00"}} {
			status, v, err := d.call("/api/1.0/messages/"+path, body)
			if refusal(t, 404, status, v, err); v.(object)["name"] != "Unknown_Message" {
				t.Errorf("%s of a message that is %s: %v", path, what, v)
			}
		}
	}
	if s := other.state(t, theirs)["state"]; s != "scheduled" {
		t.Errorf("another account has made it %v", s)
	}
}
