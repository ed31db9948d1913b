package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const send = "/api/1.0/messages/send"

// testBad sends what no client should. A caller's mistake is named and is never a 500, and nothing of it is stored.
func testBad(t *testing.T, d *dev) {
	t.Run("mutations", func(t *testing.T) { badMutations(t, d.fresh(t)) }) // alone, as it looks at the memory
	for _, c := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{
		{"slow", badSlow}, {"shapes", badShapes}, {"types", badTypes}, {"lines", badLines}, {"values", badValues}, {"reads", badReads},
		{"recipients", badRecipients}, {"sizes", badSizes}, {"callers", badCallers}, {"forms", badForms},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, d.fresh(t))
		})
	}
}

// untouched wants an account in which nothing was stored.
func (d *dev) untouched(t *testing.T) {
	t.Helper()
	if ids := d.search(t, object{}); len(ids) != 0 {
		t.Errorf("%d messages were stored", len(ids))
	}
	if n := d.mailsTo(t, unique(t, "")); n != 0 {
		t.Errorf("%d mails were delivered", n)
	}
}

// badShapes are bodies that are no JSON object, or a monstrous one.
func badShapes(t *testing.T, d *dev) {
	good, err := json.Marshal(object{"key": d.Key, "message": mail(unique(t, "a"))["message"]})
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	for name, body := range map[string]string{
		"nothing": "", "blanks": " \n\t ", "text": "hello", "list": "[]", "null": "null", "string": `"x"`, "number": "1", "cut": string(good[:len(good)-1]),
		"text behind": string(good) + " x", "two documents": string(good) + string(good), "bracket behind": string(good) + "}",
		"deep": `{"key":"` + d.Key + `","message":` + deep + `}`, "deep, never closed": strings.Repeat(`{"a":`, 10_000),
		"not UTF-8":      strings.Replace(string(good), "hello", "h\xffllo", 1),
		"overlong UTF-8": strings.Replace(string(good), "hello", "h\xc0\x80llo", 1),
		"surrogate":      strings.Replace(string(good), "hello", "h\xed\xa0\x80llo", 1),
		"byte zero":      strings.Replace(string(good), "hello", "h\x00llo", 1),
		"comment":        "/* */" + string(good), "single quotes": strings.ReplaceAll(string(good), `"`, `'`),
		"UTF-16": "\xff\xfe{\x00}\x00", "many values": `{"key":"` + d.Key + `","message":{"to":[` + strings.Repeat("0,", 2<<20) + `0]}}`,
		"bad escape": strings.Replace(string(good), "hello", `\q`, 1), "comma": `{"key":"x",}`, "no value": `{"key":}`, "leading zero": `{"key":01}`,
	} {
		t.Run(name, func(t *testing.T) {
			status, v, err := d.post(send, []byte(body))
			refusal(t, 400, status, v, err)
		})
	}
	status, v, err := d.post(send, []byte(`{"message":{"subject":"a"},"message":{"subject":"`+"b"+`","from_email":"a@example.com","to":[{"email":"`+unique(t, "dup")+`"}]},"key":"`+d.Key+`"}`))
	if err != nil || status != 200 { // of duplicate names the last counts
		t.Errorf("duplicate names: %d %v %v", status, v, err)
	}
	if ids := d.search(t, object{}); len(ids) != 1 || d.state(t, ids[0])["subject"] != "b" {
		t.Errorf("stored: %v", ids)
	}
}

// badTypes puts a value of a wrong type in every field; the answer names it as the caller wrote it.
func badTypes(t *testing.T, d *dev) {
	an, list := object{"a": 1}, []any{1}
	for field, v := range map[string]any{
		"message": "x", "message.to": "x", "message.to[0]": "x", "message.to[0].email": an, "message.to[0].name": list, "message.to[0].type": an,
		"message.subject": an, "message.html": list, "message.text": an, "message.from_email": list, "message.from_name": an,
		"message.headers": "x", "message.headers.X-A": an, "message.tags": 5, "message.tags[0]": an, "message.metadata": "x", "message.metadata.a": an,
		"message.attachments": "x", "message.attachments[0]": "x", "message.attachments[0].content": an, "message.attachments[0].name": an,
		"message.attachments[0].type": list, "message.images[0].content": an, "message.images[0].name": an, "message.important": "maybe",
		"message.track_opens": "maybe", "message.track_clicks": an, "message.auto_text": list, "message.auto_html": 7, "message.inline_css": "x",
		"message.url_strip_qs": an, "message.preserve_recipients": "perhaps", "message.view_content_link": an, "message.bcc_address": an,
		"message.tracking_domain": an, "message.signing_domain": list, "message.return_path_domain": an, "message.merge": "x",
		"message.merge_language": "latin", "message.global_merge_vars": "x", "message.merge_vars": 3, "message.subaccount": an,
		"message.google_analytics_domains": 4, "message.google_analytics_domains[0]": an, "message.google_analytics_campaign": an,
		"message.recipient_metadata": "x", "message.recipient_metadata[0].rcpt": an, "message.recipient_metadata[0].values": "x",
		"message.recipient_metadata[0].values.x": an, "async": "maybe", "ip_pool": an, "send_at": "tomorrow",
	} {
		t.Run(field, func(t *testing.T) {
			body := mail(unique(t, "a"))
			put(body, field, v)
			if text := d.refused(t, 422, send, body); !strings.Contains(text, `"`+field+`"`) {
				t.Errorf("%q does not name %s", text, field)
			}
		})
	}
	d.refused(t, 422, send, object{}) // no message at all
	d.untouched(t)
}

