package e2e

import (
	"os"
	"testing"
	"time"
)

// TestPeers delivers as in the world, by MX to hosts of many kinds: real ones, broken ones and evil ones. It waits for many
// time-outs and for sites that rest, so it runs with the full tests alone (make test-full).
func TestPeers(t *testing.T) {
	if os.Getenv("POSTRIDER_FULL") == "" {
		t.Skip("takes minutes: make test-full runs it")
	}
	t.Parallel()
	p := newPeers(t)
	t.Run("all at once", func(t *testing.T) {
		t.Run("smtp-sink", func(t *testing.T) { t.Parallel(); testSinks(t, p) })
		t.Run("hostile", func(t *testing.T) { t.Parallel(); testHostile(t, p) })
		t.Run("injected", func(t *testing.T) { t.Parallel(); testInjected(t, p) })
		t.Run("site down", func(t *testing.T) { t.Parallel(); testSiteDown(t, p) })
	})
	t.Run("DNS", func(t *testing.T) { testDNS(t, p) })
	t.Run("Haraka", func(t *testing.T) { testHaraka(t, p) })
	wait(t, 20*time.Second, "nothing to be in hand", func() bool { return p.metric("postrider_in_hand") == 0 })
}
