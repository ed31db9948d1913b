package sandbox

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, s *Sandbox, path string) (int, http.Header, string) {
	t.Helper()
	return do(t, s, http.MethodGet, path, "", nil)
}

func do(t *testing.T, s *Sandbox, method, path, body string, header map[string]string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.InboxAddr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	if host := header["Host"]; host != "" {
		r.Host = host
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(b)
}

func getPage(t *testing.T, s *Sandbox, path string) page {
	t.Helper()
	var p page
	getJSON(t, s, path, &p)
	return p
}

func getJSON(t *testing.T, s *Sandbox, path string, into any) {
	t.Helper()
	status, _, body := get(t, s, path)
	if status != 200 {
		t.Fatalf("GET %s: %d %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatal(err)
	}
}

const richMail = "From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.com>\r\n" +
	"To: \"Ann, A.\" <ann@example.org>, bob@example.org\r\nCc: Carl <carl@example.org>\r\nReply-To: help@example.com\r\n" +
	"Subject: =?iso-8859-1?q?Caf=E9_<script>alert(1)</script>?=\r\nDate: Tue, 02 Jan 2024 03:04:05 +0100\r\n" +
	"Message-ID: <rich@example.com>\r\nList-Unsubscribe: <https://example.com/u>, <mailto:u@example.com>\r\n" +
	"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n" +
	"--m\r\nContent-Type: multipart/related; boundary=r\r\n\r\n" +
	"--r\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n" +
	"--a\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nDas Caf=E9\r\n" +
	"--a\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
	"PHA+SGk8L3A+PGltZyBzcmM9ImNpZDpsb2dvQHgiPjxzY3JpcHQ+YWxlcnQoMSk8L3NjcmlwdD4=\r\n--a--\r\n" +
	"--r\r\nContent-Type: image/png\r\nContent-ID: <logo@x>\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==\r\n--r--\r\n" +
	"--m\r\nContent-Type: text/html; name=\"../../evil.html\"\r\nContent-Disposition: attachment\r\n\r\n<script>1</script>\r\n" +
	"--m\r\nContent-Type: text/plain; charset=nonsense\r\n\r\nodd \xff\r\n--m--\r\n"

func TestInboxAPI(t *testing.T) {
	s := start(t, Config{})
	if err := sendMail(t, s, "r-1@bounces.example.com", richMail, "ann@example.org", "carl@example.org", "Hidden@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := sendMail(t, s, "r-2@bounces.example.com", plainMail, "bob@example.org"); err != nil {
		t.Fatal(err)
	}
	p := getPage(t, s, "/api/v1/messages")
	if p.Total != 2 || p.Unread != 2 || p.Count != 2 || p.MessagesCount != 2 || p.MessagesUnread != 2 || p.Messages[0].Subject != "Hello" {
		t.Fatalf("list: %+v", p)
	}
	rich := p.Messages[1]
	if rich.MessageID != "rich@example.com" || rich.From != (address{"Jürgen", "juergen@example.com"}) ||
		!slices.Equal(rich.To, []address{{"Ann, A.", "ann@example.org"}, {"", "bob@example.org"}}) ||
		!slices.Equal(rich.Bcc, []address{{"", "Hidden@example.org"}}) ||
		!slices.Equal(rich.Cc, []address{{"Carl", "carl@example.org"}}) ||
		!slices.Equal(rich.ReplyTo, []address{{"", "help@example.com"}}) ||
		rich.Subject != "Café <script>alert(1)</script>" || rich.Attachments != 1 || rich.Size != len(richMail) ||
		!strings.HasPrefix(rich.Snippet, "Das Café") {
		t.Errorf("summary: %+v", rich)
	}
	if p := getPage(t, s, "/api/v1/messages?start=1&limit=1"); p.Start != 1 || p.Count != 1 || p.Messages[0].ID != rich.ID {
		t.Errorf("second page: %+v", p)
	}
	if p := getPage(t, s, "/api/v1/messages?start=5&limit=99999"); p.Count != 0 || p.Total != 2 {
		t.Errorf("page beyond the end: %+v", p)
	}
	if status, _, body := get(t, s, "/api/v1/messages?limit=x"); status != 400 {
		t.Errorf("limit=x: %d %s", status, body)
	}
	testDetail(t, s, rich.ID)
	testParts(t, s, rich.ID)
	if p := getPage(t, s, "/api/v1/messages"); p.Unread != 1 || !p.Messages[1].Read {
		t.Errorf("a mail that was opened still counts as unread: %+v", p)
	}
}

func testDetail(t *testing.T, s *Sandbox, id string) {
	var m detail
	getJSON(t, s, "/api/v1/message/"+id, &m)
	if m.ReturnPath != "r-1@bounces.example.com" || m.Date.Format("2006-01-02 15:04 -0700") != "2024-01-02 03:04 +0100" {
		t.Errorf("return path %q, date %s", m.ReturnPath, m.Date)
	}
	if m.Text != "Das Café\nodd \uFFFD" || m.HTML != `<p>Hi</p><img src="cid:logo@x"><script>alert(1)</script>` {
		t.Errorf("text %q, HTML %q", m.Text, m.HTML)
	}
	if !slices.Equal(m.Inline, []attachment{{"3", "", "image/png", "logo@x", 4}}) ||
		!slices.Equal(m.Attachments, []attachment{{"4", "evil.html", "text/html", "", 18}}) {
		t.Errorf("inline %+v, attachments %+v", m.Inline, m.Attachments)
	}
	if u := m.ListUnsubscribe; u.HeaderPost != "List-Unsubscribe=One-Click" ||
		!slices.Equal(u.Links, []string{"https://example.com/u", "mailto:u@example.com"}) {
		t.Errorf("list-unsubscribe: %+v", u)
	}
	var fields map[string][]string
	getJSON(t, s, "/api/v1/message/"+id+"/headers", &fields)
	if !slices.Equal(fields["Subject"], []string{m.Subject}) {
		t.Errorf("fields: %q", fields)
	}
	var latest detail
	if getJSON(t, s, "/api/v1/message/latest", &latest); latest.Subject != "Hello" {
		t.Errorf("latest: %+v", latest)
	}
	latest = detail{}
	for _, path := range []string{"", "/raw", "/headers", "/part/1"} {
		if status, _, _ := get(t, s, "/api/v1/message/nosuch"+path); status != 404 {
			t.Errorf("unknown id%s: %d", path, status)
		}
	}
	s.inbox.find("latest").read.Store(false)
}

func testParts(t *testing.T, s *Sandbox, id string) {
	if _, h, raw := get(t, s, "/api/v1/message/"+id+"/raw"); raw != richMail || h.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("raw: %q as %s", raw, h.Get("Content-Type"))
	}
	if _, h, body := get(t, s, "/api/v1/message/"+id+"/part/3"); body != "\x89PNG" || h.Get("Content-Type") != "image/png" {
		t.Errorf("part 3: %q as %s", body, h.Get("Content-Type"))
	}
	_, h, body := get(t, s, "/api/v1/message/"+id+"/part/4")
	if body != "<script>1</script>" || h.Get("Content-Disposition") != "attachment; filename=evil.html" ||
		!strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("part 4: %q with %v", body, h)
	}
	if status, _, _ := get(t, s, "/api/v1/message/"+id+"/part/99"); status != 404 {
		t.Errorf("part 99: %d", status)
	}
	_, h, body = get(t, s, "/view/"+id)
	if !strings.Contains(body, `<img src="/api/v1/message/`+id+`/part/3">`) {
		t.Errorf("view: %s", body)
	}
	policy := h.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "script") || !strings.Contains(policy, "sandbox") {
		t.Errorf("policy of the view: %s", policy)
	}
}

