package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/postrider/postrider/sender/domains"
	"github.com/postrider/postrider/shards"
)

// domainWorld is an API with sending domains, and a DNS that knows what is published.
type domainWorld struct {
	*world
	published map[string][]string // TXT values by name
	mail      string              // the last one to a mailbox
}

func openDomains(t *testing.T) *domainWorld {
	t.Helper()
	w := &domainWorld{world: open(t), published: map[string][]string{}}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(r dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, v := range w.published[strings.TrimSuffix(q.Question[0].Name, ".")] {
			if q.Question[0].Qtype == dns.TypeTXT {
				head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}
				m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{v[:min(255, len(v))], v[min(255, len(v)):]}})
			}
		}
		_ = r.WriteMsg(m)
	})}
	run(t, func(ctx context.Context) error {
		context.AfterFunc(ctx, func() { _ = server.Shutdown() })
		return server.ActivateAndServe()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := domains.New(domains.Config{Shards: w.Shards, Store: w.store, Resolvers: []string{conn.LocalAddr().String()}, Hostname: "mx.example.net",
		ReturnPathDomain: "bounces.example.net",
		Mail: func(_ context.Context, _ int64, _, _, text string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mail = text
			return nil
		},
		Link: func(token string) string { return w.url + domains.MailboxPath + token }})
	a := New(Config{Shards: w.Shards, Store: w.store, Domains: d, Log: zap.NewNop(), Ready: func() error { return nil }, At: w.at})
	run(t, func(ctx context.Context) error { return a.Run(ctx, l) })
	w.url = "http://" + l.Addr().String()
	return w
}

func (w *domainWorld) publish(d sendingDomain, purposes ...domains.Purpose) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range d.Records {
		if slices.Contains(purposes, r.Purpose) {
			w.published[r.Name] = append(w.published[r.Name], r.Value)
		}
	}
}

