package deliver

import (
	"strings"
	"testing"
)

func TestTranscript(t *testing.T) {
	h := startHost(t, "", []string{"PIPELINING"}, func(_ *peer, verb, line string, _ int) string {
		if verb == "RCPT" && strings.Contains(line, "bad@") {
			return "550-5.1.1 no such\r\n550 5.1.1 user\x1b[31m here"
		}
		return ""
	})
	c := newClient(t, Config{Route: h.addr})
	r := c.Try(t.Context(), letter("bad@example.com"))
	want(t, r.Outcome, "bounced 550 5.1.1 rcpt")
	expect := `* to 127.0.0.1
< 220 mx.test ESMTP
> EHLO out.example.org
< 250-mx.test greets you
< 250 PIPELINING
> MAIL FROM:<b.1@bounces.example.org>
> RCPT TO:<bad@example.com>
> DATA
< 250 2.1.0 sender ok
< 550-5.1.1 no such
< 550 5.1.1 user\x1b[31m here
< 503 5.5.1 no valid recipients
`
	if r.Transcript != expect {
		t.Errorf("got\n%s\nwant\n%s", r.Transcript, expect)
	}
	e := letter("good@example.com")
	if r := c.Try(t.Context(), e); r.Transcript != "" {
		t.Error("a transcript that nobody asked for:\n" + r.Transcript)
	}
	e.Transcript = true
	r = c.Try(t.Context(), e)
	expect = `* on an open connection to 127.0.0.1
> RSET
> MAIL FROM:<b.1@bounces.example.org>
> RCPT TO:<good@example.com>
> DATA
< 250 ok
< 250 2.1.0 sender ok
< 250 2.1.5 recipient ok
< 354 go on
* the content
< 250 2.0.0 queued as 1.2
`
	expect = strings.Replace(expect, "> RSET\n", "", 1)
	expect = strings.Replace(expect, "< 250 ok\n", "", 1)
	if r.Transcript != expect {
		t.Errorf("got\n%s\nwant\n%s", r.Transcript, expect)
	}
}

func TestTranscriptTellsOfHostsThatWereNotReached(t *testing.T) {
	c := newClient(t, Config{Route: "127.0.0.1:1"})
	r := c.Try(t.Context(), letter("a@example.com"))
	if r.Transcript != "* to 127.0.0.1\n* not at 127.0.0.1 (127.0.0.1:1): cannot connect to 127.0.0.1:1: connection refused\n" {
		t.Error(r.Transcript)
	}
}

func TestTranscriptIsBoundedAndKeepsNoSecret(t *testing.T) {
	tr := &transcript{}
	tr.sent([]byte("auth PLAIN AHNlY3JldA==\r\nAUTH LOGIN\r\n"))
	if tr.String() != "> auth\n> AUTH\n" {
		t.Error(tr.String())
	}
	long := &reply{code: 250, text: []byte(strings.Repeat("x", 700) + "\n" + strings.Repeat("y\x00\xff", 300))}
	for range 100 {
		tr.heard(long)
		tr.sent([]byte("NOOP\r\n"))
		tr.note("a", "b")
	}
	if len(tr.b) > maxTranscript || !strings.HasSuffix(tr.String(), "\n* …\n") || len(tr.String()) > 3*maxTranscript {
		t.Errorf("%d bytes", len(tr.b))
	}
	if s := tr.String(); strings.Contains(s, "\x00") || strings.Contains(s, "\xff") || !strings.Contains(s, `y\x00`) {
		t.Error("control characters are shown")
	}
	tr.reset()
	if tr.String() != "" {
		t.Error("not empty after reset")
	}
	var none *transcript
	none.sent([]byte("QUIT\r\n")) // a session that no attempt uses
	none.heard(long)
	none.note("", "")
}
