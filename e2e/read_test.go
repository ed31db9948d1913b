package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
)

func apiInfo(t *testing.T, d *dev) {
	file := []byte("\x00\x01binary\r\n\xff")
	to := unique(t, "a")
	id := d.send(t, to, object{"subject": "Größe ≠ 0", "html": "<p>ä</p>", "text": "tëxt\r\n.\r\nend", "to": []object{{"email": to, "name": "Nämé"}}, "tags": []string{"one"}, "headers": object{"Reply-To": "r@example.com"},
		"metadata": object{"order": "17"}, "attachments": []object{{"type": "application/x-thing", "name": "ä b.bin", "content": base64.StdEncoding.EncodeToString(file)}}})
	m := d.waitState(t, id, "sent")
	for field, want := range map[string]any{"_id": id, "sender": "from@example.com", "subject": "Größe ≠ 0", "email": to, "state": "sent", "opens": 0.0, "clicks": 0.0, "template": nil, "subaccount": nil} {
		if got, has := m[field]; got != want || !has && want != nil {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if ts, _ := m["ts"].(float64); time.Since(time.Unix(int64(ts), 0)).Abs() > time.Minute {
		t.Errorf("ts is %v", m["ts"])
	}
	for _, field := range []string{"tags", "opens_detail", "clicks_detail", "smtp_events", "resends"} {
		if _, ok := m[field].([]any); !ok {
			t.Errorf("%s is %v, not a list", field, m[field])
		}
	}
	event := m["smtp_events"].([]any)[0].(object)
	for _, field := range []string{"ts", "type", "diag", "source_ip", "destination_ip", "size"} {
		if _, has := event[field]; !has {
			t.Errorf("no %s in %v", field, event)
		}
	}
	c := d.must(t, "/api/1.0/messages/content", object{"id": id}).(object)
	got, err := json.Marshal(object{"a": c["attachments"], "t": c["to"], "h": c["headers"], "x": c["text"], "y": c["html"], "s": c["subject"], "f": c["from_name"], "g": c["tags"]})
	want, _ := json.Marshal(object{"a": []object{{"name": "ä b.bin", "type": "application/x-thing", "content": base64.StdEncoding.EncodeToString(file)}}, "t": object{"email": to, "name": "Nämé"},
		"h": object{"Reply-To": "r@example.com"}, "x": "tëxt\r\n.\r\nend", "y": "<p>ä</p>", "s": "Größe ≠ 0", "f": "Frøm", "g": []string{"one"}})
	if err != nil || string(got) != string(want) {
		t.Errorf("content is %s\nwant       %s", got, want)
	}
	hidden := d.send(t, to, object{"view_content_link": false})
	d.waitMail(t, hidden)
	d.refused(t, 404, "/api/1.0/messages/content", object{"id": hidden})
	d.state(t, hidden)
}

func apiSearch(t *testing.T, d *dev) {
	ids := map[string]string{}
	for name, m := range map[string]object{
		"invoice": {"subject": "Your invoice 4711 is ready", "from_email": "billing@shop.example.com", "tags": []string{"invoice", "eu"}, "metadata": object{"order": "a"}},
		"reset":   {"subject": "Password reset", "from_email": "noreply@example.com", "tags": []string{"reset"}},
		"unicode": {"subject": "Über Größe и мир", "from_email": "noreply@example.com", "tags": []string{"eu", "größe"}},
	} {
		ids[name] = d.send(t, unique(t, name), m)
	}
	bounced := d.send(t, unique(t, "bounce"), object{"subject": "lost", "from_email": "noreply@example.com"})
	d.waitState(t, bounced, "bounced")
	find := func(what string, q object, want ...string) {
		t.Helper()
		got := d.search(t, q)
		var expected []string
		for _, w := range want {
			expected = append(expected, ids[w])
		}
		slices.Sort(got)
		slices.Sort(expected)
		if !slices.Equal(got, expected) {
			t.Errorf("%s finds %d messages %v, want %v", what, len(got), got, want)
		}
	}
	ids["bounced"] = bounced
	find("nothing asked", object{}, "invoice", "reset", "unicode", "bounced")
	find("*", object{"query": "*"}, "invoice", "reset", "unicode", "bounced")
	find("a word of the subject", object{"query": "invoice"}, "invoice")
	find("in other case", object{"query": "INVOICE Ready"}, "invoice")
	find("a number", object{"query": "4711"}, "invoice")
	find("two words of two", object{"query": "password reset"}, "reset")
	find("two words of which one is nowhere", object{"query": "password invoice"})
	find("an address", object{"query": unique(t, "reset")}, "reset")
	find("a sender", object{"query": "billing@shop.example.com"}, "invoice")
	find("unicode", object{"query": "größe"}, "unicode")
	find("cyrillic", object{"query": "МИР"}, "unicode")
	find("nothing", object{"query": "nowhere-to-be-found"})
	find("one tag", object{"tags": []string{"reset"}}, "reset")
	find("any tag", object{"tags": []string{"reset", "eu"}}, "reset", "invoice", "unicode")
	find("a tag and a word", object{"tags": []string{"eu"}, "query": "ready"}, "invoice")
	find("a part of a tag", object{"tags": []string{"invoic"}})
	find("a sender of the list", object{"senders": []string{"billing@shop.example.com"}}, "invoice")
	find("any sender", object{"senders": []string{"billing@shop.example.com", "noreply@example.com"}}, "invoice", "reset", "unicode", "bounced")
	list := d.must(t, "/api/1.0/messages/search", object{"query": "lost"}).([]any)
	if m := list[0].(object); m["state"] != "bounced" || m["email"] != unique(t, "bounce") || m["sender"] != "noreply@example.com" || m["bounce_description"] != "bad_mailbox" {
		t.Errorf("%v", m)
	}
	list = d.must(t, "/api/1.0/messages/search", object{"query": "4711"}).([]any)
	if m := list[0].(object); fmt.Sprint(m["tags"], m["metadata"]) != "[invoice eu] map[order:a]" {
		t.Errorf("%v", m)
	}
}

func apiSearchLimits(t *testing.T, d *dev) {
	to := make([]object, 120)
	for i := range to {
		to[i] = object{"email": unique(t, fmt.Sprint("r", i))}
	}
	d.results(t, mail("", object{"to": to}))
	newest := d.send(t, unique(t, "newest"))
	for limit, want := range map[any]int{nil: 100, 0: 100, -1: 100, 1: 1, 10: 10, "50": 50, 121: 121, 1000: 121, 10_000: 121} {
		if ids := d.search(t, object{"limit": limit}); len(ids) != want {
			t.Errorf("limit %v finds %d, want %d", limit, len(ids), want)
		} else if ids[0] != newest {
			t.Errorf("limit %v: the first is not the newest", limit)
		}
	}
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format(time.DateOnly) }
	moment := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(time.DateTime) }
	for _, c := range []struct {
		from, to string
		want     int
	}{{day(0), day(0), 121}, {day(-1), day(1), 121}, {day(-30), day(-2), 0}, {day(2), day(3), 0}, {moment(-time.Hour), moment(time.Hour), 121}, {moment(-2 * time.Hour), moment(-time.Hour), 0},
		{"", day(0), 121}, {day(0), "", 121}, {time.Now().Add(-time.Hour).Format(time.RFC3339), "", 121}} {
		if now := time.Now().UTC(); now.Hour() == 0 && now.Minute() < 5 {
			continue // the messages may be yesterday's
		}
		if n := len(d.search(t, object{"date_from": c.from, "date_to": c.to, "limit": 1000})); n != c.want {
			t.Errorf("from %q to %q finds %d, want %d", c.from, c.to, n, c.want)
		}
	}
}