// call makes a call of Mandrill's API.
func (w *domainWorld) call(t *testing.T, key, name, rest string, into any) int {
	t.Helper()
	res, err := http.Post(w.url+"/api/1.0/"+name+".json", "application/json", strings.NewReader(`{"key":"`+key+`"`+rest+`}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

// TestSendingDomains adds, publishes and checks one, and reads it back.
func TestSendingDomains(t *testing.T) {
	w := openDomains(t)
	var list []sendingDomain
	if status := w.call(t, w.key, "senders/domains", "", &list); status != 200 || list == nil || len(list) != 0 {
		t.Errorf("%d %v", status, list)
	}
	var d sendingDomain
	if status := w.call(t, w.key, "senders/add-domain", `,"domain":"Example.com"`, &d); status != 200 || d.Domain != "example.com" || d.VerifyTXTKey == "" ||
		d.LastTestedAt != nil || d.VerifiedAt != nil || d.ValidSigning || d.SPF.Valid || *d.SPF.Error != "not checked yet" || len(d.CreatedAt) != len("2026-01-31 13:45:00") {
		t.Errorf("added: %d %+v", status, d)
	}
	if status := w.call(t, w.key, "senders/check-domain", `,"domain":"example.org"`, &d); status != 200 || d.Domain != "example.org" || d.LastTestedAt == nil ||
		d.DKIM.Valid || !strings.Contains(*d.DKIM.Error, "no TXT record") || d.DMARC.Valid || d.ValidSigning {
		t.Errorf("checked and added: %d %+v", status, d)
	}
	if status := w.call(t, w.key, "senders/domains", "", &list); status != 200 || len(list) != 2 || list[0].Domain != "example.com" {
		t.Errorf("%d %+v", status, list)
	}
	w.publish(list[0], domains.Ownership, domains.DKIM, domains.SPF, domains.DMARC)
	if status := w.call(t, w.key, "senders/check-domain", `,"domain":"EXAMPLE.com."`, &d); status != 200 || !d.ValidSigning || d.VerifiedAt == nil ||
		!d.SPF.Valid || !d.DKIM.Valid || !d.DKIM2.Valid || !d.DMARC.Valid || d.SPF.Error != nil || d.DMARC.Error != nil {
		t.Errorf("published and checked: %d %+v", status, d)
	}
	_, other, err := w.Shards.CreateAccount(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if status := w.call(t, other, "senders/domains", "", &list); status != 200 || len(list) != 0 {
		t.Errorf("another account sees %+v", list)
	}
	var theirs sendingDomain
	if w.call(t, other, "senders/check-domain", `,"domain":"example.com"`, &theirs); theirs.ValidSigning || theirs.VerifyTXTKey == d.VerifyTXTKey || theirs.DKIM.Valid {
		t.Errorf("another account takes the domain: %+v", theirs)
	}
}

// TestDomainShape has an answer be what clients decode: the fields of Mandrill's, none of which says message or code.
func TestDomainShape(t *testing.T) {
	w := openDomains(t)
	var d map[string]any
	w.call(t, w.key, "senders/add-domain", `,"domain":"example.com"`, &d)
	var names []string
	for n := range d {
		names = append(names, n)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "created_at dkim dkim2 dmarc domain last_tested_at records spf valid_signing verified_at verify_txt_key" {
		t.Error(got)
	}
	for _, n := range names {
		if _, ok := describe(t).Components.Schemas["SendingDomain"].Properties[n]; !ok {
			t.Errorf("%s is not described", n)
		}
	}
	for _, n := range []string{"spf", "dkim", "dkim2"} {
		if s, ok := d[n].(map[string]any); !ok || len(s) != 3 || s["valid"] != false || s["valid_after"] != nil {
			t.Errorf("%s: %v", n, d[n])
		}
	}
	for n := range d["records"].([]any)[0].(map[string]any) {
		if _, ok := describe(t).Components.Schemas["DomainRecord"].Properties[n]; !ok {
			t.Errorf("%s of a record is not described", n)
		}
	}
}

func TestDomainsRefused(t *testing.T) {
	w := openDomains(t)
	_, reader, err := w.Shards.CreateKey(t.Context(), w.account, shards.ScopeRead)
	if err != nil {
		t.Fatal(err)
	}
	_, sending, err := w.Shards.CreateKey(t.Context(), w.account, shards.ScopeSend)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key, name, rest string
		status          int
		says            string
	}{
		{w.key, "senders/add-domain", "", 422, `{"domain":"is needed"}`},
		{w.key, "senders/add-domain", `,"domain":"nodots"`, 422, "is not a domain name"},
		{w.key, "senders/add-domain", `,"domain":"a.com\r\nx"`, 422, "is not a domain name"},
		{w.key, "senders/check-domain", `,"domain":{}`, 422, "must be a string"},
		{w.key, "senders/verify-domain", `,"domain":"example.com"`, 422, "mailbox"},
		{w.key, "senders/verify-domain", `,"domain":"example.com","mailbox":"a@b"`, 422, "mailbox"},
		{reader, "senders/add-domain", `,"domain":"example.com"`, 403, "scope"},
		{reader, "senders/check-domain", `,"domain":"example.com"`, 403, "scope"},
		{sending, "senders/verify-domain", `,"domain":"example.com","mailbox":"a"`, 403, "scope"},
		{sending, "senders/domains", "", 403, "scope"},
		{"pr_00000000000000000000000000000000", "senders/domains", "", 401, "Invalid API key"},
	} {
		var e errorBody
		if status := w.call(t, c.key, c.name, c.rest, &e); status != c.status || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s %s: %d %+v, want %d %s", c.name, c.rest, status, e, c.status, c.says)
		}
	}
	var list []sendingDomain
	if status := w.call(t, reader, "senders/domains", "", &list); status != 200 || len(list) != 0 {
		t.Errorf("%d %+v", status, list)
	}
}

// TestVerifyDomain follows the link that was mailed: looking changes nothing, the button does.
func TestVerifyDomain(t *testing.T) {
	w := openDomains(t)
	var sent domainMail
	if status := w.call(t, w.key, "senders/verify-domain", `,"domain":"example.com","mailbox":"postmaster"`, &sent); status != 200 ||
		sent != (domainMail{"sent", "example.com", "postmaster@example.com"}) {
		t.Fatalf("%d %+v", status, sent)
	}
	var e errorBody
	if status := w.call(t, w.key, "senders/verify-domain", `,"domain":"example.com","mailbox":"postmaster"`, &e); status != 429 {
		t.Errorf("a second mail at once: %d %+v", status, e)
	}
	w.mu.Lock()
	_, rest, _ := strings.Cut(w.mail, w.url)
	w.mu.Unlock()
	link, _, _ := strings.Cut(rest, "\n")
	for range 10 {
		if status, page := w.page(t, http.MethodGet, link); status != 200 || !strings.Contains(page, "<button") || !strings.Contains(page, "example.com") {
			t.Fatalf("%d %s", status, page)
		}
	}
	w.page(t, http.MethodHead, link)
	var d sendingDomain
	w.call(t, w.key, "senders/add-domain", `,"domain":"example.com"`, &d)
	w.publish(d, domains.DKIM)
	if w.call(t, w.key, "senders/check-domain", `,"domain":"example.com"`, &d); d.ValidSigning {
		t.Error("the link was looked at, and the domain is verified")
	}
	if status, page := w.page(t, http.MethodPost, link+"x"); status != 404 || strings.Contains(page, "example.com") {
		t.Errorf("another link: %d %s", status, page)
	}
	if status, page := w.page(t, http.MethodPost, link); status != 200 || !strings.Contains(page, "Confirmed") {
		t.Errorf("%d %s", status, page)
	}
	if status := w.call(t, w.key, "senders/verify-domain", `,"domain":"example.com","mailbox":"postmaster"`, &sent); status != 200 || sent.Status != "already_verified" {
		t.Errorf("%d %+v", status, sent)
	}
}

func (w *domainWorld) page(t *testing.T, verb, link string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), verb, w.url+link, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if verb != http.MethodHead && (len(res.Cookies()) > 0 || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'")) {
		t.Errorf("%s: %v", link, res.Header)
	}
	return res.StatusCode, string(b)
}
