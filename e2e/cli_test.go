package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testCLI runs the operator's commands, for people and for programs.
func testCLI(t *testing.T, d *dev) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *dev)
	}{{"account", cliAccount}, {"key", cliKey}, {"shards", cliShards}, {"jobs", cliJobs}, {"messages", cliMessages}, {"wrong use", cliWrong}, {"configuration", cliConfiguration}, {"help", cliHelp}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, d)
		})
	}
}

// json runs a command that must succeed, with nothing but its answer on stdout.
func (d *dev) json(t *testing.T, into any, args ...string) {
	t.Helper()
	out, stderr, code := d.command(args...)
	if err := json.Unmarshal([]byte(out), into); err != nil || code != 0 || stderr != "" {
		t.Fatalf("%v: exit %d, %v\n%s%s", args, code, err, out, stderr)
	}
}

// table runs a command for people and wants these words in its answer.
func (d *dev) table(t *testing.T, args []string, words ...string) {
	t.Helper()
	out, stderr, code := d.command(args...)
	if code != 0 || stderr != "" {
		t.Errorf("%v: exit %d %s", args, code, stderr)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("%v does not say %q:\n%s", args, w, out)
		}
	}
}

func cliAccount(t *testing.T, d *dev) {
	var made, shown object
	d.json(t, &made, "account", "create", "--name", "Ünïque & Söhne", "--json")
	id := fmt.Sprint(made["account"])
	key, _ := made["key"].(string)
	if made["name"] != "Ünïque & Söhne" || len(key) < 20 {
		t.Fatalf("%v", made)
	}
	if v := d.as(key).must(t, "/api/1.0/users/ping", object{}); v != "PONG!" {
		t.Error(v)
	}
	for _, args := range [][]string{{"account", "show", id, "--json"}, {"account", "show", "--json", id}, {"account", "show", "--config", d.Config, id, "--json"}} {
		d.json(t, &shown, args...)
		if fmt.Sprint(shown["account"]) != id || shown["name"] != made["name"] || !strings.HasPrefix(fmt.Sprint(shown["shard"]), "shard_") || !strings.HasPrefix(fmt.Sprint(shown["server"]), "pg") || shown["created_at"] == nil || shown["key"] != nil {
			t.Errorf("%v: %v", args, shown)
		}
	}
	var list []object
	d.json(t, &list, "account", "list", "--json")
	found := false
	for _, a := range list {
		found = found || fmt.Sprint(a["account"]) == id
		if a["key"] != nil {
			t.Errorf("a list shows a key: %v", a)
		}
	}
	if !found {
		t.Errorf("account %s is not among %d", id, len(list))
	}
	d.table(t, []string{"account", "list"}, "ACCOUNT", "SERVER", "Ünïque & Söhne")
	d.table(t, []string{"account", "show", id}, id, "shard_")
	d.table(t, []string{"account", "create", "--name", "for people"}, "for people", "key ")
	d.fails(t, 1, "no ", "account", "show", "999999")
}

func cliKey(t *testing.T, d *dev) {
	a, _ := d.accountKey(t)
	account := fmt.Sprint(a["account"])
	id, key := d.newKey(t, account, "send")
	if status, _, err := d.as(key).call("/api/1.0/users/ping", object{}); err != nil || status != 200 {
		t.Errorf("the new key: %d %v", status, err)
	}
	out, _, _ := d.command("key", "list", "--account", account, "--json")
	if strings.Contains(out, key) || strings.Contains(out, `"key":`) {
		t.Errorf("the list shows the key:\n%s", out)
	}
	var list []object
	d.json(t, &list, "key", "list", "--account", account, "--json")
	if len(list) != 2 {
		t.Errorf("%v", list)
	}
	for _, k := range list {
		if fmt.Sprint(k["account"]) != account || k["id"] == nil || k["scope"] == nil {
			t.Errorf("%v", k)
		}
	}
	d.table(t, []string{"key", "list", "--account", account}, "SCOPE", "send", "full")
	d.table(t, []string{"key", "list"}, account)
	var revoked object
	d.json(t, &revoked, "key", "revoke", id, "--json")
	d.fails(t, 1, "", "key", "revoke", "99999999")
	d.fails(t, 1, "", "key", "create", "--account", "99999999")
}