// put sets a field by its path, such as message.to[0].email, making what is missing on the way.
func put(o object, path string, v any) {
	name, rest, more := strings.Cut(path, ".")
	field, _, inList := strings.Cut(name, "[0]")
	switch {
	case !more && !inList:
		o[field] = v
	case !more:
		o[field] = []any{v}
	case inList:
		inner := object{}
		if have, ok := o[field].([]object); ok && len(have) > 0 {
			inner = have[0]
		}
		put(inner, rest, v)
		o[field] = []object{inner}
	default:
		inner, ok := o[field].(object)
		if !ok {
			inner = object{}
			o[field] = inner
		}
		put(inner, rest, v)
	}
}

// badLines puts CR, LF and NUL into everything that becomes part of a header line or of an SMTP command.
func badLines(t *testing.T, d *dev) {
	file := func(name, kind string) []object { return []object{{"name": name, "type": kind, "content": "aGk="}} }
	evil := map[string]string{"CR": "a\rb", "LF": "a\nb", "NUL": "a\x00b", "CRLF": "a\r\nBcc: x@example.org", "end": "a\r\n.\r\nMAIL FROM:<>", "last": "a\n"}
	for how, s := range evil {
		for field, change := range map[string]func(m object){
			"subject":            func(m object) { m["subject"] = s },
			"from_name":          func(m object) { m["from_name"] = s },
			"from_email":         func(m object) { m["from_email"] = s + "@example.com" },
			"from_email domain":  func(m object) { m["from_email"] = "x@example.com" + s },
			"to email":           func(m object) { m["to"] = []object{{"email": s + "@example.net"}} },
			"to email domain":    func(m object) { m["to"] = []object{{"email": "x@example.net" + s}} },
			"to name":            func(m object) { m["to"] = []object{{"email": unique(t, "a"), "name": s}} },
			"second to name":     func(m object) { m["to"] = []object{{"email": unique(t, "a")}, {"email": unique(t, "b"), "name": s}} },
			"header value":       func(m object) { m["headers"] = object{"X-A": s} },
			"Reply-To":           func(m object) { m["headers"] = object{"Reply-To": s} },
			"header name":        func(m object) { m["headers"] = object{s: "x"} },
			"tag":                func(m object) { m["tags"] = []string{"ok", s} },
			"bcc_address":        func(m object) { m["bcc_address"] = s + "@example.net" },
			"return_path_domain": func(m object) { m["return_path_domain"] = "example.com" + s },
			"attachment name":    func(m object) { m["attachments"] = file(s, "text/plain") },
			"attachment type":    func(m object) { m["attachments"] = file("a.txt", "text/plain"+s) },
			"image name":         func(m object) { m["images"] = file(s, "image/png") },
			"image type":         func(m object) { m["images"] = file("a", "image/png"+s) },
		} {
			t.Run(field+" "+how, func(t *testing.T) {
				body := mail(unique(t, "a"))
				change(body["message"].(object))
				d.refused(t, 422, send, body)
			})
		}
	}
	d.untouched(t)
}