// apiAccounts asks with one account's key for what another one has.
func apiAccounts(t *testing.T, d *dev) {
	id := d.send(t, unique(t, "mine"), object{"subject": "secret plans", "tags": []string{"private"}})
	for range 6 { // some share its server or shard
		other := d.fresh(t)
		for _, call := range []string{"info", "content"} {
			other.refused(t, 404, "/api/1.0/messages/"+call, object{"id": id})
		}
		for _, q := range []object{{}, {"query": "secret"}, {"tags": []string{"private"}}, {"senders": []string{"from@example.com"}}, {"query": unique(t, "mine")}} {
			if ids := other.search(t, q); len(ids) != 0 {
				t.Errorf("another account finds %v by %v", ids, q)
			}
		}
		if w := other.must(t, "/api/1.0/users/info", object{}).(object)["stats"].(object)["all_time"].(object); w["sent"] != 0.0 {
			t.Errorf("a fresh account has sent %v", w)
		}
	}
}

// newKey makes a key of a scope for the account of d.
func (d *dev) newKey(t *testing.T, account any, scope string) (id, key string) {
	t.Helper()
	out, stderr, code := d.command("key", "create", "--account", fmt.Sprint(account), "--scope", scope, "--json")
	var k object
	if err := json.Unmarshal([]byte(out), &k); err != nil || code != 0 || k["scope"] != scope {
		t.Fatalf("key create: %d %q %q %v", code, out, stderr, err)
	}
	return fmt.Sprint(k["id"]), k["key"].(string)
}

func apiScopes(t *testing.T, d *dev) {
	account, full := d.accountKey(t)
	d = d.as(full)
	id := d.send(t, unique(t, "a"))
	d.waitState(t, id, "sent")
	calls := []string{"users/ping", "users/ping2", "messages/send", "messages/info", "messages/content", "messages/search", "users/info"}
	for scope, allowed := range map[string][]bool{"full": {true, true, true, true, true, true, true}, "send": {true, true, true, false, false, false, false},
		"read": {true, true, false, true, true, true, true}, "test": {true, true}} {
		_, key := d.newKey(t, account["account"], scope)
		for i, may := range allowed {
			body := mail(unique(t, scope))
			body["key"], body["id"] = key, id
			want := map[bool]int{true: 200, false: 403}[may]
			if status, v, err := d.call("/api/1.0/"+calls[i], body); err != nil || status != want {
				t.Errorf("%s with a key of scope %s: %d %v %v, want %d", calls[i], scope, status, v, err, want)
			}
		}
	}
	_, key := d.newKey(t, account["account"], "test")
	if status, v, err := d.as(key).call(send, mail(unique(t, "test"))); err != nil || status != 200 && status != 403 {
		t.Errorf("%d %v %v", status, v, err)
	}
	d.waitState(t, d.send(t, unique(t, "later")), "sent")
	for _, scope := range []string{"read", "test"} {
		if n := d.mailsTo(t, unique(t, scope)); n != 0 {
			t.Errorf("a key of scope %s has sent %d mails", scope, n)
		}
	}
}

func apiRevoked(t *testing.T, d *dev) {
	account, full := d.accountKey(t)
	d = d.as(full)
	id, key := d.newKey(t, account["account"], "full")
	other := d.as(key)
	other.send(t, unique(t, "a")) // it is known and cached
	if _, stderr, code := d.command("key", "revoke", id); code != 0 {
		t.Fatalf("key revoke: %d %s", code, stderr)
	}
	wait(t, 5*time.Second, "the revoked key to stop", func() bool {
		status, _, err := other.call("/api/1.0/users/ping", object{})
		return err == nil && status == 401
	})
	for range 20 {
		other.refused(t, 401, send, mail(unique(t, "a")))
	}
	d.send(t, unique(t, "b")) // the account's other key works on
}
