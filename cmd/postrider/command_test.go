package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// use runs the command line as main does, and gives its exit code.
func use(t *testing.T, args ...string) (code int, out string, err error) {
	t.Helper()
	t.Setenv("POSTRIDER_CONFIG", "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing here may come so far as to run
	c := command()
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetArgs(args)
	if err = c.ExecuteContext(ctx); err != nil {
		code = exitCode(err)
	}
	return code, b.String(), err
}

// TestWrongUse exits 2 and says what is wrong.
func TestWrongUse(t *testing.T) {
	for line, says := range map[string]string{
		"nonsense": "nonsense", "--nonsense": "nonsense", "dev --nonsense": "dev --help", "dev extra": "dev --help", "serve extra": "extra",
		"account": "say what to do", "key": "say what to do", "shards": "say what to do", "account nonsense": "nonsense",
		"account show": "accepts 1 arg", "account show 1 2": "accepts 1 arg", "account show x": "ID must be a number", "account show 0": "ID must be a number", "account show -- -1": "ID must be a number",
		"account create": "--name", "account create --name": "--name", "account create extra --name n": "extra",
		"key create": "--account", "key create --account x": "--account", "key create --account 1 --scope root": "--scope must be", "key revoke": "accepts 1 arg", "key revoke x": "KEYID",
		"account list": "--config FILE", "key list": "--config FILE", "shards list": "--config FILE", "account create --name n": "--config FILE", "serve": "--config FILE",
		"serve --roles api,cook": "cook", "dev --servers 0": "--servers", "dev --servers 17": "--servers", "dev --shards 0": "--shards", "dev --shards 1025": "--shards",
		"dev --search grep": "--search", "dev --log xml": "--log", "dev --log-level loud": "loud", "dev --servers x": "servers",
	} {
		if code, _, err := use(t, strings.Fields(line)...); code != 2 || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: exit %d, %v, want 2: %s", line, code, err, says)
		}
	}
	if code, _, err := use(t, "account", "create", "--name", strings.Repeat("n", 201)); code != 2 {
		t.Errorf("a name of 201 bytes: exit %d, %v", code, err)
	}
}

// TestHelp exits 0 everywhere, and so does postrider alone.
func TestHelp(t *testing.T) {
	for _, line := range []string{"", "--help", "-h", "help", "--version", "dev --help", "serve --help", "account --help", "account create --help", "key revoke --help", "shards list -h", "help account create"} {
		if code, out, err := use(t, strings.Fields(line)...); code != 0 || out == "" {
			t.Errorf("%q: exit %d, %v, %q", line, code, err, out)
		}
	}
}

// TestBadConfigurationExits1, as opposed to wrong use; flags may stand before or after the arguments.
func TestBadConfigurationExits1(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"account list --config ", "account show 1 --config ", "serve --config "} {
		if code, _, err := use(t, strings.Fields(line+bad)...); code != 1 || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("%s: exit %d, %v", line, code, err)
		}
	}
	if code, _, err := use(t, "account", "show", "--config", bad, "1"); code != 1 || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("flags first: exit %d, %v", code, err)
	}
	if code, _, err := use(t, "dev", "--search", "elasticsearch", "--dir", t.TempDir()); code != 1 {
		t.Errorf("what this version does not have: exit %d, %v", code, err)
	}
}

func TestConfigFromEnvironment(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("POSTRIDER_CONFIG", bad)
	c := command()
	c.SetArgs([]string{"account", "list"})
	if err := c.Execute(); err == nil || exitCode(err) != 1 || !strings.Contains(err.Error(), bad) {
		t.Error(err)
	}
}

func TestPrint(t *testing.T) {
	c := command()
	var b bytes.Buffer
	c.SetOut(&b)
	var none []string
	if err := printJSON(c, none); err != nil || b.String() != "[]\n" {
		t.Errorf("an empty list: %q, %v", b.String(), err)
	}
	b.Reset()
	if err := printTable(c, []string{"A", "LONG"}, [][]string{{"x", "1"}, {"longer", "2"}}); err != nil || b.String() != "A       LONG\nx       1\nlonger  2\n" {
		t.Errorf("a table: %q, %v", b.String(), err)
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 12_345_678: "12.3 MB", 5_000_000_000_000_000: "5000.0 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
