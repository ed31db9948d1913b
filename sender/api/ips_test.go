package api

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/postrider/postrider/shards"
)

// openIPs is an API that sends from addresses, and a DNS of some zone lines, which fails for names of out3.
func openIPs(t *testing.T, addresses func() []Address, zone ...string) (w *world, asked *atomic.Int32) {
	t.Helper()
	w, asked = open(t), new(atomic.Int32)
	var records []dns.RR
	for _, line := range zone {
		r, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(r dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeNameError)
		for _, rr := range records {
			if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				m.Rcode = dns.RcodeSuccess
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if strings.HasPrefix(q.Question[0].Name, "out3.") {
			m.Rcode = dns.RcodeServerFailure
		}
		_ = r.WriteMsg(m)
	})}
	run(t, func(ctx context.Context) error {
		context.AfterFunc(ctx, func() { _ = server.Shutdown() })
		return server.ActivateAndServe()
	})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{Shards: w.Shards, Store: w.store, Log: zap.NewNop(), Ready: func() error { return nil }, Addresses: addresses, Resolver: resolver})
	run(t, func(ctx context.Context) error { return a.Run(ctx, l) })
	w.url = "http://" + l.Addr().String()
	return w, asked
}

func fourAddresses() []Address {
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	return []Address{
		{IP: "192.0.2.1", Hostname: "out1.example.com", WarmingUp: true, WarmupStart: day, WarmupEnd: day.AddDate(0, 0, 30), SentToday: 7, LimitToday: 500},
		{IP: "192.0.2.2", Hostname: "out2.example.com", Pool: "news", SentToday: 3},
		{IP: "2001:db8::1", Hostname: "out1.example.com"},
		{IP: "192.0.2.3", Hostname: "out3.example.com", Pool: "news"},
	}
}

// TestIPs reads addresses and pools in Mandrill's shapes.
func TestIPs(t *testing.T) {
	w, _ := openIPs(t, fourAddresses)
	var list []map[string]any
	if w.post(t, "ips/list", "", &list); len(list) != 4 {
		t.Fatalf("list: %v", list)
	}
	unchecked := map[string]any{"enabled": true, "valid": false, "error": "not checked yet: ips/check-custom-dns looks it up"}
	want := map[string]any{"ip": "192.0.2.1", "created_at": "2026-11-20 00:00:00", "pool": "Main Pool", "domain": "out1.example.com", "custom_dns": unchecked,
		"warmup":     map[string]any{"warming_up": true, "start_at": "2026-11-20 00:00:00", "end_at": "2026-12-20 00:00:00"},
		"sent_today": 7.0, "limit_today": 500.0}
	if !reflect.DeepEqual(list[0], want) {
		t.Errorf("an address that warms up: %v", list[0])
	}
	began, err := time.Parse(time.DateTime, list[1]["created_at"].(string))
	if err != nil || time.Since(began).Abs() > time.Minute {
		t.Errorf("created_at: %v %v", list[1], err)
	}
	want = map[string]any{"ip": "192.0.2.2", "created_at": list[1]["created_at"], "pool": "news", "domain": "out2.example.com", "custom_dns": unchecked,
		"warmup": map[string]any{"warming_up": false, "start_at": nil, "end_at": nil}, "sent_today": 3.0, "limit_today": nil}
	if !reflect.DeepEqual(list[1], want) {
		t.Errorf("one without: %v", list[1])
	}
	for text, ip := range map[string]string{"192.0.2.2": "192.0.2.2", "::ffff:192.0.2.2": "192.0.2.2", "2001:DB8:0::0:1": "2001:db8::1"} {
		var one dedicatedIP
		if w.post(t, "ips/info", `,"ip":"`+text+`"`, &one); one.IP != ip {
			t.Errorf("info of %s: %+v", text, one)
		}
	}
	var pools []ipPool
	w.post(t, "ips/list-pools", "", &pools)
	if len(pools) != 2 || pools[0].Name != "Main Pool" || pools[0].CreatedAt != "2026-11-20 00:00:00" || len(pools[0].IPs) != 2 || pools[0].IPs[1].IP != "2001:db8::1" ||
		pools[1].Name != "news" || len(pools[1].IPs) != 2 || pools[1].IPs[1].IP != "192.0.2.3" {
		t.Errorf("pools: %+v", pools)
	}
	for _, call := range []string{"ips/pool-info", "ips/create-pool"} { // the latter has no effect on one that exists
		var one ipPool
		if w.post(t, call, `,"pool":"news"`, &one); !reflect.DeepEqual(one, pools[1]) {
			t.Errorf("%s: %+v", call, one)
		}
	}
}

// TestIPsNone is an installation whose addresses the system chooses.
func TestIPsNone(t *testing.T) {
	w := open(t)
	for _, call := range []string{"ips/list", "ips/list-pools"} {
		var list []any
		if res := w.post(t, call, "", &list); res.StatusCode != http.StatusOK || list == nil || len(list) != 0 {
			t.Errorf("%s: %d %v", call, res.StatusCode, list)
		}
	}
}