func TestSearch(t *testing.T) {
	s := start(t, Config{})
	if err := sendMail(t, s, "r-1@bounces.example.com", richMail, "ann@example.org", "Hidden@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := sendMail(t, s, "r-2@bounces.example.com", plainMail, "bob@example.org"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]int{
		"to:ANN@example.org":                 1,
		"to:hidden":                          1,
		"to:carl":                            1,
		"to:bob@example.org":                 2,
		"to:bounces":                         0,
		"bcc:hidden":                         1,
		"bcc:ann":                            0,
		"cc:carl":                            1,
		"from:jürgen":                        1,
		"from:ann@example.com":               1,
		"from:r-1":                           0,
		"subject:café":                       1,
		`subject:"hel"`:                      1,
		`to:"ann, a."`:                       1,
		`to: bob subject: hello`:             1,
		"message-id:rich@example.com":        1,
		"message-id:<rich@example.com>":      1,
		`message-id:"one@example.com"`:       1,
		"message-id:rich@example.com hello":  0,
		"to:bob from:ann@example.com Hello":  1,
		"example":                            2,
		"nothing":                            0,
		"http://x":                           0,
		`"unclosed`:                          0,
		"to:bob message-id:one@ subject:hel": 1,
	}
	for q, want := range tests {
		p := getPage(t, s, "/api/v1/search?query="+url.QueryEscape(q))
		if p.MessagesCount != want || p.Count != want || p.Total != 2 {
			t.Errorf("%s: %d found, %d listed, total %d; want %d of 2", q, p.MessagesCount, p.Count, p.Total, want)
		}
	}
	for _, q := range []string{"", "%20", strings.Repeat("a", maxQuery+1), strings.Repeat("a+", maxTerms+1)} {
		if status, _, _ := get(t, s, "/api/v1/search?query="+q); status != 400 {
			t.Errorf("query of %d bytes: %d, want 400", len(q), status)
		}
	}
}

