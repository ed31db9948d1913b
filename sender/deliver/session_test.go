package deliver

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

func TestPipelinedAndStepwise(t *testing.T) {
	for name, ext := range map[string][]string{"pipelined": {"PIPELINING", "size 1000000"}, "stepwise": {"8BITMIME"}, "bare": nil} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, "", ext, nil)
			c := newClient(t, Config{Route: h.addr})
			for range 3 {
				out := c.Deliver(t.Context(), letter("a@example.com"))
				want(t, out, "delivered 250 2.0.0 dot")
				if out.Took <= 0 || out.TLS || out.Unknown || out.Suppress || out.Reply.Host != "127.0.0.1" {
					t.Errorf("%+v", out)
				}
			}
			mails := h.took()
			if len(mails) != 3 || h.connections() != 1 {
				t.Fatalf("%d mails over %d connections", len(mails), h.connections())
			}
			from := "MAIL FROM:<b.1@bounces.example.org>"
			if name == "pipelined" {
				from += " SIZE=40"
			}
			if m := mails[2]; m.from != from || m.to != "RCPT TO:<a@example.com>" || m.data != "Subject: hello\r\n\r\nGood morning.\r\n.dots\r\n" {
				t.Errorf("%+v", m)
			}
			if h.lines()[0] != "1:EHLO out.example.org" {
				t.Error(h.lines()[0])
			}
		})
	}
}

func TestNullSender(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	e := letter("a@example.com")
	e.From = ""
	want(t, newClient(t, Config{Route: h.addr}).Deliver(t.Context(), e), "delivered 250 2.0.0 dot")
	if from := h.took()[0].from; !strings.HasPrefix(from, "MAIL FROM:<> ") {
		t.Error(from)
	}
}

// TestRefusals sends one refused message and a good one: the second must not suffer from the first.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name     string
		script   script
		expect   string
		suppress bool
	}{
		{"unknown user", answers("RCPT", "550 5.1.1 no such user"), "bounced 550 5.1.1 rcpt", true},
		{"policy at RCPT", answers("RCPT", "550 5.7.1 go away"), "bounced 550 5.7.1 rcpt", false},
		{"greylisted", answers("RCPT", "451 4.7.1 try later"), "deferred 451 4.7.1 rcpt", false},
		{"sender refused", answers("MAIL", "553 5.1.8 no such sender domain"), "bounced 553 5.1.8 mail", false},
		{"sender later", answers("MAIL", "452 4.3.1 disk full"), "deferred 452 4.3.1 mail", false},
		{"DATA refused", answers("DATA", "554 5.7.1 not today"), "bounced 554 5.7.1 data", false},
		{"content refused", answers("DOT", "554 5.7.1 spam"), "bounced 554 5.7.1 dot", false},
		{"content later", answers("DOT", "451 4.3.0 ouch"), "deferred 451 4.3.0 dot", false},
		{"421 to RCPT", answers("RCPT", "421 4.7.0 too many"), "deferred 421 4.7.0 rcpt", false},
		{"354 in spite of it", answers("RCPT", "550 5.1.1 no such user", "DATA", "354 go on"), "bounced 550 5.1.1 rcpt", true},
		{"354 and 250 in spite of it", answers("RCPT", "550 5.1.1 no such user", "DATA", "354 go on", "DOT", "250 ok"), "bounced 550 5.1.1 rcpt", true},
		{"354 to no sender", answers("MAIL", "550 5.7.1 no", "DATA", "354 go on"), "bounced 550 5.7.1 mail", false},
	} {
		for _, ext := range [][]string{pipelining, nil} {
			name := c.name
			if ext == nil {
				name += ", stepwise"
			}
			t.Run(name, func(t *testing.T) {
				bad := true
				h := startHost(t, "", ext, func(p *peer, verb, line string, n int) string {
					if verb == "MAIL" {
						bad = strings.Contains(line, "<bad@")
					}
					if bad && verb != "GREETING" && verb != "EHLO" {
						return c.script(p, verb, line, n)
					}
					return ""
				})
				client := newClient(t, Config{Route: h.addr})
				e := letter("a@example.com")
				e.From = "bad@example.org"
				out := client.Deliver(t.Context(), e)
				want(t, out, c.expect)
				if out.Suppress != c.suppress {
					t.Errorf("suppress is %v", out.Suppress)
				}
				want(t, client.Deliver(t.Context(), letter("b@example.com")), "delivered 250 2.0.0 dot")
				for _, m := range h.took() {
					if m.data != "" && strings.Contains(m.from, "bad@") && c.expect[:7] == "bounced" && !strings.HasSuffix(c.expect, "dot") {
						t.Errorf("content was sent after a refusal: %+v", m)
					}
				}
			})
		}
	}
}