// badRecipients counts: a thousand are a call's most, and one bad address hurts only itself.
func badRecipients(t *testing.T, d *dev) {
	to := make([]object, 1001)
	for i := range to {
		to[i] = object{"email": unique(t, fmt.Sprint("r", i))}
	}
	body := mail("")
	body["message"].(object)["to"] = to
	d.refused(t, 422, send, body)
	d.refused(t, 422, send, mail("", object{"to": []object{}}))
	d.refused(t, 422, send, mail("", object{"to": nil}))
	d.untouched(t)
	body["message"].(object)["to"] = to[:1000]
	if r := d.results(t, body); len(r) != 1000 || r[0]["status"] != "queued" || r[999]["email"] != to[999]["email"] {
		t.Fatalf("%d answers for 1,000 recipients, the first %v", len(r), r[0])
	}
	wait(t, 60*time.Second, "1,000 mails", func() bool { return d.mailsTo(t, unique(t, "")) == 1000 })
	if ids := d.search(t, object{"limit": 1000}); len(ids) != 1000 {
		t.Errorf("a search finds %d of 1,000", len(ids))
	}
}

// badSizes goes to the limit of a body and one byte over it, with and without Content-Length.
func badSizes(t *testing.T, d *dev) {
	const limit = 25 << 20
	body := func(size int) []byte {
		b, err := json.Marshal(object{"key": d.Key, "message": mail(unique(t, "big"))["message"], "padding": ""})
		if err != nil {
			t.Fatal(err)
		}
		return append(bytes.TrimSuffix(b, []byte(`"}`)), append(bytes.Repeat([]byte("x"), size-len(b)), `"}`...)...)
	}
	for _, c := range []struct {
		size, status int
	}{{limit, 200}, {limit + 1, 413}} {
		for _, reader := range []io.Reader{bytes.NewReader(body(c.size)), io.MultiReader(bytes.NewReader(body(c.size)))} {
			res, err := http.Post(d.API+send, "application/json", reader)
			if err != nil {
				t.Errorf("%d bytes: %v", c.size, err)
				continue
			}
			text, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("%d bytes (length known: %v): %d %s", c.size, res.Request.ContentLength > 0, res.StatusCode, text)
			}
		}
	}
	if got := bytes.Contains(body(100+limit/1000), []byte("padding")); !got {
		t.Fatal("the body is not what was meant")
	}
	status, v, err := d.post(send, []byte(`{"key":"`+strings.Repeat("k", 1<<20)+`"}`))
	if err != nil || status != 401 {
		t.Errorf("a key of a megabyte: %d %v %v", status, v, err)
	}
}

// badCallers have no key, a wrong one, or a call that does not exist.
func badCallers(t *testing.T, d *dev) {
	for name, key := range map[string]any{"unknown": "pr_00000000000000000000000000000000", "short": "x", "binary": "\x00\x01", "long": strings.Repeat("x", 5000),
		"cut": d.Key[:len(d.Key)-1], "longer": d.Key + "x", "like": "%", "upper": strings.ToUpper(d.Key)} {
		t.Run("key "+name, func(t *testing.T) {
			d.refused(t, 401, send, object{"key": key, "message": mail(unique(t, "a"))["message"]})
			d.refused(t, 401, "/api/1.0/users/ping", object{"key": key})
		})
	}
	for name, body := range map[string]string{"no key": `{}`, "null key": `{"key":null}`, "empty key": `{"key":""}`} {
		status, v, err := d.post("/api/1.0/users/ping", []byte(body))
		if o, _ := v.(object); err != nil || status < 400 || status > 499 || o["status"] != "error" {
			t.Errorf("%s: %d %v %v", name, status, v, err)
		}
	}
	for _, path := range []string{"/api/1.0/messages/sendd", "/api/1.0/nothing/here", "/api/1.0/", "/api/1.0", "/api/2.0/messages/send", "/api/1.0/messages/send/x",
		"/api/1.0/messages", "/nothing", "/", "/api/1.0/messages/send.html", "/api/1.0/..%2fusers/ping", "/api/1.0/messages/%00"} {
		d.refused(t, 404, path, object{})
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, "BREW"} {
		r, err := http.NewRequest(method, d.API+send, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 404 && res.StatusCode != 405 {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
	d.untouched(t)
}

// badSlow is a client that sends a byte a second, of its body or of its header. It is cut off.
func badSlow(t *testing.T, d *dev) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	head := "POST " + send + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for name, begin := range map[string]string{"body": head + "Content-Length: 1000\r\n\r\n{", "chunks": head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "header": head + "X-Slow: "} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", strings.TrimPrefix(d.API, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(75 * time.Second))
			if _, err := io.WriteString(c, begin); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, bufio.NewReader(c))
				ended <- err
			}()
			start, tick := time.Now(), time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case err := <-ended:
					if took := time.Since(start); took > 70*time.Second {
						t.Errorf("cut off after %v (%v)", took, err)
					}
					return
				case <-tick.C:
					_, _ = io.WriteString(c, map[bool]string{true: "1\r\n \r\n", false: " "}[name == "chunks"])
				}
			}
		})
	}
}