func TestDelete(t *testing.T) {
	s := start(t, Config{})
	var ids []string
	fill := func() {
		ids = nil
		for _, to := range []string{"a@example.org", "b@example.org", "c@example.org"} {
			ids = append(ids, s.inbox.add("r@example.com", []string{to}, []byte(plainMail)).id)
		}
	}
	count := func() int { return getPage(t, s, "/api/v1/messages").Total }
	fill()
	status, _, body := do(t, s, "DELETE", "/api/v1/messages", `{"IDs":["`+ids[1]+`","nosuch"]}`, nil)
	if status != 200 || body != "ok" || count() != 2 || s.inbox.find(ids[1]) != nil {
		t.Errorf("delete one: %d %s, %d left", status, body, count())
	}
	if s.inbox.bytes != int64(2*len(plainMail)) {
		t.Errorf("%d bytes are counted for two mails of %d", s.inbox.bytes, len(plainMail))
	}
	if do(t, s, "DELETE", "/api/v1/search?query=bcc:c@example.org", "", nil); count() != 1 {
		t.Errorf("delete by search: %d left, want 1", count())
	}
	if status, _, _ := do(t, s, "DELETE", "/api/v1/messages", "{not JSON", nil); status != 400 || count() != 1 {
		t.Errorf("a broken body: %d, %d left", status, count())
	}
	own := "http://" + s.InboxAddr()
	for _, h := range []map[string]string{
		{"Origin": "https://evil.example"},
		{"Origin": "null"},
		{"Sec-Fetch-Site": "cross-site"},
		{"Host": "evil.example", "Origin": "http://evil.example"},
	} {
		if status, _, _ := do(t, s, "DELETE", "/api/v1/messages", "", h); status < 400 || count() != 1 {
			t.Errorf("delete with %v: %d, %d left", h, status, count())
		}
	}
	for _, h := range []map[string]string{nil, {"Origin": own}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}} {
		fill()
		if status, _, _ := do(t, s, "DELETE", "/api/v1/messages", "", h); status != 200 || count() != 0 || s.inbox.bytes != 0 {
			t.Errorf("delete all with %v: %d, %d left", h, status, count())
		}
	}
}