func TestRefusedRecipientEndsInOneDot(t *testing.T) {
	h := startHost(t, "", pipelining, answers("RCPT", "550 5.1.1 no such user", "DATA", "354 go on"))
	c := newClient(t, Config{Route: h.addr})
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "bounced 550 5.1.1 rcpt")
	if lines := h.lines(); lines[len(lines)-1] != "1:." || h.took()[0].data != "" {
		t.Errorf("%q", lines)
	}
}

func TestOpenTransactionIsResetBeforeTheNext(t *testing.T) {
	h := startHost(t, "", pipelining, func(_ *peer, verb, _ string, n int) string {
		if verb == "RCPT" && n == 1 {
			return "450 4.2.1 later"
		}
		return ""
	})
	c := newClient(t, Config{Route: h.addr})
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "deferred 450 4.2.1 rcpt")
	want(t, c.Deliver(t.Context(), letter("b@example.com")), "delivered 250 2.0.0 dot")
	if !slices.Contains(h.lines(), "1:RSET") || h.connections() != 1 {
		t.Errorf("%q over %d connections", h.lines(), h.connections())
	}
}

func TestHello(t *testing.T) {
	t.Run("HELO for an old host", func(t *testing.T) {
		h := startHost(t, "", nil, answers("EHLO", "502 what?"))
		want(t, newClient(t, Config{Route: h.addr}).Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
		if !slices.Contains(h.lines(), "1:HELO out.example.org") {
			t.Errorf("%q", h.lines())
		}
	})
	for name, c := range map[string]struct {
		script script
		expect string
	}{
		"5xx greeting":      {answers("GREETING", "554 5.7.1 not you"), "deferred 554 5.7.1 greeting"},
		"4xx greeting":      {answers("GREETING", "421 4.3.2 busy"), "deferred 421 4.3.2 greeting"},
		"EHLO refused":      {answers("EHLO", "550 5.7.1 not you"), "deferred 550 5.7.1 helo"},
		"HELO refused":      {answers("EHLO", "500 what?", "HELO", "550 5.7.1 not you"), "deferred 550 5.7.1 helo"},
		"no greeting":       {answers("GREETING", drop), "deferred - 4.4.2 greeting"},
		"endless greeting":  {answers("GREETING", flood), "deferred - 4.5.0 greeting"},
		"long greeting":     {answers("GREETING", "220 "+strings.Repeat("x", 3000)), "deferred - 4.5.0 greeting"},
		"mixed greeting":    {answers("GREETING", "220-hello\r\n421 or not"), "deferred - 4.5.0 greeting"},
		"not SMTP":          {answers("GREETING", "HTTP/1.1 400 Bad Request"), "deferred - 4.5.0 greeting"},
		"silent greeting":   {answers("GREETING", hang), "deferred - 4.4.2 greeting"},
		"dripping greeting": {answers("GREETING", drip), "deferred - 4.4.2 greeting"},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, "", pipelining, c.script)
			client := newClient(t, Config{Route: h.addr, Timeouts: quick()})
			want(t, client.Deliver(t.Context(), letter("a@example.com")), c.expect)
			h.awaitClosed(1)
		})
	}
}

// TestFaults breaks the dialogue at every stage, in every way: the attempt is over in time, is never a bounce, and
// says when the message may have arrived.
func TestFaults(t *testing.T) {
	for _, verb := range []string{"MAIL", "RCPT", "DATA", "DOT"} {
		for what, enhanced := range map[string]string{hang: "4.4.2", drop: "4.4.2", reset: "4.4.2", drip: "4.4.2", "999 what": "4.5.0",
			"354 go on": "4.5.0", "250-ok\r\n550 not ok": "4.5.0", "\x00\x00": "4.5.0", "250 too early": "4.5.0"} {
			if verb == "DATA" && what == "354 go on" || verb != "DATA" && what == "250 too early" {
				continue
			}
			for _, ext := range [][]string{pipelining, nil} {
				t.Run(verb+" "+what, func(t *testing.T) {
					h := startHost(t, "", ext, answers(verb, what))
					c := newClient(t, Config{Route: h.addr, Timeouts: quick()})
					out := c.Deliver(t.Context(), letter("a@example.com"))
					want(t, out, "deferred - "+enhanced+" "+strings.ToLower(verb))
					if out.Unknown != (verb == "DOT") {
						t.Errorf("unknown is %v", out.Unknown)
					}
					if out.Took > 1500*time.Millisecond {
						t.Errorf("took %v", out.Took)
					}
					h.awaitClosed(1)
				})
			}
		}
	}
}

