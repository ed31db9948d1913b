package e2e

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// testIdentity looks at who a mail says it is from: its signatures, and the way to unsubscribe.
func testIdentity(t *testing.T, d *dev) {
	t.Run("signed", func(t *testing.T) { t.Parallel(); identitySigned(t, d) })
	t.Run("unsubscribe", func(t *testing.T) { t.Parallel(); identityUnsubscribe(t, d) })
	t.Run("domain", func(t *testing.T) { t.Parallel(); identityDomain(t, d) })
	t.Run("do not send", func(t *testing.T) { t.Parallel(); identityRejects(t, d) })
}

// identitySigned has mail of example.com, which the first account owns, be signed with the keys that its records publish,
// and other mail go unsigned.
func identitySigned(t *testing.T, d *dev) {
	var domain struct {
		Verified bool
		Records  []struct{ Name, Value, Purpose string }
	}
	d.json(t, &domain, "domain", "show", "example.com", "--account", "1", "--json")
	published := map[string]string{}
	for _, r := range domain.Records {
		published[r.Name] = r.Value
	}
	raw := d.waitMail(t, d.send(t, unique(t, "signed")))
	results, err := dkim.VerifyWithOptions(bytes.NewReader(raw), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if v := published[name]; v != "" {
			return []string{v}, nil
		}
		return nil, errors.New("no such record")
	}})
	if err != nil || !domain.Verified || len(results) != 2 {
		t.Fatalf("%+v of %+v, %v", results, domain, err)
	}
	for _, r := range results {
		if r.Err != nil || r.Domain != "example.com" {
			t.Errorf("%+v", r)
		}
	}
	if raw := d.waitMail(t, d.fresh(t).send(t, unique(t, "unsigned"))); bytes.Contains(raw, []byte("DKIM-Signature")) {
		t.Error("another account's mail from example.com is signed")
	}
}

var linkInMail = regexp.MustCompile(`(?m)^List-Unsubscribe:\s+<(http[^>]+)>`)

// identityUnsubscribe follows the link of a mail: opening it changes nothing, its button does.
func identityUnsubscribe(t *testing.T, d *dev) {
	to := unique(t, "unsubscribe")
	raw := d.waitMail(t, d.send(t, to, object{"headers": object{"X-Postrider-Unsubscribe": "yes"}}))
	link := linkInMail.FindSubmatch(raw)
	if link == nil || bytes.Contains(raw, []byte("X-Postrider")) {
		t.Fatalf("%s", raw)
	}
	status := func(method, url, body string) int {
		t.Helper()
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res.StatusCode
	}
	url := string(link[1])
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		if code := status(method, url, ""); code != http.StatusOK {
			t.Errorf("%s: %d", method, code)
		}
	}
	if r := d.results(t, mail(to))[0]; r["status"] != "sent" {
		t.Errorf("after a look at the page: %v", r)
	}
	if code := status(http.MethodPost, url+"x", "List-Unsubscribe=One-Click"); code != http.StatusNotFound {
		t.Errorf("another token: %d", code)
	}
	if code := status(http.MethodPost, url, "List-Unsubscribe=One-Click"); code != http.StatusOK {
		t.Errorf("one click: %d", code)
	}
	if r := d.results(t, mail(to))[0]; r["status"] != "rejected" || r["reject_reason"] != "unsub" {
		t.Errorf("after the click: %v", r)
	}
}

var linkToVerify = regexp.MustCompile(`http://\S+/verify-domain/\S+`)

// identityDomain adds a domain, gets the link that is mailed to a mailbox of it, and confirms.
func identityDomain(t *testing.T, d *dev) {
	d = d.fresh(t)
	_, domain, _ := strings.Cut(unique(t, "x"), "@")
	d.must(t, "/api/1.0/senders/add-domain", object{"domain": domain})
	sent := d.must(t, "/api/1.0/senders/verify-domain", object{"domain": domain, "mailbox": "postmaster"}).(object)
	if sent["status"] != "sent" || sent["email"] != "postmaster@"+domain {
		t.Fatalf("%v", sent)
	}
	var text string
	wait(t, 20*time.Second, "the mail to the mailbox", func() bool {
		var list inboxList
		d.inbox(t, "/api/v1/search?query=to:postmaster@"+domain, &list)
		if len(list.Messages) == 0 {
			return false
		}
		var raw []byte
		d.inbox(t, "/api/v1/message/"+list.Messages[0].ID+"/raw", &raw)
		text = string(raw)
		return true
	})
	link := linkToVerify.FindString(strings.ReplaceAll(text, "=\r\n", ""))
	if code, page := d.get(link); code != http.StatusOK || !strings.Contains(page, domain) {
		t.Fatalf("the page of %q: %d %s", link, code, page)
	}
	for url, want := range map[string]int{link: http.StatusOK, link + "x": http.StatusNotFound} {
		res, err := http.Post(url, "application/x-www-form-urlencoded", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", url, res.StatusCode, want)
		}
	}
}

// identityRejects puts an address on the do-not-send list and takes it off again; the allowlist wins over it.
func identityRejects(t *testing.T, d *dev) {
	d = d.fresh(t)
	to := unique(t, "listed")
	status := func() any { return d.results(t, mail(to))[0]["status"] }
	d.must(t, "/api/1.0/rejects/add", object{"email": to, "comment": "asked by phone"})
	if s := status(); s != "rejected" {
		t.Errorf("listed: %v", s)
	}
	d.must(t, "/api/1.0/rejects/delete", object{"email": to})
	if s := status(); s != "sent" {
		t.Errorf("taken off: %v", s)
	}
	d.must(t, "/api/1.0/rejects/add", object{"email": to})
	d.must(t, "/api/1.0/allowlists/add", object{"email": to}) // takes it off, as in Mandrill
	if s := status(); s != "sent" {
		t.Errorf("allowed: %v", s)
	}
	d.must(t, "/api/1.0/whitelists/delete", object{"email": to})
	if s := status(); s != "sent" {
		t.Errorf("allowed no more: %v", s)
	}
}
