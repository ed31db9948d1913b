package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// testAPI is what honest clients do.
func testAPI(t *testing.T, d *dev) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{
		{"paths", apiPaths}, {"users", apiUsers}, {"all fields", apiFields}, {"lenient", apiLenient}, {"forms", apiForms}, {"recipients", apiRecipients},
		{"invalid sender", apiInvalidSender}, {"features to come", apiLater}, {"info and content", apiInfo}, {"search", apiSearch}, {"search dates and limits", apiSearchLimits},
		{"accounts apart", apiAccounts}, {"scopes", apiScopes}, {"revoked", apiRevoked}, {"health", apiHealth},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, d.fresh(t))
		})
	}
}

// apiPaths calls everything by every path that clients in use make.
func apiPaths(t *testing.T, d *dev) {
	id := d.send(t, unique(t, "a"))
	for _, version := range []string{"1.0", "1.1", "1.2", "1.3", "1.4"} {
		for _, call := range []string{"users/ping", "users/ping2", "users/info", "messages/send", "messages/info", "messages/content", "messages/search"} {
			for _, form := range []string{"/api/%s/%s", "/api/%s/%s.json", "//api/%s//%s", "/api/%s//%s.json", "/api/%s/%s/", "/api//%s/%s.json/", "/api/%s/%s//"} {
				path := fmt.Sprintf(form, version, call)
				body := mail(unique(t, "a"))
				body["id"] = id
				if status, v, err := d.call(path, body); err != nil || status != 200 {
					t.Errorf("%s: %d %v %v", path, status, v, err)
				}
			}
		}
	}
}

func apiUsers(t *testing.T, d *dev) {
	if v := d.must(t, "/api/1.0/users/ping.json", object{}); v != "PONG!" {
		t.Errorf("ping: %v", v)
	}
	if v := d.must(t, "/api/1.0/users/ping2", object{}); fmt.Sprint(v) != "map[PING:PONG!]" {
		t.Errorf("ping2: %v", v)
	}
	d.waitState(t, d.send(t, unique(t, "a")), "sent")
	d.waitState(t, d.send(t, unique(t, "bounce")), "bounced")
	info := d.must(t, "/api/1.0/users/info", object{}).(object)
	if _, err := time.Parse(time.DateTime, info["created_at"].(string)); err != nil {
		t.Error(err)
	}
	for _, field := range []string{"username", "public_id", "reputation", "hourly_quota", "backlog"} {
		if info[field] == nil {
			t.Errorf("no %s in %v", field, info)
		}
	}
	for _, span := range []string{"today", "last_7_days", "last_30_days", "last_60_days", "last_90_days", "all_time"} {
		w, _ := info["stats"].(object)[span].(object)
		if w["sent"] != float64(2) || // the bounced one too was sent
			w["hard_bounces"] != float64(1) || w["unique_clicks"] != float64(0) {
			t.Errorf("%s: %v", span, w)
		}
	}
	if info["message"] != nil || info["code"] != nil {
		t.Errorf("clients take an answer with message or code for an error: %v", info)
	}
}

