package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
)

// badValues are of the right type and still wrong.
func badValues(t *testing.T, d *dev) {
	file := func(content string) []object { return []object{{"name": "a", "type": "image/png", "content": content}} }
	long := func(n int) string { return string(make7bit(n)) }
	tooMany := make([]object, 501)
	for i := range tooMany {
		tooMany[i] = object{"name": "a", "type": "text/plain", "content": ""}
	}
	headers := object{}
	for i := range 101 {
		headers[fmt.Sprint("X-", i)] = "x"
	}
	for name, fields := range map[string]object{
		"base64 letters": {"attachments": file("!!!!")}, "base64 cut": {"attachments": file("aGVsbG8")[:1], "images": file("a")}, "base64 url": {"attachments": file("_-_-")},
		"base64 padding inside": {"images": file("aGk=aGk=")}, "base64 unicode": {"attachments": file("aGVsbG8…")},
		"image that is none": {"images": []object{{"name": "a", "type": "text/html", "content": "aGk="}}},
		"from without dot":   {"from_email": "webmaster@localhost"}, "from without at": {"from_email": "example.com"}, "from with name": {"from_email": "A <a@example.com>"},
		"two from": {"from_email": "a@example.com,b@example.com"}, "from quoted": {"from_email": `"a b"@example.com`}, "from literal": {"from_email": "a@[127.0.0.1]"},
		"bcc_address": {"bcc_address": "nonsense"}, "two bcc": {"bcc_address": "a@example.com, b@example.com"},
		"return path": {"return_path_domain": "no domain"}, "return path parameter": {"return_path_domain": "example.com> SIZE=1"},
		"long subject": {"subject": long(999)}, "long from name": {"from_name": long(1000)}, "long header": {"headers": object{"X-A": long(20 << 10)}},
		"header with colon": {"headers": object{"X:A": "x"}}, "header with blank": {"headers": object{"X A": "x"}}, "header without name": {"headers": object{"": "x"}},
		"header in unicode": {"headers": object{"X-Ä": "x"}}, "long header name": {"headers": object{long(200): "x"}}, "headers": {"headers": headers},
		"long tag": {"tags": []string{long(51)}}, "reserved tag": {"tags": []string{"_x"}}, "type": {"to": []object{{"email": unique(t, "a"), "type": "reply"}}},
		"metadata": {"metadata": object{"a": long(20 << 10)}}, "files": {"attachments": tooMany}, "file name": {"attachments": []object{{"name": long(300), "type": "a/b", "content": ""}}},
		"NUL in metadata": {"metadata": object{"a": "x\x00y"}}, "NUL in a name of metadata": {"metadata": object{"x\x00y": "a"}},
	} {
		t.Run(name, func(t *testing.T) { d.refused(t, 422, send, mail(unique(t, "a"), fields)) })
	}
	if text := d.refused(t, 422, send, mail(unique(t, "a"), object{"from_email": "webmaster@localhost"})); !strings.Contains(text, "email address is invalid") {
		t.Errorf("clients look for 'email address is invalid', not %q", text)
	}
	status, v, err := d.call(send, mail(unique(t, "a"), object{"subaccount": "nobody"}))
	if text := refusal(t, 404, status, v, err); !strings.Contains(text, "nobody") || v.(object)["name"] != "Unknown_Subaccount" {
		t.Errorf("an unknown subaccount: %v", v)
	}
	d.untouched(t)
}

// badReads are wrong questions.
func badReads(t *testing.T, d *dev) {
	for name, id := range map[string]any{"unknown": strings.Repeat("0", 32), "short": "abc", "binary": "\x00", "long": strings.Repeat("a", 10_000), "quote": `' or 1=1 --`,
		"dashes": "01234567-89ab-cdef-0123-456789abcdef", "number": 17, "letters": strings.Repeat("z", 32), "future": "ffffffffffff70008000000000000000"} {
		t.Run("id "+name, func(t *testing.T) {
			for _, call := range []string{"info", "content"} {
				status, v, err := d.call("/api/1.0/messages/"+call, object{"id": id})
				refusal(t, 404, status, v, err)
				if o, _ := v.(object); o["name"] != "Unknown_Message" || o["code"] != float64(11) {
					t.Errorf("%s: %v", call, v)
				}
			}
		})
	}
	for _, body := range []object{{}, {"id": nil}, {"id": ""}, {"id": object{"a": 1}}} {
		d.refused(t, 422, "/api/1.0/messages/info", body)
	}
	for name, q := range map[string]object{"words": {"query": strings.Repeat("a ", 100)}, "long": {"query": strings.Repeat("a", 2000)}, "NUL": {"query": "a\x00"}, "type": {"query": object{"a": 1}},
		"date": {"date_from": "yesterday"}, "date number": {"date_to": 12}, "date type": {"date_to": object{"a": 1}}, "tags": {"tags": 7}, "NUL tag": {"tags": []string{"a\x00"}},
		"sender": {"senders": []any{object{"a": 1}}}, "limit": {"limit": "many"}, "limit type": {"limit": []any{1}}, "fraction": {"limit": 1.5}, "day": {"date_from": "2026-02-31"}} {
		t.Run("search "+name, func(t *testing.T) { d.refused(t, 422, "/api/1.0/messages/search", q) })
	}
	for name, q := range map[string]object{"quotes": {"query": `"a' or 1=1 --`}, "wild": {"query": "%_\\"}, "brackets": {"query": "((a OR"}, "emoji": {"query": "😀"}, "control": {"query": "\x01\x1f"},
		"zero": {"limit": 0}, "negative": {"limit": -5}, "huge": {"limit": 1 << 40}, "old": {"date_from": "0001-01-01"}, "new": {"date_to": "9999-12-31"}, "turned": {"date_from": "2026-02-01", "date_to": "2026-01-01"},
		"separator": {"tags": []string{"\x1f"}}, "empty": {"senders": []string{""}}, "operators": {"query": "& | ! :* <->"}, "dashes": {"query": "-a -- -"}} {
		t.Run("search "+name, func(t *testing.T) { d.must(t, "/api/1.0/messages/search", q) })
	}
}

