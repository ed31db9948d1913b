package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
)

const secretHex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// minimal is a file with what has no default, and nothing else.
const minimal = `directory = "postgres://d"
hostname = "mail.example.com"
secret = "` + secretHex + `"
[[servers]]
name = "pg1"
dsn = "postgres://s"
[queue]
dir = "/var/lib/queue"
`

func loadText(t *testing.T, text string) (config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postrider.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(path)
}

func TestMinimalConfig(t *testing.T) {
	c, err := loadText(t, minimal)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Directory, want.Hostname, want.ReturnPathDomain, want.Secret = "postgres://d", "mail.example.com", "bounces.mail.example.com", secretHex
	want.Servers, want.Queue = []serverConfig{{Name: "pg1", DSN: "postgres://s"}}, queueConfig{Dir: "/var/lib/queue"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("read as %+v", c)
	}
	if key := c.secret(); key[0] != 0 || key[1] != 1 || key[31] != 31 {
		t.Errorf("secret %x", key)
	}
}

func TestDurations(t *testing.T) {
	c, err := loadText(t, minimal+"[delivery]\nretry = [\"1s\", \"1m30s\", \"4h\"]\nlife = \"120h\"\ncommand_timeout = \"30s\"\n")
	if err != nil || !reflect.DeepEqual(c.Delivery.Retry, []duration{{time.Second}, {90 * time.Second}, {4 * time.Hour}}) || c.Delivery.Life.Duration != 5*24*time.Hour ||
		c.Delivery.Command.Duration != 30*time.Second || c.Delivery.Sweep.Duration != 15*time.Second {
		t.Errorf("%+v, %v", c.Delivery, err)
	}
	for _, bad := range []string{"life = 5", "life = \"5 days\"", "life = \"\"", "retry = [\"x\"]", "retry = \"1s\""} {
		if _, err := loadText(t, minimal+"[delivery]\n"+bad+"\n"); err == nil || !strings.Contains(err.Error(), "postrider.toml") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestBadConfigs has each mistake be named with the file and the setting.
func TestBadConfigs(t *testing.T) {
	without := func(line string) string { return strings.Replace(minimal, line, "", 1) }
	for name, c := range map[string]struct{ text, says string }{
		"unknown":          {minimal + "dirr = \"x\"\n", `unknown setting "queue.dirr"`},
		"unknown at top":   {"htpp = \":1\"\n" + minimal, `unknown setting "htpp"`},
		"unknown table":    {minimal + "[serch]\nx = 1\n", `unknown setting "serch`},
		"no TOML":          {"directory: x", "postrider.toml"},
		"wrong type":       {"shards = \"many\"\n" + minimal, "shards"},
		"no directory":     {without(`directory = "postgres://d"`), "directory is missing"},
		"no servers":       {without("[[servers]]\nname = \"pg1\"\ndsn = \"postgres://s\"\n"), "servers is missing"},
		"no dsn":           {without(`dsn = "postgres://s"`), "servers[0] needs name and dsn"},
		"no name":          {without(`name = "pg1"`), "servers[0] needs name and dsn"},
		"no hostname":      {without(`hostname = "mail.example.com"`), "hostname is missing"},
		"no secret":        {without(`secret = "` + secretHex + `"`), "secret must be 64 hex digits"},
		"short secret":     {strings.Replace(minimal, secretHex, secretHex[:62], 1), "secret must be 64 hex digits"},
		"secret not hex":   {strings.Replace(minimal, secretHex, strings.Repeat("x", 64), 1), "secret must be 64 hex digits"},
		"no queue":         {without(`dir = "/var/lib/queue"`), "queue needs dir"},
		"login to ours":    {minimal + "user = \"u\"\npassword = \"p\"\n", "queue has user, credentials or tls_… without url"},
		"CA of ours":       {minimal + "tls_ca = \"/ca.pem\"\n", "queue has user, credentials or tls_… without url"},
		"queue for all":    {minimal + "listen = \":4222\"\n", "queue.token is missing"},
		"no retry":         {minimal + "[delivery]\nretry = []\n", "delivery needs"},
		"retry at once":    {minimal + "[delivery]\nretry = [\"1m\", \"0s\"]\n", "delivery needs"},
		"negative retry":   {minimal + "[delivery]\nretry = [\"-1m\"]\n", "delivery needs"},
		"no life":          {minimal + "[delivery]\nlife = \"0s\"\n", "delivery needs"},
		"no sweep":         {minimal + "[delivery]\nsweep = \"0s\"\n", "delivery needs"},
		"no timeout":       {minimal + "[delivery]\ncommand_timeout = \"0s\"\n", "delivery needs"},
		"no retention":     {"retention_days = 0\n" + minimal, "retention_days must be at least 1"},
		"before retention": {"retention_days = -90\n" + minimal, "retention_days must be at least 1"},
		"log format":       {minimal + "[log]\nformat = \"xml\"\n", "log.format must be json or console"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadText(t, c.text)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "postrider.toml") {
				t.Errorf("%v, want: %s", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), secretHex[:62]) {
				t.Error("the secret is in the error")
			}
		})
	}
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none.toml")); err == nil || !strings.Contains(err.Error(), "none.toml") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestSecretFiles has every secret come from a file of its own, as containers hand them in.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"directory": "postgres://d\n", "server": " postgres://s \n", "secret": secretHex + "\r\n", "token": "tok\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := `directory_file = "` + dir + `/directory"
hostname = "mail.example.com"
secret_file = "` + dir + `/secret"
[[servers]]
name = "pg1"
dsn_file = "` + dir + `/server"
[queue]
dir = "/q"
listen = ":4222"
token_file = "` + dir + `/token"
`
	c, err := loadText(t, text)
	if err != nil || c.Directory != "postgres://d" || c.Servers[0].DSN != "postgres://s" || c.Secret != secretHex || c.Queue.Token != "tok" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, name := range []string{"directory", "server", "secret", "token"} {
		if _, err := loadText(t, strings.Replace(text, dir+"/"+name, dir+"/none", 1)); err == nil || !strings.Contains(err.Error(), dir+"/none") {
			t.Errorf("%s from a file that is not there: %v", name, err)
		}
	}
}

// TestExternalQueue reads all there is to say about a queue of somebody else's.
func TestExternalQueue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("pass\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(minimal, `dir = "/var/lib/queue"`, `url = "nats://a,nats://b:4223"
user = "postrider"
password_file = "`+file+`"
tls_ca = "/ca.pem"
tls_cert = "/cert.pem"
tls_key = "/key.pem"`, 1)
	c, err := loadText(t, text)
	want := jobs.Login{User: "postrider", Password: "pass", TLSCA: "/ca.pem", TLSCert: "/cert.pem", TLSKey: "/key.pem"}
	if err != nil || c.Queue.URL != "nats://a,nats://b:4223" || c.Queue.login() != want {
		t.Errorf("%+v, %v", c.Queue, err)
	}
	if _, err := loadText(t, strings.Replace(text, file, file+"x", 1)); err == nil || !strings.Contains(err.Error(), file+"x") {
		t.Errorf("a password from a file that is not there: %v", err)
	}
}

// TestWrittenConfig has what dev writes be read again as it was, by its owner only.
func TestWrittenConfig(t *testing.T) {
	c, err := loadText(t, minimal+"[delivery]\nroute = \"127.0.0.1:25\"\nallow_private = true\nretry = [\"1s\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "written.toml")
	for range 2 { // over an old one too
		if err := c.write(path); err != nil {
			t.Fatal(err)
		}
	}
	again, err := loadConfig(path)
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("read again as %+v, %v", again, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.next")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestLogger(t *testing.T) {
	for _, level := range []string{"debug", "info", "warn", "error"} {
		for _, format := range []string{"json", "console"} {
			if _, err := newLogger(logConfig{Format: format, Level: level}); err != nil {
				t.Errorf("%s, %s: %v", format, level, err)
			}
		}
	}
	if _, err := newLogger(logConfig{Format: "json", Level: "loud"}); err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("an unknown level: %v", err)
	}
}