// TestIPsRefused has Mandrill's errors for what does not exist, and no success for what is not done.
func TestIPsRefused(t *testing.T) {
	w, asked := openIPs(t, fourAddresses)
	const (
		noIP   = "No dedicated IP with address 192.0.2.9"
		noPool = "No pool named x"
		fixed  = "Nothing was changed: addresses, their pools, names and warm-up are set by the operator, in [[delivery.sources]] of the configuration file"
	)
	unknownIP, unknownPool := errorBody{"error", 13, "Unknown_IP", noIP}, errorBody{"error", 15, "Unknown_Pool", noPool}
	refused := errorBody{"error", -2, "ValidationError", fixed}
	missing := func(field string) errorBody {
		return errorBody{"error", -2, "ValidationError", `Validation error: {"` + field + `":"is needed"}`}
	}
	check := func(call, rest string, want errorBody, status int) {
		t.Helper()
		var got errorBody
		if res := w.post(t, "ips/"+call, rest, &got); got != want || res.StatusCode != status {
			t.Errorf("%s %s: %d %+v", call, rest, res.StatusCode, got)
		}
	}
	for call, changes := range map[string]bool{"info": false, "check-custom-dns": false, "start-warmup": true, "cancel-warmup": true, "set-pool": true, "set-custom-dns": true, "delete": true} {
		rest := `,"pool":"news","domain":"out1.example.com"`
		check(call, rest, missing("ip"), http.StatusUnprocessableEntity)
		check(call, rest+`,"ip":"192.0.2.9"`, unknownIP, http.StatusNotFound)
		if changes {
			check(call, rest+`,"ip":"192.0.2.1"`, refused, http.StatusUnprocessableEntity)
		}
	}
	check("info", `,"ip":"out1"`, errorBody{"error", 13, "Unknown_IP", "No dedicated IP with address out1"}, http.StatusNotFound)
	for _, call := range []string{"pool-info", "delete-pool"} {
		check(call, "", missing("pool"), http.StatusUnprocessableEntity)
		check(call, `,"pool":"x"`, unknownPool, http.StatusNotFound)
	}
	check("delete-pool", `,"pool":"news"`, refused, http.StatusUnprocessableEntity)
	check("create-pool", "", missing("pool"), http.StatusUnprocessableEntity)
	check("create-pool", `,"pool":"x"`, refused, http.StatusUnprocessableEntity)
	check("provision", `,"warmup":true`, refused, http.StatusUnprocessableEntity)
	check("check-custom-dns", `,"ip":"192.0.2.1"`, missing("domain"), http.StatusUnprocessableEntity)
	if n := asked.Load(); n != 0 {
		t.Errorf("%d look-ups for what was refused", n)
	}
}

// TestIPsScopes has a key that reads see addresses and not change them, and one that sends do neither.
func TestIPsScopes(t *testing.T) {
	w, _ := openIPs(t, fourAddresses)
	reads := map[string]bool{"ips/list": true, "ips/info": true, "ips/list-pools": true, "ips/pool-info": true, "ips/check-custom-dns": true}
	for _, scope := range []shards.Scope{shards.ScopeRead, shards.ScopeSend} {
		_, key, err := w.Shards.CreateKey(t.Context(), w.account, scope)
		if err != nil {
			t.Fatal(err)
		}
		w.key = key
		seen := 0
		for name := range (&API{}).methods() {
			if !strings.HasPrefix(name, "ips/") {
				continue
			}
			seen++
			want := http.StatusForbidden
			if scope == shards.ScopeRead && reads[name] {
				want = http.StatusOK
			}
			if res := w.post(t, name, `,"ip":"192.0.2.1","pool":"news","domain":"mail.example.com"`, nil); res.StatusCode != want {
				t.Errorf("%s with scope %s: %d", name, scope, res.StatusCode)
			}
		}
		if seen != 13 {
			t.Errorf("%d calls", seen)
		}
	}
}

// TestIPsCustomDNS checks names in a real DNS, both ways.
func TestIPsCustomDNS(t *testing.T) {
	w, asked := openIPs(t, fourAddresses,
		"out1.example.com. 60 IN A 192.0.2.77", "out1.example.com. 60 IN A 192.0.2.1", "1.2.0.192.in-addr.arpa. 60 IN PTR Out1.Example.com.",
		"out1.example.com. 60 IN AAAA 2001:db8::2", "out2.example.com. 60 IN A 192.0.2.2", "2.2.0.192.in-addr.arpa. 60 IN PTR host2.example.net.")
	check := func(ip, domain, want string) {
		t.Helper()
		var got dnsCheck
		res := w.post(t, "ips/check-custom-dns", `,"ip":"`+ip+`","domain":"`+domain+`"`, &got)
		if res.StatusCode != http.StatusOK || got.Valid != (want == "") || (got.Error == nil) != (want == "") || want != "" && !strings.Contains(*got.Error, want) {
			t.Errorf("%s %s: %d valid %t, %s", ip, domain, res.StatusCode, got.Valid, deref(got.Error))
		}
	}
	check("192.0.2.1", "mail.example.com", "192.0.2.1 greets as out1.example.com, not by this name")
	if n := asked.Load(); n != 0 {
		t.Errorf("%d look-ups for a name that is not configured", n)
	}
	check("192.0.2.1", "OUT1.example.com.", "")
	check("2001:db8::1", "out1.example.com", "out1.example.com has no AAAA record with 2001:db8::1")
	check("192.0.2.2", "out2.example.com", "the reverse DNS (PTR record) of 192.0.2.2 does not name out2.example.com")
	check("192.0.2.3", "out3.example.com", "out3.example.com cannot be looked up just now")
}

func deref(s *string) string {
	if s == nil {
		return "no error"
	}
	return *s
}