func TestOldestGoFirst(t *testing.T) {
	byCount := newInbox(3, 1<<20)
	bySize := newInbox(100, 3*10)
	for _, box := range []*inbox{byCount, bySize} {
		var last []string
		for range 10 {
			last = append(last, box.add("r@example.com", nil, make([]byte, 10)).id)
		}
		all := box.all()
		if len(all) != 3 || len(box.byID) != 3 || box.bytes != 30 || all[0].id != last[9] || all[2].id != last[7] {
			t.Errorf("%d mails, %d ids, %d bytes left; want the newest 3", len(all), len(box.byID), box.bytes)
		}
		if box.find(last[6]) != nil {
			t.Error("a mail that went can still be found")
		}
	}
	big := bySize.add("r@example.com", nil, make([]byte, 1000))
	if all := bySize.all(); len(all) != 1 || all[0] != big {
		t.Errorf("%d mails left, want the one that is larger than the inbox", len(all))
	}
}

func TestHostileMails(t *testing.T) {
	s := start(t, Config{})
	deep := "From: a@example.com\r\n"
	for range 200 {
		deep += "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	}
	mails := map[string]string{
		"empty":       "",
		"no header":   "this is not a mail\r\n",
		"only header": "Subject: x\r\n",
		"deep":        deep,
		"wide":        "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 5_000),
		"bad base64":  "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n",
		"bad to":      "To: <<>>,\r\nFrom: nobody\r\nSubject: =?x?q?=ff?=\r\n\r\n",
		"no boundary": "Content-Type: multipart/mixed\r\n\r\nhello\r\n",
	}
	for name, raw := range mails {
		m := s.inbox.add("r@example.com", []string{"ann@example.org"}, []byte(raw))
		var d detail
		getJSON(t, s, "/api/v1/message/"+m.id, &d)
		if d.To == nil || d.Cc == nil || d.Bcc == nil || d.ReplyTo == nil || d.Inline == nil || d.Attachments == nil || d.Tags == nil {
			t.Errorf("%s: a list is null: %+v", name, d)
		}
		if !slices.Contains(d.Bcc, address{Address: "ann@example.org"}) {
			t.Errorf("%s: the envelope recipient is not shown: %+v", name, d.Bcc)
		}
	}
	if p := getPage(t, s, "/api/v1/messages"); p.Count != len(mails) {
		t.Errorf("%d of %d mails are listed", p.Count, len(mails))
	}
}

func TestPage(t *testing.T) {
	s := start(t, Config{})
	status, h, body := get(t, s, "/")
	if status != 200 || h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(body, "<title>Inbox</title>") {
		t.Errorf("page: %d %s %.80s", status, h.Get("Content-Type"), body)
	}
	policy := h.Get("Content-Security-Policy")
	if !strings.Contains(policy, "script-src 'self'") || strings.Contains(policy, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers of the page: %v", h)
	}
	for path, kind := range map[string]string{"/app.js": "text/javascript", "/style.css": "text/css"} {
		status, h, code := get(t, s, path)
		if status != 200 || !strings.HasPrefix(h.Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s", path, status, h.Get("Content-Type"))
		}
		body += code
	}
	for _, never := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "srcdoc", "http://", "https://", "onclick"} {
		if strings.Contains(body, never) {
			t.Errorf("the page uses %s", never)
		}
	}
	for host, want := range map[string]int{"localhost:8025": 200, "[::1]:8025": 200, "mail:8025": 200, "x.localhost": 200,
		"evil.example:8025": 421, "127.0.0.1.evil.example": 421} {
		if status, _, _ := do(t, s, "GET", "/api/v1/messages", "", map[string]string{"Host": host}); status != want {
			t.Errorf("host %s: %d, want %d", host, status, want)
		}
	}
}