func cliShards(t *testing.T, d *dev) {
	var list []struct {
		Shard, Server, State string
		Accounts             int
		Bytes                int64
	}
	d.json(t, &list, "shards", "list", "--json")
	servers, accounts := map[string]int{}, 0
	for _, s := range list {
		servers[s.Server]++
		accounts += s.Accounts
		if s.State != "active" || !strings.HasPrefix(s.Shard, "shard_") || len(s.Shard) != len("shard_0042") || s.Bytes <= 0 {
			t.Errorf("%+v", s)
		}
	}
	if len(list) != 16 || servers["pg1"] != 8 || servers["pg2"] != 8 || accounts < 1 {
		t.Errorf("%d shards on %v with %d accounts", len(list), servers, accounts)
	}
	d.table(t, []string{"shards", "list"}, "SHARD", "shard_0000", "pg2", "active")
}

// fails runs a command that must not succeed: this exit, nothing on stdout, and lines that say this.
func (d *dev) fails(t *testing.T, code int, says string, args ...string) {
	t.Helper()
	_, stderr, got := d.command(args...)
	if got != code || !strings.HasPrefix(stderr, "postrider: ") || !strings.Contains(stderr, says) || strings.Count(stderr, "\n") > 1 {
		t.Errorf("%v: exit %d, %q; want %d, one line that says %q", args, got, stderr, code, says)
	}
}

// cliMessages asks what happened to a mail, by its id alone.
func cliMessages(t *testing.T, d *dev) {
	id := d.send(t, "defer-1@timeline.example")
	d.waitState(t, id, "sent")
	var a struct {
		ID, State, Why string
		Entries        []struct {
			Kind, Transcript string
			Code             int
		}
	}
	d.json(t, &a, "messages", "timeline", id, "--json")
	if a.State != "delivered" || len(a.Entries) != 3 || a.Entries[0].Kind != "accepted" || a.Entries[1].Code != 451 || a.Entries[2].Kind != "delivered" ||
		!strings.Contains(a.Entries[1].Transcript, "RCPT TO:") || !strings.Contains(a.Entries[1].Transcript, "451") {
		t.Errorf("%+v", a)
	}
	d.table(t, []string{"messages", "timeline", id}, "deferred", "451 4.7.1", "delivered at attempt 2")
	d.table(t, []string{"messages", "why", id}, "delivered at attempt 2")
	if _, stderr, code := d.command("messages", "why", strings.Repeat("0", 32)); code != 1 || !strings.Contains(stderr, "no message has the id") {
		t.Errorf("an unknown id: exit %d, %s", code, stderr)
	}
	if _, stderr, code := d.command("messages", "why", "x"); code != 2 || !strings.Contains(stderr, "32 hex digits") {
		t.Errorf("no id: exit %d, %s", code, stderr)
	}
}

func cliWrong(t *testing.T, d *dev) {
	for _, args := range [][]string{{"nonsense"}, {"account", "nonsense"}, {"account"}, {"account", "show"}, {"account", "show", "x"}, {"account", "show", "0"}, {"account", "show", "1", "2"}, {"account", "create"},
		{"account", "create", "--name", ""}, {"account", "create", "--nonsense"}, {"account", "create", "--name"}, {"account", "create", "--name", strings.Repeat("x", 1000)}, {"account", "list", "x"}, {"key", "create"},
		{"key", "create", "--account", "x"}, {"key", "create", "--account", "1", "--scope", "all"}, {"key", "revoke"}, {"key", "revoke", "x"}, {"key", "list", "x"}, {"shards", "list", "x"}, {"shards", "nonsense"}, {"--nonsense"},
		{"dev", "x"}, {"serve", "x"}} {
		d.fails(t, 2, "", args...)
	}
}

