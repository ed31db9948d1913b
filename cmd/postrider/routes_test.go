package main

import (
	"strings"
	"testing"
)

// TestSourcesAndPools reads addresses, warm-up and pools, and names what is wrong.
func TestSourcesAndPools(t *testing.T) {
	d := deliveryConfig{Sources: []sourceConfig{{Address: "192.0.2.1", Pool: "news", Warmup: []int{50, 100}, Since: "2026-11-24"}, {Address: "192.0.2.2"}},
		Pools: map[string]string{"7": "news"}, Rules: []ruleConfig{{Match: "*.google.com", Connections: 3, Rate: 2.5}}}
	sources, err := d.sources()
	if err != nil || len(sources) != 2 || sources[0].Pool != "news" || sources[0].Since.Day() != 24 || sources[1].Address.String() != "192.0.2.2" {
		t.Errorf("%+v, %v", sources, err)
	}
	if r := d.rules(); len(r) != 1 || r[0].Match != "*.google.com" || r[0].Connections != 3 || r[0].RatePerSecond != 2.5 {
		t.Errorf("%+v", r)
	}
	pool, err := d.pools()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		account     int64
		asked, want string
	}{{7, "", "news"}, {8, "", ""}, {8, "news", ""}, {8, "Main Pool", ""}, {7, "unknown", "news"}} {
		if got := pool(c.account, c.asked); got != c.want {
			t.Errorf("account %d that asks for %q: pool %q", c.account, c.asked, got)
		}
	}
	for says, bad := range map[string]deliveryConfig{
		"sources[0].address":   {Sources: []sourceConfig{{Address: "mail.example.com"}}},
		"sources[0].since":     {Sources: []sourceConfig{{Address: "192.0.2.1", Warmup: []int{1}}}},
		"no account number":    {Pools: map[string]string{"shop": ""}},
		"no source belongs to": {Pools: map[string]string{"7": "news"}},
	} {
		_, err := bad.sources()
		if err == nil {
			_, err = bad.pools()
		}
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(says, "no ")) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