// apiFields sends with every field that a message can have.
func apiFields(t *testing.T, d *dev) {
	to := unique(t, "all")
	body := object{"key": d.Key, "async": false, "ip_pool": "Main Pool", "send_at": "2020-01-02 03:04:05", "unknown": object{"x": 1}, "message": object{
		"html": "<p>Example</p>", "text": "Example", "subject": "everything", "from_email": "from@example.com", "from_name": "Example Name",
		"to":      []object{{"email": to, "name": "Recipient Name", "type": "to"}, {"email": unique(t, "cc"), "name": "C", "type": "cc"}, {"email": unique(t, "bcc"), "type": "bcc"}},
		"headers": object{"Reply-To": "reply@example.com", "X-Number": 7, "X-None": nil}, "important": true, "track_opens": nil, "track_clicks": nil, "auto_text": nil, "auto_html": nil,
		"inline_css": nil, "url_strip_qs": nil, "preserve_recipients": nil, "view_content_link": nil, "bcc_address": unique(t, "copy"), "tracking_domain": nil, "signing_domain": nil,
		"return_path_domain": nil, "merge": false, "merge_language": "mailchimp", "global_merge_vars": []any{}, "merge_vars": []any{}, "tags": []string{"password-resets", "ünï"},
		"subaccount": nil, "google_analytics_domains": []string{}, "google_analytics_campaign": "campaign@example.com", "metadata": object{"website": "www.example.com", "n": 5},
		"recipient_metadata": []object{{"rcpt": to, "values": object{"user_id": 123456, "website": "own"}}},
		"attachments":        []object{{"type": "text/plain", "name": "myfile.txt", "content": "ZXhhbXBsZSBmaWxl"}},
		"images":             []object{{"type": "image/png", "name": "IMAGECID", "content": "ZXhhbXBsZSBmaWxl"}}, "track": true,
	}}
	r := d.results(t, body)
	if len(r) != 3 {
		t.Fatalf("%v", r)
	}
	for _, x := range r {
		id, _ := x["_id"].(string)
		why, has := x["reject_reason"]
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || x["status"] != "sent" || why != nil || !has {
			t.Errorf("%v", x)
		}
	}
	m := d.waitState(t, r[0]["_id"].(string), "sent")
	if got := fmt.Sprint(m["tags"], m["metadata"]); got != "[password-resets ünï] map[n:5 user_id:123456 website:own]" {
		t.Errorf("tags and metadata are %s", got)
	}
	if got := fmt.Sprint(d.waitState(t, r[1]["_id"].(string), "sent")["metadata"]); got != "map[n:5 website:www.example.com]" {
		t.Errorf("the second recipient's metadata are %s", got)
	}
	if n := d.mailsTo(t, unique(t, "copy")); n > 3 {
		t.Errorf("%d copies for three recipients", n)
	}
	for _, at := range []string{"2020-01-02 03:04:05", "2020-01-02T03:04:05Z", "2020-01-02T03:04:05+02:00", "2020-01-02", ""} {
		body["send_at"] = at // in the past: now
		if r := d.results(t, body); r[0]["status"] != "sent" {
			t.Errorf("send_at %q: %v", at, r)
		}
	}
}

// apiLenient sends what clients in use really send, and what strict JSON would not take.
func apiLenient(t *testing.T, d *dev) {
	for name, fields := range map[string]object{
		"null everywhere": {"html": nil, "from_name": nil, "headers": nil, "tags": nil, "metadata": nil, "attachments": nil, "images": nil, "merge_vars": nil, "global_merge_vars": nil,
			"recipient_metadata": nil, "bcc_address": nil, "important": nil, "google_analytics_domains": nil},
		"objects for lists": {"attachments": object{}, "images": object{}, "tags": object{}, "merge_vars": object{}, "global_merge_vars": object{}, "recipient_metadata": object{}, "google_analytics_domains": object{}},
		"lists for objects": {"headers": []any{}, "metadata": []any{}}, "numbers": {"subject": 17, "text": 3.5, "from_name": 1, "metadata": object{"a": 1, "b": true, "c": nil}, "headers": object{"X-N": 5, "X-B": true}, "tags": []any{1, "b"}},
		"booleans as text": {"important": "true", "track_opens": "false", "auto_text": "1", "preserve_recipients": 0, "track_clicks": ""}, "header twice": {"headers": object{"X-A": []string{"1", "2"}}},
		"empty strings": {"html": "", "bcc_address": "", "return_path_domain": "", "subaccount": "", "google_analytics_campaign": "", "from_name": "", "subject": ""},
		"campaign list": {"google_analytics_campaign": []string{"a"}}, "base64 in lines": {"attachments": []object{{"type": "text/plain", "name": "a", "content": "aGVs\r\nbG8="}}},
		"base64 without padding": {"attachments": []object{{"type": "text/plain", "name": "a", "content": "aGVsbG8"}}}, "null in recipient": {"to": []object{{"email": unique(t, "a"), "name": nil, "type": nil}}},
		"list in recipient metadata": {"recipient_metadata": []object{{"rcpt": unique(t, "a"), "values": []any{}}}}, "odd keys": {"track": []any{object{}}, "template_content": nil},
		"many tags": {"tags": strings.Split(strings.Repeat("t,", 150)+"t", ",")}, "X-MC header": {"headers": object{"X-MC-Track": "opens"}}, "no text at all": {"text": ""},
	} {
		t.Run(name, func(t *testing.T) {
			id := d.send(t, unique(t, "a"), fields)
			d.waitState(t, id, "sent")
		})
	}
	text := fmt.Sprintf(`{"key":%q,"message":{"from_email":"a@example.com","to":[{"email":%q}]}}`, d.Key, unique(t, "a"))
	for _, kind := range []string{"", "text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "nonsense;;", "multipart/form-data"} {
		if status, v, err := d.post(send, []byte("  \n"+text+"\n"), "Content-Type", kind); err != nil || status != 200 {
			t.Errorf("as %q: %d %v %v", kind, status, v, err)
		}
	}
	for name, q := range map[string]object{"number as text": {"limit": "50"}, "nulls": {"query": nil, "date_from": nil, "tags": nil, "limit": nil}, "object for list": {"tags": object{}, "senders": object{}},
		"empty": {"query": "", "date_from": "", "date_to": "", "limit": ""}, "star": {"query": "*"}} {
		if len(d.search(t, q)) == 0 {
			t.Errorf("search with %s finds nothing", name)
		}
	}
}

