package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// post makes a call of Mandrill's API and reads its answer into a place.
func (w *world) post(t *testing.T, name, rest string, into any) *http.Response {
	t.Helper()
	return w.ask(t, http.MethodPost, "/api/1.0/"+name, `{"key":"`+w.key+`"`+rest+`}`, into, nil)
}

// became sends to addresses and says what became of each: a status, and the reason of a rejection.
func (w *world) became(t *testing.T, more string, to ...string) string {
	t.Helper()
	var list, out []string
	for _, email := range to {
		list = append(list, `{"email":"`+email+`"}`)
	}
	var results []sendResult
	w.post(t, "messages/send", `,"message":{"from_email":"from@example.com","subject":"s","text":"t","to":[`+strings.Join(list, ",")+`]`+more+`}`, &results)
	for _, r := range results {
		s := r.Status
		if r.RejectReason != nil {
			s += "/" + *r.RejectReason
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// TestRejectsCalls adds, lists and deletes by Mandrill's calls, and sends in between.
func TestRejectsCalls(t *testing.T) {
	w := open(t)
	var add added
	if w.post(t, "rejects/add", `,"email":"Ann@Example.net","comment":"asked by phone"`, &add); add != (added{"Ann@Example.net", true}) {
		t.Errorf("add: %+v", add)
	}
	w.post(t, "rejects/add.json", `,"email":"bob@bücher.example"`, &add)
	if got := w.became(t, "", "ANN@example.net", "bob@xn--bcher-kva.example", "cy@example.net"); got != "rejected/custom rejected/custom sent" {
		t.Errorf("send: %s", got)
	}
	var list []map[string]any
	w.post(t, "rejects/list", `,"email":"ANN@example.net"`, &list)
	if len(list) != 1 {
		t.Fatalf("list: %v", list)
	}
	for _, at := range []string{"created_at", "last_event_at"} {
		if when, err := time.Parse(time.DateTime, fmt.Sprint(list[0][at])); err != nil || time.Since(when).Abs() > time.Minute {
			t.Errorf("%s: %v", at, list[0][at])
		}
		delete(list[0], at)
	}
	want := map[string]any{"email": "ann@example.net", "reason": "custom", "detail": "asked by phone", "expires_at": nil, "expired": false, "sender": nil, "subaccount": nil}
	if !reflect.DeepEqual(list[0], want) {
		t.Errorf("list: %v", list[0])
	}
	for rest, n := range map[string]int{"": 2, `,"email":"bob@BÜCHER.example"`: 1, `,"email":"c@example.net"`: 0} {
		if w.post(t, "rejects/list", rest, &list); len(list) != n {
			t.Errorf("list%s: %v", rest, list)
		}
	}
	var gone deletedReject
	if w.post(t, "rejects/delete", `,"email":"BOB@bücher.example"`, &gone); gone != (deletedReject{Email: "BOB@bücher.example", Deleted: true}) {
		t.Errorf("delete: %+v", gone)
	}
	var refusal errorBody
	res := w.post(t, "rejects/delete", `,"email":"bob@bücher.example"`, &refusal)
	if res.StatusCode != http.StatusNotFound || refusal.Code != 4 || refusal.Name != "Invalid_Reject" ||
		refusal.Message != "Email address is not in the rejection list and is not invalid" {
		t.Errorf("delete of what is not there: %d %+v", res.StatusCode, refusal)
	}
	if got := w.became(t, "", "bob@bücher.example"); got != "sent" {
		t.Errorf("send after the delete: %s", got)
	}
}

// TestAllowlistsCalls has the allowlist win over the do-not-send list, by both of its names.
func TestAllowlistsCalls(t *testing.T) {
	w := open(t)
	var add added
	w.post(t, "rejects/add", `,"email":"ann@example.net"`, &add)
	if w.post(t, "allowlists/add", `,"email":"Ann@example.net","comment":"the boss"`, &add); add != (added{"Ann@example.net", true}) {
		t.Errorf("add: %+v", add)
	}
	if w.post(t, "rejects/add", `,"email":"ann@example.net"`, &add); add.Added {
		t.Error("an address of the allowlist was added to the do-not-send list")
	}
	var list []allowed
	for rest, n := range map[string]int{"": 1, `,"email":"AN"`: 1, `,"email":"ann@example.net"`: 1, `,"email":"b"`: 0, `,"email":"a_"`: 0} {
		if w.post(t, "whitelists/list", rest, &list); len(list) != n {
			t.Errorf("list%s: %v", rest, list)
		}
	}
	if w.post(t, "allowlists/list", "", &list); list[0].Email != "ann@example.net" || list[0].Detail != "the boss" || len(list[0].CreatedAt) != len(time.DateTime) {
		t.Errorf("list: %+v", list)
	}
	if got := w.became(t, "", "ann@example.net"); got != "sent" {
		t.Errorf("send: %s", got)
	}
	for _, want := range []bool{true, false} {
		var gone deletedAllowed
		if w.post(t, "whitelists/delete", `,"email":"ANN@example.net"`, &gone); gone != (deletedAllowed{"ANN@example.net", want}) {
			t.Errorf("delete: %+v, want %v", gone, want)
		}
	}
	w.post(t, "rejects/add", `,"email":"ann@example.net"`, &add)
	if got := w.became(t, "", "ann@example.net"); got != "rejected/custom" {
		t.Errorf("send when the allowlist has forgotten: %s", got)
	}
}

// TestRejectsRefused walks the limits of all nine calls: each names the field, and nothing is stored.
func TestRejectsRefused(t *testing.T) {
	w := open(t)
	long, name := strings.Repeat("é", maxComment+1), strings.Repeat("s", 257)
	bad := map[string]string{`,"email":""`: "email", `,"email":"x"`: "email", `,"email":"a\r\n@b.cc"`: "email", `,"email":"a@b..c"`: "email", `,"email":["a@b.c"]`: "email"}
	for call, more := range map[string]map[string]string{
		"rejects/add":       {`,"email":"a@b.cc","comment":"` + long + `"`: "comment", `,"email":"a@b.cc","comment":"\u0000"`: "comment"},
		"allowlists/add":    {`,"email":"a@b.cc","comment":"` + long + `"`: "comment"},
		"rejects/delete":    {`,"email":"a@b.cc","subaccount":{"id":1}`: "subaccount"},
		"allowlists/delete": {}, "whitelists/add": {}, "whitelists/delete": {},
		"rejects/list":    {`,"email":"x"`: "email", `,"include_expired":"perhaps"`: "include_expired"},
		"allowlists/list": {`,"email":"\u0000"`: "email", `,"email":"` + name + `"`: "email"},
		"whitelists/list": {`,"email":{"a":1}`: "email"},
	} {
		if !strings.HasSuffix(call, "list") {
			maps.Copy(more, bad)
		}
		for rest, field := range more {
			var body errorBody
			res := w.post(t, call, rest, &body)
			if res.StatusCode != http.StatusUnprocessableEntity || body.Name != "ValidationError" || !strings.HasPrefix(body.Message, `Validation error: {"`+field+`"`) {
				t.Errorf("%s%.60s: %d %+v", call, rest, res.StatusCode, body)
			}
		}
	}
	for _, call := range []string{"rejects/add", "rejects/list", "rejects/delete"} {
		var body errorBody
		if res := w.post(t, call, `,"email":"a@b.cc","subaccount":"shop"`, &body); res.StatusCode != http.StatusNotFound || body.Name != "Unknown_Subaccount" {
			t.Errorf("%s of a subaccount: %d %+v", call, res.StatusCode, body)
		}
	}
	var list []any
	if w.post(t, "rejects/list", `,"include_expired":true`, &list); len(list) != 0 {
		t.Errorf("listed: %v", list)
	}
}

// TestRejectsScopes has keys for sending and for reading change neither list.
func TestRejectsScopes(t *testing.T) {
	methods := bare().methods()
	for name, m := range methods {
		list := strings.HasPrefix(name, "rejects/") || strings.HasPrefix(name, "allowlists/") || strings.HasPrefix(name, "whitelists/")
		if list && (len(m.scopes) > 0) != strings.HasSuffix(name, "/list") {
			t.Errorf("%s may be called by %v", name, m.scopes)
		}
	}
}

// TestRejectOfABounce shows an entry that the ledger made, with the other host's words.
func TestRejectOfABounce(t *testing.T) {
	w := open(t)
	sent := w.send(t, `"to":[{"email":"Gone@example.net"}]`, nil)
	id, err := sender.ParseID(sent[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	w.record(t, &store.Fact{Account: w.account, Message: id, Attempt: 1, State: sender.Bounced, Kind: sender.EventBounced, At: time.Now(),
		Reply:  sender.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user", Stage: "rcpt", Host: "mx"},
		Reject: "Gone@example.net", Reason: sender.ReasonHardBounce})
	var list []listedReject
	w.post(t, "rejects/list", "", &list)
	if len(list) != 1 || list[0].Email != "gone@example.net" || list[0].Reason != "hard-bounce" || list[0].Detail != "550 5.1.1 No such user" {
		b, _ := json.Marshal(list)
		t.Fatalf("list: %s", b)
	}
	until, err := time.Parse(time.DateTime, *list[0].ExpiresAt)
	if err != nil || (time.Until(until)-7*24*time.Hour).Abs() > time.Minute {
		t.Errorf("until %s", *list[0].ExpiresAt)
	}
}
