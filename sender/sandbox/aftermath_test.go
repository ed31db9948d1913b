package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// bounces is the platform's listener: it defers the first few mails and hands on the others.
type bounces struct {
	deferrals int
	got       chan received
}

type received struct {
	from, to string
	raw      []byte
}

func listenForBounces(t *testing.T, deferrals int) (string, chan received) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bounces{deferrals: deferrals, got: make(chan received, 10)}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &bounceSession{bounces: b}, nil
	}))
	server.EnableSMTPUTF8 = true
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String(), b.got
}

type bounceSession struct {
	*bounces
	now received
}

func (s *bounceSession) Mail(from string, _ *smtp.MailOptions) error { s.now.from = from; return nil }
func (s *bounceSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.now.to = to; return nil }
func (s *bounceSession) Reset()                                      {}
func (s *bounceSession) Logout() error                               { return nil }
func (s *bounceSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.deferrals > 0 { // one errand at a time comes here
		s.deferrals--
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Later"}
	}
	s.now.raw = raw
	s.got <- s.now
	return nil
}

func receive[T any](t *testing.T, from chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came within 5 seconds")
		panic("unreachable")
	}
}

// parts reads a report: its type, and the type and body of each part.
func parts(t *testing.T, raw []byte) (map[string]string, [][2]string) {
	t.Helper()
	e, err := message.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := e.Header.ContentType()
	if err != nil || kind != "multipart/report" || e.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Fatalf("content type %s (%v), Auto-Submitted %q", kind, err, e.Header.Get("Auto-Submitted"))
	}
	var list [][2]string
	for r := e.MultipartReader(); ; {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return params, list
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := p.Header.ContentType()
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, [2]string{kind, string(body)})
	}
}

func contains(t *testing.T, body string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(body, w) {
			t.Errorf("%q is missing in:\n%s", w, body)
		}
	}
}

func TestLateBounce(t *testing.T) {
	addr, got := listenForBounces(t, 1) // its first answer is "later"
	s := start(t, Config{Reports: addr})
	if err := sendMail(t, s, "r-7@bounces.example.com", plainMail, "Late-Bounce+9@example.org"); err != nil {
		t.Fatal(err)
	}
	if len(s.inbox.all()) != 1 {
		t.Error("the mail is not in the inbox")
	}
	dsn := receive(t, got)
	if dsn.from != "" || dsn.to != "r-7@bounces.example.com" {
		t.Errorf("from <%s> to <%s>", dsn.from, dsn.to)
	}
	params, list := parts(t, dsn.raw)
	if params["report-type"] != "delivery-status" || len(list) != 3 || list[0][0] != "text/plain" ||
		list[1][0] != "message/delivery-status" || list[2][0] != "text/rfc822-headers" {
		t.Fatalf("parts of the DSN: %v %q", params, list)
	}
	contains(t, list[1][1], "Reporting-MTA: dns; mx.sandbox.test\r\n", "\r\n\r\nFinal-Recipient: rfc822; Late-Bounce+9@example.org\r\n",
		"Action: failed\r\n", "Status: 5.1.1\r\n", "Diagnostic-Code: smtp; 550 5.1.1 ")
	contains(t, list[2][1], "Message-ID: <one@example.com>\r\n")
	eventually(t, "the queue to be empty", func() bool { return s.after.waiting.Load() == 0 })
}