// apiForms sends as browsers and old libraries do.
func apiForms(t *testing.T, d *dev) {
	form := url.Values{"key": {d.Key}, "message[html]": {"<p>Grüße & mehr</p>"}, "message[subject]": {"a form"}, "message[from_email]": {"from@example.com"}, "message[to][0][email]": {unique(t, "one")},
		"message[to][0][name]": {"Ünö"}, "message[to][1][email]": {unique(t, "two")}, "message[tags][]": {"x", "y"}, "message[headers][Reply-To]": {"r@example.com"}, "message[metadata][k]": {"v"},
		"message[important]": {"true"}, "async": {"false"}, "message[attachments][0][type]": {"text/plain"}, "message[attachments][0][name]": {"a.txt"}, "message[attachments][0][content]": {"aGVsbG8="}}
	status, v, err := d.post("/api/1.0/messages/send.json", []byte(form.Encode()), "Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	if list, ok := v.([]any); err != nil || status != 200 || !ok || len(list) != 2 {
		t.Fatalf("%d %v %v", status, v, err)
	}
	id := v.([]any)[0].(object)["_id"].(string)
	m := d.waitState(t, id, "sent")
	if got := fmt.Sprintf("%v %v %v %v", m["email"], m["subject"], m["tags"], m["metadata"]); got != unique(t, "one")+" a form [x y] map[k:v]" {
		t.Errorf("stored: %s", got)
	}
	c := d.must(t, "/api/1.0/messages/content", object{"id": id}).(object)
	if c["html"] != "<p>Grüße & mehr</p>" || len(c["attachments"].([]any)) != 1 {
		t.Errorf("content: %v", c)
	}
}

