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

	"github.com/postrider/postrider/shards/shardtest"
)

// TestDomainCommands runs them against real shards and a DNS server that is not there.
func TestDomainCommands(t *testing.T) {
	e, _, _ := shardtest.Own(t, 2)
	for _, name := range []string{"one", "two"} {
		if _, _, err := e.Shards.CreateAccount(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "postrider.toml")
	text := fmt.Sprintf("directory = %q\nsecret = %q\nhostname = \"mx.example.net\"\nqueue.dir = \"queue\"\ndelivery.resolvers = [\"127.0.0.1:1\"]\n[[servers]]\nname = \"own\"\ndsn = %q\n",
		e.Directory, strings.Repeat("0f", 32), e.Servers[0].DSN)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line, says string
		code       int
	}{
		{"add example.com", "--account ID is needed", 2},
		{"add", "accepts 1 arg", 2},
		{"add example.com --account 0", "--account ID is needed", 2},
		{"add example.com --account 9", "account 9: no such account", 1},
		{"add nodots --account 1", "is not a domain name", 1},
		{"show example.com", "no account has the domain example.com: postrider domain add", 1},
		{"add Example.com --account 1", "example.com of account 1: verified: no, checked: never", 0},
		{"show example.com", "TXT  _postrider.example.com\n    postrider-verify=", 0},
		{"show example.com", "CNAME  bounces.example.com\n    bounces.mx.example.net\n", 0},
		{"check example.com", "the DNS server did not answer: try again later", 0},
		{"rotate example.com", "dkim-next", 0},
		{"sign example.com all", "say both or ed25519", 2},
		{"sign example.com ed25519", "publish it and check the domain first", 1},
		{"sign example.com both", "dkim ", 0},
		{"show example.com --account 2", "account 2 does not have the domain", 1},
		{"add example.com --account 2", "of account 2", 0},
		{"show example.com", "say which with --account ID", 1},
		{"vouch vouched.example.com", "--account ID is needed", 2},
		{"vouch vouched.example.com --account 9", "account 9: no such account", 1},
		{"vouch nodots --account 2", "is not a domain name", 1},
		{"vouch vouched.example.com --account 2", "vouched.example.com of account 2: verified: since", 0},
		{"sign vouched.example.com ed25519", "verified: since", 0},
		{"vouch Example.com --account 2 --ed25519", "example.com of account 2: verified: since", 0}, // its RSA record is needed no more
		{"list", "--account ID is needed", 2},
		{"list --account 1", "example.com  no        ", 0},
		{"list --account 1 --json", `[{"domain":"example.com","account":1,"verified":false`, 0},
	} {
		code, out := domainWords(t, append(strings.Fields(c.line), "--config", file)...)
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("domain %s: exit %d, want %d: %s\nwant %s", c.line, code, c.code, out, c.says)
		}
	}
	checkDomainAnswer(t, file)
}

func checkDomainAnswer(t *testing.T, file string) {
	t.Helper()
	_, out := domainWords(t, "show", "example.com", "--account", "2", "--json", "--config", file)
	var got struct {
		Domain   string
		Verified *bool
		Records  []struct{ Name, Type, Value, Purpose string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Domain != "example.com" || got.Verified == nil || !*got.Verified || len(got.Records) != 5 {
		t.Errorf("%s, %v", out, err)
	}
	for _, r := range got.Records {
		if !strings.HasSuffix(r.Name, "example.com") || r.Type == "" || r.Value == "" || r.Purpose == "" {
			t.Errorf("%+v", r)
		}
	}
}

func domainWords(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	c := domainCommand()
	c.SilenceUsage, c.SilenceErrors = true, true
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetArgs(args)
	if err := c.ExecuteContext(t.Context()); err != nil {
		return exitCode(err), err.Error()
	}
	return 0, b.String()
}
