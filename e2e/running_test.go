package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestRunning holds everything that can share one running system. Each group works in accounts of its own.
func TestRunning(t *testing.T) {
	t.Parallel()
	d := start(t, folder(t))
	for _, g := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{
		{"outcomes", testOutcomes},
		{"idempotency", testIdempotency},
		{"bad", testBad},
		{"api", testAPI},
		{"mime", testMIME},
		{"sdk", testSDK},
		{"cli", testCLI},
		{"schedule", testSchedule},
		{"identity", testIdentity},
	} {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			g.run(t, d)
		})
	}
}

// as is the same system, called with another key.
func (d *dev) as(key string) *dev {
	other := *d
	other.Key = key
	return &other
}

// fresh is the same system, called with the key of an account made for this test.
func (d *dev) fresh(t *testing.T) *dev {
	t.Helper()
	_, key := d.accountKey(t)
	return d.as(key)
}

// refused makes a call that must fail with this status, in the one shape that errors have.
func (d *dev) refused(t *testing.T, status int, path string, body object, header ...string) string {
	t.Helper()
	got, v, err := d.call(path, body, header...)
	return refusal(t, status, got, v, err)
}

func refusal(t *testing.T, want, got int, v any, err error) string {
	t.Helper()
	o, _ := v.(object)
	message, _ := o["message"].(string)
	name, _ := o["name"].(string)
	if _, isNumber := o["code"].(float64); err != nil || got != want || o["status"] != "error" || name == "" || message == "" || !isNumber {
		t.Errorf("got %d %v %v, want %d and an error object", got, v, err, want)
	}
	return message
}

// search is the ids that messages/search finds.
func (d *dev) search(t *testing.T, query object) []string {
	t.Helper()
	list := d.must(t, "/api/1.0/messages/search", query).([]any)
	ids := make([]string, len(list))
	for i, m := range list {
		ids[i] = m.(object)["_id"].(string)
	}
	return ids
}

// results are the entries of a send's answer.
func (d *dev) results(t *testing.T, body object, header ...string) []object {
	t.Helper()
	list := d.must(t, "/api/1.0/messages/send", body, header...).([]any)
	out := make([]object, len(list))
	for i, r := range list {
		out[i] = r.(object)
	}
	return out
}

// unique is an address at a domain that no other test mails to.
func unique(t *testing.T, local string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	return fmt.Sprintf("%s@%s.example.net", local, strings.Trim(name[max(0, len(name)-60):], "-"))
}

// mailsTo is how many mails for an address are in the inbox.
func (d *dev) mailsTo(t *testing.T, address string) int {
	t.Helper()
	var list inboxList
	d.inbox(t, "/api/v1/search?limit=10000&query=to:"+address, &list)
	return len(list.Messages)
}