// badForms are forms that no browser sends.
func badForms(t *testing.T, d *dev) {
	key := "key=" + url.QueryEscape(d.Key)
	for _, form := range []string{"key=%zz", "=", "&&&", "key", key + "&message=x", key + "&message[html]=a&message=b", key + "&message[",
		key + "&message[to][99999999999][email]=a@example.net", key + "&message[to][-1][email]=a", key + "&message[to][x][email]=a", key + "&message[to]=a", key + "&[a]=b",
		key + "&message]to[=1", key + "&a" + strings.Repeat("[b]", 10_000) + "=1", key + "&message[subject]=%ff", key + "&message[subject]=%00",
		key + ";message[to]=1", key + strings.Repeat("&a=b", 300_000)} {
		status, v, err := d.post(send, []byte(form), "Content-Type", "application/x-www-form-urlencoded")
		if o, _ := v.(object); err != nil || status < 400 || status > 499 || o["status"] != "error" {
			t.Errorf("form %.80q: %d %.200v %v", form, status, v, err)
		}
	}
	d.untouched(t)
}

// TestFlood sends many large bodies at once that would become much larger when read: some are refused for now, and
// memory stays bounded. It has a system of its own, since others would be refused too.
func TestFlood(t *testing.T) {
	t.Parallel()
	d := start(t, folder(t), "--servers", "1", "--shards", "1")
	head := `{"key":"` + d.Key + `","message":{"to":[`
	bodies := [][]byte{}
	for _, filling := range []string{"{},", "[[", "0,", `{"email":"a@b.example"},`} {
		bodies = append(bodies, []byte(head+strings.Repeat(filling, 24<<20/len(filling))+`0]}}`))
	}
	for i, a := range d.atOnce(t, 16, func(i int) (int, any, error) { return d.post(send, bodies[i%len(bodies)]) }) {
		if status := a[:3]; status != "400" && status != "422" && status != "503" {
			t.Errorf("body %d: %.300s", i, a)
		}
	}
	most := peak(t, d.PID)
	t.Logf("at most %d MiB were held", most>>20)
	if most > 1<<30 {
		t.Errorf("it held %d MiB", most>>20)
	}
	d.waitState(t, d.send(t, unique(t, "after")), "sent")
}

// badMutations sends 300 bodies with random damage. The seed is printed, so that a failure can be had again.
func badMutations(t *testing.T, d *dev) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	whole := mail(unique(t, "m"), object{"html": "<p>hi</p>", "tags": []string{"a", "b"}, "metadata": object{"x": "y"}, "headers": object{"Reply-To": "r@example.com", "X-N": 5},
		"attachments": []object{{"name": "a.txt", "type": "text/plain", "content": "aGVsbG8="}}, "images": []object{{"name": "i", "type": "image/png", "content": "aGVsbG8="}},
		"preserve_recipients": true, "bcc_address": unique(t, "copy"), "recipient_metadata": []object{{"rcpt": unique(t, "m"), "values": object{"a": 1}}}, "auto_text": true})
	whole["key"], whole["async"], whole["send_at"], whole["id"], whole["query"], whole["limit"] = d.Key, false, "", strings.Repeat("0", 32), "a b", 5
	body, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	before := resident(t, d.PID)
	calls := []string{"messages/send", "messages/send", "messages/send", "messages/search", "messages/info", "users/info"}
	for n := range 300 {
		b := mutate(r, body)
		path := "/api/1.0/" + calls[r.IntN(len(calls))]
		status, v, err := d.post(path, b)
		if err != nil || status >= 500 {
			t.Errorf("request %d to %s: %d %v %v\n%q", n, path, status, v, err, b)
		}
		if o, _ := v.(object); status != 200 && (o["status"] != "error" || o["message"] == "") {
			t.Errorf("request %d to %s: %d %v", n, path, status, v)
		}
	}
	if grown := resident(t, d.PID) - before; grown > 512<<20 { // other tests run on it at the same time
		t.Errorf("it grew by %d MiB", grown>>20)
	}
}

// mutate damages a body in one to four places: bytes, or whole values. The key is left alone mostly, for what lies
// behind it to be reached.
func mutate(r *rand.Rand, body []byte) []byte {
	values := []string{"null", "true", "-1", "1e999", "0.1", `""`, "{}", "[]", `[[[]]]`, `{"":{}}`, `"\u0000"`, `"\ud800"`, `"\r\n"`, `"` + strings.Repeat("é", 600) + `"`, `"a@b.example"`, "99999999999999999999", `[null]`, `{"a":[{}]}`}
	b := append([]byte{}, body...)
	for range 1 + r.IntN(4) {
		at := r.IntN(len(b))
		switch r.IntN(5) {
		case 0:
			b[at] = byte(r.IntN(256))
		case 1:
			end := min(len(b), at+1+r.IntN(20))
			b = append(b[:at:at], b[end:]...)
		case 2:
			end := min(len(b), at+r.IntN(200))
			b = append(b[:end:end], b[at:]...)
		default: // another value behind a colon
			colon := strings.Index(string(b[at:]), `":`)
			if colon < 0 {
				continue
			}
			from := at + colon + 2
			to := from + strings.IndexAny(string(b[from:])+",", ",}]")
			b = append(b[:from:from], append([]byte(values[r.IntN(len(values))]), b[min(to, len(b)):]...)...)
		}
		if len(b) == 0 {
			return b
		}
	}
	return b
}