func TestTotalTimeBoundsAnAttempt(t *testing.T) {
	slow := func(_ *peer, verb, _ string, _ int) string {
		<-time.After(150 * time.Millisecond)
		return ""
	}
	h := startHost(t, "", nil, slow)
	times := quick()
	times.Total = 400 * time.Millisecond
	c := newClient(t, Config{Route: h.addr, Timeouts: times})
	out := c.Deliver(t.Context(), letter("a@example.com"))
	if out.Verdict != sender.OutcomeDeferred || out.Took > 700*time.Millisecond {
		t.Errorf("%+v", out)
	}
}

func TestCancelClosesAtOnce(t *testing.T) {
	for _, verb := range []string{"GREETING", "MAIL", "DOT"} {
		t.Run(verb, func(t *testing.T) {
			reached := make(chan struct{})
			h := startHost(t, "", pipelining, func(_ *peer, v, _ string, _ int) string {
				if v == verb {
					close(reached)
					return hang
				}
				return ""
			})
			c := newClient(t, Config{Route: h.addr})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-reached; cancel() }()
			out := c.Deliver(ctx, letter("a@example.com"))
			if out.Verdict != sender.OutcomeDeferred || out.Reply.Enhanced != "4.3.2" || out.Unknown != (verb == "DOT") {
				t.Errorf("%+v", out)
			}
			h.awaitClosed(1)
		})
	}
}

func TestSize(t *testing.T) {
	h := startHost(t, "", []string{"PIPELINING", "SIZE 39"}, nil)
	c := newClient(t, Config{Route: h.addr})
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "bounced - 5.3.4 mail")
	if slices.ContainsFunc(h.lines(), func(l string) bool { return strings.Contains(l, "MAIL") }) {
		t.Errorf("%q", h.lines())
	}
	h = startHost(t, "", []string{"PIPELINING", "SIZE 0"}, nil) // no fixed limit: RFC 1870 §4
	want(t, newClient(t, Config{Route: h.addr}).Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
}

func TestLargeMessageAndEarlyRefusal(t *testing.T) {
	e := letter("a@example.com")
	e.Data = []byte(strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 100_000) + ".\r\n")
	h := startHost(t, "", []string{"PIPELINING"}, nil)
	want(t, newClient(t, Config{Route: h.addr}).Deliver(t.Context(), e), "delivered 250 2.0.0 dot")
	if got := len(h.took()[0].data); got != len(e.Data)-3 {
		t.Errorf("%d bytes arrived of %d", got, len(e.Data)-3)
	}
	// A host that does not read: the write times out, and the message has certainly not arrived.
	e.Data = bytes.Repeat(e.Data[:len(e.Data)-3], 6)
	e.Data = append(e.Data, ".\r\n"...)
	h = startHost(t, "", []string{"PIPELINING"}, func(p *peer, verb, _ string, _ int) string {
		if verb == "DATA" {
			_, _ = p.conn.Write([]byte("354 go on\r\n"))
			<-p.h.t.Context().Done()
			return drop
		}
		return ""
	})
	out := newClient(t, Config{Route: h.addr, Timeouts: quick()}).Deliver(t.Context(), e)
	want(t, out, "deferred - 4.4.2 data")
	if out.Unknown {
		t.Error("the final dot was not sent, and the outcome is unknown")
	}
}

func TestHostThatSpeaksOutOfTurn(t *testing.T) {
	h := startHost(t, "", pipelining, answers("DATA", "354 go on\r\n250 2.0.0 queued already"))
	want(t, newClient(t, Config{Route: h.addr}).Deliver(t.Context(), letter("a@example.com")), "deferred - 4.5.0 data")
	if n := len(h.took()); n != 0 {
		t.Errorf("%d mails were sent", n)
	}
	h = startHost(t, "", pipelining, answers("DOT", "250 2.0.0 ok\r\n250 2.0.0 and ok"))
	c := newClient(t, Config{Route: h.addr})
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
	want(t, c.Deliver(t.Context(), letter("a@example.com")), "delivered 250 2.0.0 dot")
	if h.connections() != 2 {
		t.Error("a connection with an unasked answer was used again")
	}
}

// TestStill calls an attempt off at the last moment: the host has agreed to take the content and gets none of it.
func TestStill(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	c := newClient(t, Config{Route: h.addr})
	e := letter("a@example.com")
	e.Still = func() error { return errors.New("too late") }
	out := c.Deliver(t.Context(), e)
	want(t, out, "deferred - 4.3.2 data")
	if out.Reply.Text != "too late" || out.Unknown {
		t.Errorf("%+v", out)
	}
	e.Still = func() error { return nil }
	want(t, c.Deliver(t.Context(), e), "delivered 250 2.0.0 dot")
	if n := len(h.took()); n != 1 || h.connections() != 2 {
		t.Errorf("%d mails over %d connections, want one over the second", n, h.connections())
	}
}
