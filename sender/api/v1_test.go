package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// TestProblemTypes walks all kinds of error: each has a type of its own that is explained at its address.
func TestProblemTypes(t *testing.T) {
	seen := map[string]bool{}
	for k := sender.KindInternal; k <= sender.KindUnavailable; k++ {
		p := problemTypes[k]
		if p.name == "" || p.title == "" || p.advice == "" || seen[p.name] {
			t.Errorf("kind %d: %+v", k, p)
		}
		seen[p.name] = true
		if res, body := do(bare(), http.MethodGet, problemPath+p.name, ""); res.StatusCode != 200 || body != p.title+"\n\n"+p.advice+"\n" {
			t.Errorf("%s: %d %s", p.name, res.StatusCode, body)
		}
	}
	if len(problemTypes) != len(seen) {
		t.Errorf("%d rows for %d kinds", len(problemTypes), len(seen))
	}
	if res, _ := do(bare(), http.MethodGet, problemPath+"nothing", ""); res.StatusCode != 404 {
		t.Errorf("a type that there is not: %d", res.StatusCode)
	}
}

func mailOf(t *testing.T, body string) (*sender.Submission, error) {
	t.Helper()
	return readMail(mustDecode(t, "", body), nil)
}

// TestMailFields has the reader know each field of the table: a value that fits none of them is refused by its name.
func TestMailFields(t *testing.T) {
	for _, name := range mailFields {
		caught := false
		for _, bad := range []string{`[[]]`, `{"x":[[]]}`, `"x"`} {
			_, err := mailOf(t, `{"from_email":"f@x.y","`+name+`":`+bad+`}`)
			var e *sender.Error
			if errors.As(err, &e) && strings.HasPrefix(e.Field, name) && !strings.Contains(e.Message, "is not a field") {
				caught = true
			}
		}
		if !caught {
			t.Errorf("%s is in the table and nobody reads it", name)
		}
	}
	for _, list := range mailLists {
		for _, field := range list.fields {
			_, err := mailOf(t, `{"from_email":"f@x.y","`+list.name+`":[{"`+field+`":[[]]}]}`)
			wrong(t, err, list.name+"[0]."+field)
		}
	}
}

// TestSameReader has both APIs make the same submission of the same message.
func TestSameReader(t *testing.T) {
	const fields = `"from_email":"f@x.y","from_name":"F","subject":"s","html":"<p>","text":"t","to":[{"email":"a@x.y","type":"cc"}],"headers":{"X-A":"a"},
		"tags":["one"],"metadata":{"n":1},"recipient_metadata":[{"rcpt":"a@x.y","values":{"id":7}}],"attachments":[{"type":"a/b","name":"f","content":"aGk="}],
		"preserve_recipients":true,"important":true,"auto_text":true,"view_content_link":false`
	theirs, err := readSubmission(mustDecode(t, "", `{"send_at":"2026-01-31 12:00:00","message":{`+fields+`}}`), http.Header{expiresHeader: {"2026-02-01"}})
	if err != nil {
		t.Fatal(err)
	}
	own, err := mailOf(t, `{"send_at":1769860800,"expires_at":"2026-02-01T00:00:00Z",`+fields+`}`)
	if err != nil || !reflect.DeepEqual(own, theirs) || own.ExpiresAt.IsZero() || own.SendAt.IsZero() {
		t.Errorf("%+v\n%+v\n%v", own, theirs, err)
	}
}

// TestMailRefused has every slip be named as the caller wrote it.
func TestMailRefused(t *testing.T) {
	for body, path := range map[string]string{
		`"subjet":"s"`: "subjet", `"key":"k"`: "key", `"message":{}`: "message", `"to":[{"email":"a@x.y"},{"mail":"b@x.y"}]`: "to[1].mail",
		`"images":[{"cid":"x"}]`: "images[0].cid", `"to":[{"type":"all"}]`: "to[0].type", `"expires_at":"soon"`: "expires_at", `"send_at":1`: "send_at",
		`"headers":{"X-Postrider-Expires-At":"soon"}`: "headers.X-Postrider-Expires-At", `"merge_vars":[{}]`: "merge_vars", `"merge":true`: "merge",
		`"expires_at":1769860800,"headers":{"X-Postrider-Expires-At":1769860801}`: "headers.X-Postrider-Expires-At",
		`"to":[` + strings.Repeat(`{},`, 1000) + `{}]`:                            "to",
	} {
		_, err := mailOf(t, `{"from_email":"f@x.y",`+body+`}`)
		wrong(t, err, path)
	}
	_, err := mailOf(t, `{"to":[{"email":"a@x.y"}]}`)
	wrong(t, err, "from_email")
	if s, err := mailOf(t, `{"from_email":"f@x.y","tags":["`+strings.Repeat(`t","`, 100)+`last"]}`); err != nil || len(s.Tags) != 101 {
		t.Errorf("tags must not be dropped unseen: %v", err) // the door refuses them
	}
}