// apiRecipients holds every entry of `to` to its own answer, id and mail.
func apiRecipients(t *testing.T, d *dev) {
	same := unique(t, "same")
	to := []object{{"email": same}, {"email": "no at"}, {"email": same}, {"email": unique(t, "x") + "."}, {"email": ""}, {"email": `"q"@example.net`}, {"email": unique(t, "last")},
		{"email": "a@example.net, b@example.net"}, {"email": "A <a@example.net>"}, {"email": "ü@bücher.example.net"}, {"name": "nobody"}}
	r := d.results(t, mail("", object{"to": to}), "X-Unknown", "x")
	if len(r) != len(to) {
		t.Fatalf("%d answers for %d recipients", len(r), len(to))
	}
	seen := map[any]bool{}
	for i, want := range []string{"queued", "invalid", "queued", "invalid", "invalid", "invalid", "queued", "invalid", "invalid", "queued", "invalid"} {
		email, _ := to[i]["email"].(string)
		if r[i]["status"] != want || r[i]["email"] != email {
			t.Errorf("%v was answered %v, want %s", to[i], r[i], want)
		}
		if want == "invalid" && r[i]["reject_reason"] != "invalid" {
			t.Errorf("the reason of %v", r[i])
		}
		if id := r[i]["_id"]; id != nil && id != "" && seen[id] {
			t.Errorf("two have the id %v", id)
		}
		seen[r[i]["_id"]] = true
	}
	for _, i := range []int{0, 2, 6, 9} {
		d.waitState(t, r[i]["_id"].(string), "sent")
		d.waitMail(t, r[i]["_id"].(string))
	}
	if n := d.mailsTo(t, same); n != 2 {
		t.Errorf("%d mails for an address that stands twice in to", n)
	}
	if r := d.results(t, mail(unique(t, "alone"))); r[0]["status"] != "sent" || r[0]["queued_reason"] != nil {
		t.Errorf("one recipient: %v", r)
	}
	body := mail(unique(t, "alone"))
	body["async"] = true
	if r := d.results(t, body); r[0]["status"] != "queued" {
		t.Errorf("async: %v", r)
	}
}

func apiInvalidSender(t *testing.T, d *dev) {
	for _, from := range []any{nil, ""} {
		r := d.results(t, mail(unique(t, "a"), object{"from_email": from}))[0]
		if r["status"] != "rejected" || r["reject_reason"] != "invalid-sender" {
			t.Errorf("from %v: %v", from, r)
		}
	}
	d.waitState(t, d.send(t, unique(t, "later")), "sent")
	if n := d.mailsTo(t, unique(t, "a")); n != 0 {
		t.Errorf("%d mails were sent", n)
	}
}

// apiLater uses what a version may not have yet: then it says so, and never sends a mail that is wrong without it.
func apiLater(t *testing.T, d *dev) {
	for field, v := range map[string]any{"global_merge_vars": []object{{"name": "WHO", "content": "merged"}}, "inline_css": true, "google_analytics_domains": []string{"example.com"}} {
		body := mail(unique(t, "a"), object{"html": `<style>p{color:red}</style><p>*|WHO|* <a href="http://example.com/">x</a></p>`, field: v})
		status, answer, err := d.call(send, body)
		if status == 200 {
			raw := string(d.waitMail(t, answer.([]any)[0].(object)["_id"].(string)))
			if field == "global_merge_vars" && strings.Contains(raw, "WHO") {
				t.Errorf("the mail went out with %s not applied", field)
			}
		} else if text := refusal(t, 422, status, answer, err); !strings.Contains(text, field) {
			t.Errorf("%q does not name %s", text, field)
		}
	}
	body := mail(unique(t, "later"))
	body["send_at"] = time.Now().UTC().Add(time.Hour).Format(time.DateTime)
	status, answer, err := d.call(send, body)
	if status != 200 {
		refusal(t, 422, status, answer, err)
	} else if r := answer.([]any)[0].(object); r["status"] != "scheduled" {
		t.Errorf("send_at in an hour: %v", r)
	}
}

func apiHealth(t *testing.T, d *dev) {
	for u, want := range map[string]string{d.API + "/healthz": "ok", d.API + "/readyz": "ready", d.Metrics: "postrider_accepted_total"} {
		res, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %.300s", u, res.StatusCode, b)
		}
	}
	b, _ := json.Marshal(object{"key": d.Key})
	res, err := http.Post(d.API+"/api/1.0/users/ping", "", strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if kind := strings.ToLower(res.Header.Get("Content-Type")); kind != "application/json; charset=utf-8" && kind != "application/json" || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("headers: %v", res.Header)
	}
}
