package deliver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postrider/postrider/sender"
)

const text = "Subject: hello\r\n\r\nGood morning.\r\n..dots\r\n.\r\n"

func letter(to string) Envelope {
	return Envelope{From: "b.1@bounces.example.org", To: to, Data: []byte(text), Size: len(text) - 4}
}

// newClient makes a client, runs it, and stops it at the end of the test.
func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Hostname == "" {
		cfg.Hostname = "out.example.org"
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := c.pool.size(); n != 0 {
			t.Errorf("%d connections are open after the end", n)
		}
		if len(c.pool.sites) != 0 {
			t.Errorf("%d sites are remembered after the end", len(c.pool.sites))
		}
	})
	return c
}

// quick are times short enough to wait for.
func quick() Timeouts {
	d := 200 * time.Millisecond
	return Timeouts{Connect: d, Greeting: d, Command: d, Data: d, Block: d, Dot: d, Total: 2 * time.Second}
}

// want holds an outcome against "delivered|deferred|bounced CODE ENHANCED STAGE"; - stands for an empty part.
func want(t *testing.T, out sender.Outcome, expect string) {
	t.Helper()
	if got := describe(out); got != expect {
		t.Errorf("got %s, want %s (%+v)", got, expect, out)
	}
}

func describe(out sender.Outcome) string {
	verdict := map[sender.Verdict]string{sender.OutcomeDelivered: "delivered", sender.OutcomeDeferred: "deferred", sender.OutcomeBounced: "bounced"}[out.Verdict]
	code, enhanced := "-", out.Reply.Enhanced
	if out.Reply.Code != 0 {
		code = string([]byte{byte('0' + out.Reply.Code/100), byte('0' + out.Reply.Code/10%10), byte('0' + out.Reply.Code%10)})
	}
	if enhanced == "" {
		enhanced = "-"
	}
	return strings.Join([]string{verdict, code, enhanced, out.Reply.Stage}, " ")
}

func TestNewRefusesBadConfigurations(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no hostname":       {},
		"hostname of two":   {Hostname: "a b"},
		"route, no port":    {Hostname: "a.b", Route: "example.com"},
		"negative time":     {Hostname: "a.b", Route: "h:1", Timeouts: Timeouts{Dot: -1}},
		"negative limit":    {Hostname: "a.b", Route: "h:1", PerSite: -1},
		"port out of range": {Hostname: "a.b", Port: 70000},
		"resolver, no port": {Hostname: "a.b", Resolver: []string{"127.0.0.1"}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	reg := prometheus.NewRegistry()
	if _, err := New(Config{Hostname: "a.b", Route: "h:1", Metrics: reg}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Hostname: "a.b", Route: "h:1", Metrics: reg}); err == nil {
		t.Error("metrics registered twice without an error")
	}
}

func TestEnvelopesThatCannotBeSent(t *testing.T) {
	h := startHost(t, "", pipelining, nil)
	c := newClient(t, Config{Route: h.addr})
	for to, expect := range map[string]string{
		"a@b.c> NOTIFY=NEVER": "bounced - 5.1.3 rcpt",
		"a@b.c\r\nDATA":       "bounced - 5.1.3 rcpt",
		"nobody":              "bounced - 5.1.3 rcpt",
		"@b.c":                "bounced - 5.1.3 rcpt",
	} {
		want(t, c.Deliver(t.Context(), letter(to)), expect)
	}
	e := letter("a@example.com")
	e.From = "x@y>\n"
	want(t, c.Deliver(t.Context(), e), "bounced - 5.1.7 mail")
	e = letter("a@example.com")
	e.Data = []byte("no end\r\n")
	want(t, c.Deliver(t.Context(), e), "deferred - 4.3.0 data")
	if h.connections() != 0 {
		t.Error("connected for a message that cannot be sent")
	}
}

func TestInternationalAddresses(t *testing.T) {
	h := startHost(t, "", append([]string{"SMTPUTF8"}, pipelining...), nil)
	c := newClient(t, Config{Route: h.addr})
	want(t, c.Deliver(t.Context(), letter("a@Bücher.example")), "delivered 250 2.0.0 dot")
	want(t, c.Deliver(t.Context(), letter("jürgen@bücher.example")), "delivered 250 2.0.0 dot")
	mails := h.took()
	if mails[0].to != "RCPT TO:<a@xn--bcher-kva.example>" || strings.Contains(mails[0].from, "SMTPUTF8") {
		t.Errorf("domain alone: %q %q", mails[0].to, mails[0].from)
	}
	if mails[1].to != "RCPT TO:<jürgen@xn--bcher-kva.example>" || !strings.HasSuffix(mails[1].from, " SMTPUTF8") {
		t.Errorf("local part: %q %q", mails[1].to, mails[1].from)
	}
	plain := startHost(t, "", pipelining, nil)
	c = newClient(t, Config{Route: plain.addr})
	out := c.Deliver(t.Context(), letter("jürgen@example.com"))
	want(t, out, "bounced - 5.6.7 mail")
	if out.Suppress {
		t.Error("the address is suppressed for what the host cannot do")
	}
}

func TestMetricsCountOutcomesAndConnections(t *testing.T) {
	h := startHost(t, "", pipelining, func(_ *peer, verb, line string, _ int) string {
		if verb == "RCPT" && strings.Contains(line, "bounce@") {
			return "550 5.1.1 no such user"
		}
		return ""
	})
	reg := prometheus.NewRegistry()
	c := newClient(t, Config{Route: h.addr, Metrics: reg})
	for _, to := range []string{"a@example.com", "bounce@example.com", "b@example.com"} {
		c.Deliver(t.Context(), letter(to))
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, n := range map[string]float64{
		"postrider_deliver_attempts_total delivered": 2, "postrider_deliver_attempts_total bounced": 1,
		"postrider_deliver_connections_total fresh": 1, "postrider_deliver_connections_total reused": 2,
		"postrider_deliver_open_connections": 1, "postrider_deliver_attempt_seconds": 3,
	} {
		if got[key] != n {
			t.Errorf("%s is %v, want %v", key, got[key], n)
		}
	}
}