func cliConfiguration(t *testing.T, d *dev) {
	good, err := os.ReadFile(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "postrider.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, says := range map[string]string{"/nowhere/postrider.toml": "/nowhere/postrider.toml", file("nonsense"): "postrider.toml", file("colour = 'red'\n" + string(good)): "colour",
		file(""): "directory", file(strings.Replace(string(good), "directory = ", "directory_file = '/nowhere' # ", 1)): "/nowhere"} {
		d.fails(t, 1, says, "account", "list", "--config", path)
	}
	d.fails(t, 1, "", "account", "list", "--config", file(strings.Replace(string(good), "127.0.0.1:", "127.0.0.1:1", 1)))
	for _, verb := range [][]string{{"account", "list"}, {"key", "list"}, {"shards", "list"}, {"serve"}} {
		c := exec.Command(os.Getenv(binaryEnv), verb...)
		c.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, _ := c.CombinedOutput()
		if code := c.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "--config") || !strings.Contains(string(out), "POSTRIDER_CONFIG") {
			t.Errorf("%v without a configuration: exit %d %q", verb, code, out)
		}
	}
	var list []object
	c := exec.Command(os.Getenv(binaryEnv), "account", "list", "--json", "--config="+d.Config)
	out, err := c.Output()
	if err := json.Unmarshal(out, &list); err != nil || len(list) == 0 {
		t.Errorf("--config=FILE: %s %v", out, err)
	}
	if err != nil {
		t.Error(err)
	}
}

func cliHelp(t *testing.T, d *dev) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {}, {"dev", "--help"}, {"serve", "--help"}, {"account", "--help"}, {"account", "create", "--help"}, {"key", "revoke", "--help"}, {"shards", "list", "-h"}, {"help", "dev"}, {"--version"}} {
		out, stderr, code := d.command(args...)
		if code != 0 || stderr != "" || !strings.Contains(out, "ostrider") {
			t.Errorf("%v: exit %d %q %q", args, code, out, stderr)
		}
	}
}

func cliJobs(t *testing.T, d *dev) {
	d.schedule(t, unique(t, "later"), time.Now().Add(24*time.Hour))
	var stats struct {
		Lanes                    []object
		Pending, Scheduled, Dead *int
		Queue                    string
	}
	d.json(t, &stats, "jobs", "stats", "--json")
	if stats.Queue != "up" || stats.Pending == nil || stats.Dead == nil || stats.Scheduled == nil || *stats.Scheduled < 1 || len(stats.Lanes) == 0 {
		t.Errorf("%+v", stats)
	}
	d.table(t, []string{"jobs", "stats"}, "messages scheduled", "dead jobs", "up")
	var dead []object
	d.json(t, &dead, "jobs", "dead", "list", "--json")
	if len(dead) != 0 {
		t.Errorf("dead jobs: %v", dead)
	}
	d.table(t, []string{"jobs", "dead", "list"}, "REASON")
	d.table(t, []string{"jobs", "pauses"}, "KIND")
	if _, stderr, code := d.command("jobs", "pause", "delivery"); code != 2 || !strings.Contains(stderr, "deliver") {
		t.Errorf("pause of an unknown kind: %d %q", code, stderr)
	}
	if out, stderr, code := d.command("jobs", "rebuild", "--json"); code != 0 || !strings.Contains(out, `"rung"`) { // its progress is on stderr
		t.Errorf("rebuild: %d %q %q", code, out, stderr)
	}
	if out, stderr, code := d.command("jobs", "dead", "replay", "7"); code != 1 || out != "" || !strings.Contains(stderr, "no dead job") {
		t.Errorf("replay of nothing: %d %q %q", code, out, stderr)
	}
}