// TestV1Routes has what is no call be a problem, and the key be asked for before the body is read.
func TestV1Routes(t *testing.T) {
	a := bare()
	for path, verb := range map[string]string{"/v1": "GET", "/v1/nothing": "POST", "/v1/messages": "GET", "/v1/messages/x": "DELETE"} {
		res, body := do(a, verb, path, "")
		if res.StatusCode != 404 || !strings.Contains(body, `"/problems/unknown-call"`) || !strings.Contains(body, verb+" "+path) || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", verb, path, res.StatusCode, body)
		}
	}
	for _, authorization := range []string{"", "Bearer", "Bearer  ", "Basic a2V5", "key"} {
		r := httptest.NewRequest(http.MethodPost, "/v1/messages/", strings.NewReader("[")) // which would be malformed
		r.Header.Set("Authorization", authorization)
		rec := httptest.NewRecorder()
		a.server.Handler.ServeHTTP(rec, r)
		if rec.Code != 401 || !strings.Contains(rec.Body.String(), "Authorization: Bearer KEY") || !strings.HasPrefix(rec.Header().Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%q: %d %s", authorization, rec.Code, rec.Body)
		}
	}
}

func TestV1Keys(t *testing.T) {
	w := open(t)
	ctx := context.Background()
	scoped := func(s shards.Scope) header {
		_, key, err := w.Shards.CreateKey(ctx, w.account, s)
		if err != nil {
			t.Fatal(err)
		}
		return header{"Authorization": "bearer " + key}
	}
	read, send := scoped(shards.ScopeRead), scoped(shards.ScopeSend)
	id := w.send(t, `"to":[{"email":"a@example.net"}]`, send)[0].ID
	if res := w.ask(t, http.MethodGet, "/v1/messages/"+id, "", nil, read); res.StatusCode != 200 {
		t.Errorf("a key that reads: %d", res.StatusCode)
	}
	w.refused(t, http.MethodGet, "/v1/messages/"+id, "", "forbidden", send)
	w.refused(t, http.MethodPost, "/v1/messages", `{}`, "forbidden", read)
	w.refused(t, http.MethodPost, "/v1/messages/"+id+"/cancel", ``, "forbidden", read)
	w.refused(t, http.MethodPost, "/v1/messages/"+id+"/reschedule", ``, "forbidden", read)
	w.refused(t, http.MethodGet, "/v1/messages/"+id, "", "invalid-key", header{"Authorization": "Bearer " + strings.Repeat("x", 40)})
	_, key, err := w.Shards.CreateAccount(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	w.refused(t, http.MethodGet, "/v1/messages/"+id, "", "unknown-message", header{"Authorization": "Bearer " + key})
}

// TestRefusalIsRead has a client that writes its whole body before it reads be told that its key is wrong, not be cut off.
func TestRefusalIsRead(t *testing.T) {
	w := open(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	const size = 20 << 20
	_, _ = fmt.Fprintf(c, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\nContent-Length: %d\r\n\r\n", size)
	if _, err := io.WriteString(c, strings.Repeat(" ", size)); err != nil {
		t.Fatalf("cut off: %v", err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("an unknown key: %d", res.StatusCode)
	}
}

func TestV1Send(t *testing.T) {
	w := open(t)
	expires := time.Now().Add(30 * time.Minute).Truncate(time.Second).UTC()
	got := w.send(t, `"to":[{"email":"a@example.net","name":"A"},{"email":"bad"}],"headers":{"X-Postrider-Expires-At":"`+expires.Format(time.RFC3339)+`","X-A":"a"}`, nil)
	if len(got) != 2 || got[0].Email != "a@example.net" || got[0].Status != "queued" || got[0].Reason != "" || got[1].Status != "invalid" {
		t.Errorf("%+v", got)
	}
	sub := w.handed(t)
	if !sub.ExpiresAt.Equal(expires) || !slices.Equal(sub.Content.Headers, []sender.Header{{Name: "X-A", Value: "a"}}) {
		t.Errorf("expires %v, headers %v", sub.ExpiresAt, sub.Content.Headers)
	}
	var m v1Message
	w.ask(t, http.MethodGet, "/v1/messages/"+got[0].ID, "", &m, nil)
	if m.ID != got[0].ID || m.State != "queued" || m.Email != "a@example.net" || m.Name != "A" || m.From != "from@example.com" || m.Subject != "s" ||
		m.Attempts != 1 || !m.ExpiresAt.Equal(expires) || time.Since(m.CreatedAt) > time.Minute || m.Events == nil || m.Tags == nil || m.Metadata == nil {
		t.Errorf("%+v", m)
	}
	const mail = `{"from_email":"f@example.com","to":[{"email":"a@example.net"}]`
	for body, field := range map[string]string{mail + `,"subjet":"s"}`: "subjet", `{"from_email":"f@example.com"}`: "to", mail + `,"expires_at":1769860800}`: "expires_at",
		mail + `,"subject":"a\nb"}`: "subject", mail + `,"from_name":7,"to":[]}`: "to"} {
		if p := w.refused(t, http.MethodPost, "/v1/messages", body, "validation", nil); p.Field != field || p.Status != 422 {
			t.Errorf("%s: %+v", body, p)
		}
	}
	w.refused(t, http.MethodPost, "/v1/messages", `{"to":`, "malformed", nil)
	w.refused(t, http.MethodPost, "/v1/messages", "from_email=f%40example.com", "malformed", header{"Content-Type": "application/x-www-form-urlencoded"})
	if p := w.refused(t, http.MethodPost, "/v1/messages", mail+`,"expires_at":4102444800}`, "validation", header{expiresHeader: "4102444801"}); p.Field != expiresHeader {
		t.Errorf("two times: %+v", p)
	}
	if p := w.refused(t, http.MethodPost, "/v1/messages", mail+`}`, "validation", header{expiresHeader: "1769860800"}); p.Field != "expires_at" {
		t.Errorf("in the past: %+v", p)
	}
}

// inDays is a time as Unix seconds.
func inDays(n int) string { return strconv.FormatInt(time.Now().AddDate(0, 0, n).Unix(), 10) }

// TestV1Once has a repeat be answered as the first, and a changed request, its header included, be refused.
func TestV1Once(t *testing.T) {
	w := open(t)
	first := header{"Idempotency-Key": "k", expiresHeader: inDays(300)}
	a, b := w.send(t, `"to":[{"email":"a@example.net"}]`, first), w.send(t, `"to":[{"email":"a@example.net"}]`, first)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v, then %+v", a, b)
	}
	const mail = `{"from_email":"from@example.com","subject":"s","text":"t","to":[{"email":"a@example.net"}]}`
	w.refused(t, http.MethodPost, "/v1/messages", mail, "conflict", header{"Idempotency-Key": "k", expiresHeader: inDays(301)})
	if p := w.refused(t, http.MethodPost, "/v1/messages", mail, "conflict", header{"Idempotency-Key": "k"}); p.Status != 409 {
		t.Errorf("%+v", p)
	}
}

func TestV1Schedule(t *testing.T) {
	w := open(t)
	at := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	sent := w.send(t, `"to":[{"email":"a@example.net"}],"send_at":"`+at.Format(time.RFC3339)+`"`, nil)[0]
	path := "/v1/messages/" + sent.ID
	var m v1Message
	if w.ask(t, http.MethodGet, path, "", &m, nil); sent.Status != "scheduled" || m.State != "scheduled" || !m.SendAt.Equal(at) || !m.NextAt.IsZero() {
		t.Errorf("%+v, %+v", sent, m)
	}
	perishable := w.send(t, `"to":[{"email":"a@example.net"}],"send_at":"`+at.Format(time.RFC3339)+`","expires_at":"`+at.Add(30*time.Minute).Format(time.RFC3339)+`"`, nil)[0]
	if p := w.refused(t, http.MethodPost, "/v1/messages/"+perishable.ID+"/reschedule", `{"send_at":"`+at.Add(time.Hour).Format(time.RFC3339)+`"}`, "validation", nil); p.Field != "send_at" {
		t.Errorf("to a time after it expires: %+v", p)
	}
	var s v1Scheduled
	later := at.Add(time.Hour)
	res := w.ask(t, http.MethodPost, path+"/reschedule", `{"send_at":"`+later.Format(time.RFC3339)+`"}`, &s, nil)
	if res.StatusCode != 200 || s.ID != sent.ID || s.State != "scheduled" || !s.SendAt.Equal(later) || !w.last().Equal(later) {
		t.Errorf("%d %+v, the dispatcher knows %v", res.StatusCode, s, w.last())
	}
	for body, field := range map[string]string{`{}`: "send_at", ``: "send_at", `{"send_at":"x"}`: "send_at", `{"send_at":4102444800}`: "send_at", `{"at":1}`: "at"} {
		if p := w.refused(t, http.MethodPost, path+"/reschedule", body, "validation", nil); p.Field != field {
			t.Errorf("%s: %+v", body, p)
		}
	}
	if p := w.refused(t, http.MethodPost, path+"/cancel", `{"id":1}`, "validation", nil); p.Field != "id" {
		t.Errorf("%+v", p)
	}
	if res := w.ask(t, http.MethodPost, path+"/cancel", "", &s, nil); res.StatusCode != 200 || s.State != "cancelled" {
		t.Errorf("%d %+v", res.StatusCode, s)
	}
	if w.ask(t, http.MethodGet, path, "", &m, nil); m.State != "cancelled" || len(m.Events) != 1 || m.Events[0].Kind != "cancelled" {
		t.Errorf("%+v", m)
	}
	for _, call := range []string{"/cancel", "/reschedule"} {
		body := map[string]string{"/cancel": "", "/reschedule": `{"send_at":"` + later.Format(time.RFC3339) + `"}`}[call]
		if p := w.refused(t, http.MethodPost, path+call, body, "conflict", nil); !strings.Contains(p.Detail, "cancelled") {
			t.Errorf("%s: %+v", call, p)
		}
		for _, id := range []string{sender.NewID().String(), "x"} {
			w.refused(t, http.MethodPost, "/v1/messages/"+id+call, body, "unknown-message", nil)
		}
	}
}

// TestV1Events shows how attempts ended, with what the other host said.
func TestV1Events(t *testing.T) {
	w := open(t)
	sent := w.send(t, `"to":[{"email":"a@example.net"},{"email":"b@example.net"}],"tags":["t"],"metadata":{"n":1}`, nil)
	next := time.Now().Add(time.Hour).Truncate(time.Second)
	for i, f := range []store.Fact{
		{State: sender.Deferred, Kind: sender.EventDeferred, Next: next, Reply: sender.Reply{Code: 451, Enhanced: "4.7.1", Text: "later", Stage: "rcpt", Host: "mx.example.net"}},
		{State: sender.SoftBounced, Kind: sender.EventSoftBounced, Reply: sender.Reply{Text: "no address", Stage: "dns"}},
	} {
		id, err := sender.ParseID(sent[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		f.Account, f.Message, f.Attempt, f.At = w.account, id, 1, time.Now()
		w.record(t, &f)
	}
	var m v1Message
	w.ask(t, http.MethodGet, "/v1/messages/"+sent[0].ID, "", &m, nil)
	if m.State != "deferred" || !m.NextAt.Equal(next) || len(m.Events) != 1 || m.Events[0].Kind != "deferred" || m.Events[0].Attempt != 1 || time.Since(m.Events[0].At) > time.Minute ||
		m.Events[0].Reply != (v1Reply{451, "4.7.1", "later", "rcpt", "mx.example.net"}) || !slices.Equal(m.Tags, []string{"t"}) || m.Metadata["n"] != "1" {
		t.Errorf("%+v", m)
	}
	submission := m.Submission
	m = v1Message{}
	w.ask(t, http.MethodGet, "/v1/messages/"+sent[1].ID, "", &m, nil)
	if m.State != "soft_bounced" || !m.NextAt.IsZero() || len(m.Events) != 1 || m.Events[0].Kind != "soft_bounced" || m.Events[0].Reply != (v1Reply{Text: "no address", Stage: "dns"}) || m.Submission != submission {
		t.Errorf("%+v", m)
	}
	w.refused(t, http.MethodGet, "/v1/messages/"+sender.NewID().String(), "", "unknown-message", nil)
	w.refused(t, http.MethodGet, "/v1/messages/x", "", "unknown-message", nil)
}

// TestMandrillExpiry has the header of the request reach the door from Mandrill's call too.
func TestMandrillExpiry(t *testing.T) {
	w := open(t)
	body := `{"key":"` + w.key + `","message":{"from_email":"f@example.com","text":"t","to":[{"email":"a@example.net"}]}}`
	var sent []sendResult
	at := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	if res := w.ask(t, http.MethodPost, "/api/1.0/messages/send.json", body, &sent, header{expiresHeader: at.Format(time.RFC3339)}); res.StatusCode != 200 || len(sent) != 1 || sent[0].Status != "sent" {
		t.Fatalf("%d %+v", res.StatusCode, sent)
	}
	if sub := w.handed(t); !sub.ExpiresAt.Equal(at) {
		t.Errorf("expires %v", sub.ExpiresAt)
	}
	var e errorBody
	if res := w.ask(t, http.MethodPost, "/api/1.0/messages/send.json", body, &e, header{expiresHeader: "1769860800"}); res.StatusCode != 422 || !strings.HasPrefix(e.Message, `Validation error: {"Postrider-Expires-At":`) {
		t.Errorf("in the past: %d %+v", res.StatusCode, e)
	}
}