func TestLateBounceBeyondASCII(t *testing.T) {
	addr, got := listenForBounces(t, 0)
	s := start(t, Config{Reports: addr})
	c := dial(t, s)
	if err := c.Mail("r@example.com", &smtp.MailOptions{UTF8: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("late-bounce@exämple.org", nil); err != nil {
		t.Fatal(err)
	}
	if err := data(c, plainMail); err != nil {
		t.Fatal(err)
	}
	_, list := parts(t, receive(t, got).raw)
	if list[1][0] != "message/global-delivery-status" {
		t.Errorf("parts: %q", list)
	}
	contains(t, list[1][1], "Final-Recipient: utf-8; late-bounce@exämple.org\r\n")
}

func TestComplaint(t *testing.T) {
	addr, got := listenForBounces(t, 0)
	s := start(t, Config{Reports: addr})
	if err := sendMail(t, s, "r-8@bounces.example.com", plainMail, "complain@example.org", "bob@example.org"); err != nil {
		t.Fatal(err)
	}
	arf := receive(t, got)
	if arf.from != "" || arf.to != "r-8@bounces.example.com" {
		t.Errorf("from <%s> to <%s>", arf.from, arf.to)
	}
	params, list := parts(t, arf.raw)
	if params["report-type"] != "feedback-report" || len(list) != 3 ||
		list[1][0] != "message/feedback-report" || list[2] != [2]string{"message/rfc822", plainMail} {
		t.Fatalf("parts of the complaint: %v %q", params, list)
	}
	contains(t, list[1][1], "Feedback-Type: abuse\r\n", "Version: 1\r\n", "User-Agent: ",
		"Original-Mail-From: <r-8@bounces.example.com>\r\n", "Original-Rcpt-To: <complain@example.org>\r\n")
}

func TestReportsThatAreNotSent(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	s := start(t, Config{Log: zap.New(core)})
	for range 3 {
		if err := sendMail(t, s, "r@example.com", plainMail, "late-bounce@example.org"); err != nil {
			t.Fatal(err)
		}
	}
	if n := logs.FilterMessageSnippet("no address for reports").Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("%d warnings, %d of them about reports, want one", logs.Len(), n)
	}
	addr, _ := listenForBounces(t, 0)
	s = start(t, Config{Reports: addr})
	if err := sendMail(t, s, "", plainMail, "late-bounce@example.org"); err != nil {
		t.Fatal(err)
	}
	if s.after.waiting.Load() != 0 {
		t.Error("a report to the null return path is planned")
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	a := newAftermath(Config{Log: zap.New(core), Bytes: 100, Reports: "127.0.0.1:1"})
	for range 3 {
		a.plan(&letter{from: "r@example.com", to: []string{"complain@example.org"}, raw: make([]byte, 40)})
	}
	if len(a.reports) != 2 || a.waiting.Load() != 80 || logs.Len() != 1 {
		t.Errorf("%d reports with %d bytes wait, %d warnings", len(a.reports), a.waiting.Load(), logs.Len())
	}
}

// TestFetches has a tracker that only some links lead to: others must never be asked for.
func TestFetches(t *testing.T) {
	asked := make(chan string, 10)
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- "stranger" }))
	defer stranger.Close()
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.String()
		if r.URL.Path == "/click" {
			http.Redirect(w, r, stranger.URL, http.StatusFound)
		}
	}))
	defer tracker.Close()
	own, _ := url.Parse(tracker.URL)
	s := start(t, Config{Fetch: func(u *url.URL) bool { return u.Host == own.Host }})
	raw := func(kind, body string) string {
		return fmt.Sprintf("Subject: x\r\nContent-Type: text/%s\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%s\r\n", kind, body)
	}
	doc := fmt.Sprintf(`<img src=3D"%[1]s/logo"><IMG alt SRC=3D'%[2]s/open?a=3D1&amp;b=3D2'>=`+"\r\n"+
		`<img src=3D"%[2]s/second"><a href=3D"mailto:x@example.com">x</a><a href=3D"%[1]s">y</a><a href=3D"%[2]s/click">z</a>`,
		stranger.URL, tracker.URL)
	tests := []struct{ to, raw, want string }{
		{"open@example.org", raw("html", doc), "/open?a=1&b=2"},
		{"click+x@example.org", raw("html", doc), "/click"},
		{"click@example.org", raw("plain", "See "+stranger.URL+" and <"+tracker.URL+"/text>."), "/text"},
	}
	for _, tt := range tests {
		if err := sendMail(t, s, "r@example.com", tt.raw, tt.to); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, asked); got != tt.want {
			t.Errorf("%s: fetched %s, want %s", tt.to, got, tt.want)
		}
	}
	eventually(t, "the fetches to end", func() bool { return s.after.waiting.Load() == 0 })
	if len(asked) > 0 {
		t.Errorf("fetched %s too", <-asked)
	}
}

func TestNothingIsFetchedUnlessAllowed(t *testing.T) {
	a := newAftermath(Config{Fetch: func(*url.URL) bool { return false }})
	m := &letter{raw: []byte("Content-Type: text/html\r\n\r\n<a href=http://example.org>x</a><img src=http://example.org>")}
	for _, kind := range []Kind{Open, Click} {
		if u := a.target(errand{kind: kind, mail: m}); u != nil {
			t.Errorf("would fetch %s", u)
		}
	}
}

func TestPlainTextOfHTML(t *testing.T) {
	got := strings.Fields(plain("<head><title>no</title><style>p{}</style></head><p>Tom &amp; <b>Ann</b><script>x()</script><br>end"))
	if want := []string{"Tom", "&", "Ann", "end"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no addresses": {},
		"no port":      {SMTP: "127.0.0.1", Inbox: "127.0.0.1:0"},
		"bad reports":  {SMTP: ":0", Inbox: ":0", Reports: "nowhere"},
		"negative":     {SMTP: ":0", Inbox: ":0", Capacity: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestListenOnAnAddressInUse(t *testing.T) {
	s := start(t, Config{})
	for _, cfg := range []Config{{SMTP: s.SMTPAddr(), Inbox: ":0"}, {SMTP: ":0", Inbox: s.InboxAddr()}} {
		second, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Listen(); err == nil {
			t.Error("listens on an address that is in use")
		}
	}
}
