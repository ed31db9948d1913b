package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/shards"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestPauseCommands runs them against a real directory.
func TestPauseCommands(t *testing.T) {
	e, _, _ := shardtest.Own(t, 2)
	a, _, err := e.Shards.CreateAccount(context.Background(), "one")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "postrider.toml")
	text := fmt.Sprintf("directory = %q\nsecret = %q\nhostname = \"mx.example.com\"\nqueue.dir = \"queue\"\n[[servers]]\nname = \"own\"\ndsn = %q\n", e.Directory, strings.Repeat("0f", 32), e.Servers[0].DSN)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line, says string
		code       int
	}{
		{"pauses --json", "[]\n", 0},
		{"pause deliver --why upstream_is_down", "deliver paused everywhere\n", 0},
		{fmt.Sprintf("pause deliver --account %d", a.ID), fmt.Sprintf("deliver paused for account %d\n", a.ID), 0},
		{"pause deliver --shard shard_0001 --json", `{"kind":"deliver","shard":"shard_0001","why":"","paused":true}` + "\n", 0},
		{"pauses", "KIND     SHARD       ACCOUNT  SINCE (UTC)", 0},
		{"pauses", "upstream_is_down", 0},
		{"resume deliver --shard shard_0000", "deliver is not paused in shard_0000 (see postrider jobs pauses): no such pause", 1},
		{fmt.Sprintf("resume deliver --account %d", a.ID), "deliver is still paused in shard_0001\n", 0},
		{"resume deliver --json", `{"kind":"deliver","why":"","paused":false}` + "\n", 0},
		{"pause bounce", `KIND must be one of: deliver, not "bounce"`, 2},
		{"resume bounce", "KIND must be one of: deliver", 2},
		{"pause", "accepts 1 arg", 2},
		{"pause deliver --shard=", "--shard is empty", 2},
		{"resume deliver --account 0", "--account must be", 2},
		{"pause deliver --account 1 --shard shard_0000", "not both", 2},
		{"pause deliver --why " + strings.Repeat("x", 201), "at most 200", 2},
		{"pause deliver --account 999", "account 999: no such account", 1},
		{"pause deliver --shard shard_0002", `no shard is called "shard_0002"`, 1},
	} {
		code, out := jobsLine(t, append(strings.Fields(c.line), "--config", file)...)
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("jobs %.60s: exit %d, want %d: %s\nwant %s", c.line, code, c.code, out, c.says)
		}
	}
	_, out := jobsLine(t, "pauses", "--json", "--config", file)
	var left []shards.Pause
	if err := json.Unmarshal([]byte(out), &left); err != nil || len(left) != 1 || left[0].Shard != "shard_0001" || left[0].Since.IsZero() {
		t.Errorf("left at the end: %s, %v", out, err)
	}
}

func jobsLine(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	c := group("jobs", "Jobs", jobsPause(), jobsResume(), jobsPauses())
	c.SilenceUsage, c.SilenceErrors = true, true
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetArgs(args)
	if err := c.ExecuteContext(t.Context()); err != nil {
		return exitCode(err), err.Error()
	}
	return 0, b.String()
}
