package house

import (
	"fmt"
	"strings"
	"testing"
)

// Every rule bites: each of these pieces of code is found, by its own rule alone.
func TestRulesBite(t *testing.T) {
	const mod = `"` + module
	for _, c := range []struct{ rule, file, code, want string }{
		{"imports", "sender/spool/spool.go", ``, "not in the import table"},
		{"imports", "shards/tx.go", `import _ ` + mod + `/sender"`, "shards may not import sender"},
		{"imports", "sender/sandbox/mx.go", `import _ ` + mod + `/sender"`, "it may import nothing of ours"},
		{"imports", "sender/compose/mime.go", `import "net"`, "may never import net"},
		{"imports", "schema/schema.go", `import "os"`, "nothing but embed"},
		{"imports", "jobs/run_test.go", `import _ ` + mod + `/shards"`, "jobs may not import shards"},
		{"imports", "sender/deliver/dial_test.go", `import _ ` + mod + `/sender/store"`, "may not import sender/store"},
		{"imports", "e2e/send_test.go", `import _ ` + mod + `/shards/shardtest"`, "e2e may not import"},
		{"imports", "loadtest/pace.go", `import _ ` + mod + `/sender"`, "it may import sender/sandbox"},
		{"homes", "sender/dispatch/lane.go", `import "github.com/nats-io/nats.go"`, "at home only in jobs"},
		{"homes", "sender/relay/relay.go", `import "github.com/labstack/echo/v4"`, "at home only in sender/api, sender/track"},
		{"homes", "sender/api/send.go", `import "github.com/jackc/pgx/v5/pgxpool"`, "at home only in shards"},
		{"homes", "sender/deliver/dial.go", `import "github.com/emersion/go-smtp"`, "at home only in sender/relay"},
		{"homes", "webhooks/hook.go", `import "github.com/elastic/go-elasticsearch/v9"`, "at home only in search"},
		{"names", "sender/names.go", `package helpers`, "says nothing"},
		{"comment", "sender/send.go", `package sender`, "no package comment"},
		{"comment", "e2e/send_test.go", `package e2e`, "no package comment"},
		{"length", "sender/send.go", lines(fileLinesHard), "never over 600"},
		{"length", "sender/send.go", `func long() {` + lines(funcLinesHard) + `}`, "func long has 81 lines"},
		{"interface", "sender/send.go", `type store interface { A(); B(); C(); D() }`, "4 methods"},
		{"interface", "sender/send.go", `func f(s interface { fmt.Stringer; A(); B(); C() }) {}`, "4 methods"},
		{"init", "sender/send.go", `func init() {}`, "init"},
		{"settings", "shards/dsn.go", `import "os"; func f() string { return os.Getenv("PGHOST") }`, "environment"},
		{"settings", "shards/dsn.go", `import env "os"; func f() { _, _ = env.LookupEnv("PGHOST") }`, "environment"},
		{"settings", "sender/send.go", `import "flag"`, "flags"},
		{"settings", "cmd/postrider/key.go", `import "github.com/spf13/pflag"`, "flags"},
		{"settings", "cmd/postrider/key.go", `func f(c *cobra.Command) { c.Flags().Bool("json", false, "") }`, "flags"},
		{"sleep", "sender/send_test.go", `import "time"; func f() { time.Sleep(time.Second) }`, "sleeps"},
		{"bool-error", "sender/send.go", `func f() (bool, error) { return false, nil }`, "two answers"},
		{"bool-error", "sender/send.go", `func f() (err error, ok bool) { return nil, false }`, "two answers"},
		{"bool-error", "sender/send.go", `type f interface{ Has() (bool, error) }`, "two answers"},
		{"sql", "sender/api/send.go", "const q = `\nSELECT id from messages`", "sender/store/store*.go"},
		{"sql", "sender/ledger/ledger.go", "const q = `with m as (select 1) update messages`", "sender/store/store*.go"},
		{"sql", "sender/store/content.go", `const q = "update messages set state = $1"`, "sender/store/store*.go"},
		{"sql", "sender/ledger/ledger.go", `const q = "insert into events values ($1)"`, "sender/store/store*.go"},
		{"sql", "sender/ledger/ledger.go", `const q = "delete from events"`, "sender/store/store*.go"},
	} {
		got := findings(t, c.file, c.code, c.rule == "comment")
		if len(got) != 1 || got[0].soft || got[0].rule != c.rule || !strings.Contains(got[0].text, c.want) {
			t.Errorf("%s: %.80q\n got %v\nwant one finding: …%s…", c.rule, c.code, got, c.want)
		}
	}
}

// Every way to change a package-level variable is found, whatever its scope looks like.
func TestStateBites(t *testing.T) {
	for _, code := range []string{
		`var count int`,
		`var mu = sync.Mutex{}`,
		`var pool = &sync.Pool{New: nil}`,
		`var last atomic.Pointer[int]`,
		`var seen = make(map[string]bool)`,
		`var seen = new(int)`,
		`var n = 1; func f() { n = 2 }`,
		`var n = 1; func f() { n++ }`,
		`var n = 1; func f() { n += 2 }`,
		`var n = 1; func f() { for n = range 3 {} }`,
		`var n = 1; func f() *int { return &n }`,
		`var t = map[int]int{}; func f() { t[1] = 2 }`,
		`var t = map[int]int{}; func f() { delete(t, 1) }`,
		`var t = []int{1}; func f() { clear(t) }`,
		`var t = []int{1}; func f() { (t[1:])[0]-- }`,
		`var t = []T{{}}; type T struct { n int }; func f() { t[0].n = 1 }`,
		`var t = &T{}; type T struct { n int }; func f() { t.n = 1 }`,
		`var t = T{}; type T struct { n int }; func (t *T) add() { t.n++ }; func f() { t.add() }`,
		`var n = 1; func f() { { n := 3; n = 4; _ = n }; n = 2 }`,
	} {
		got := findings(t, "sender/send.go", `import ("sync"; "sync/atomic"); `+code, false)
		if len(got) != 1 || got[0].rule != "state" {
			t.Errorf("%s\n got %v", code, got)
		}
	}
	got := findings(t, "sender/send.go", `import "net/http"; func f() { http.DefaultClient.Timeout = 1 }`, false)
	if len(got) != 1 || !strings.Contains(got[0].text, "package http is changed from outside") {
		t.Errorf("got %v", got)
	}
}

// What is allowed stays allowed: no rule has anything to say about these.
func TestRulesLetPass(t *testing.T) {
	const mod = `"` + module
	for _, c := range []struct{ file, code string }{
		{"sender/send.go", `var _ fmt.Stringer = ID{}`},
		{"sender/send.go", `var errGone = errors.New("gone")`},
		{"sender/send.go", `var word = regexp.MustCompile("x"); func f(s string) bool { return word.MatchString(s) }`},
		{"sender/send.go", `var table = map[int]string{1: "a"}; func f() string { table := map[int]string{}; table[2] = "b"; return table[2] }`},
		{"sender/send.go", `var max = 3; func f(max int) int { max++; return max }`},
		{"sender/send.go", `var names = T{}; type T struct{}; func (T) of() {}; func f() { names.of() }`},
		{"schema/schema.go", "import \"embed\"\n\n//go:embed x.sql\nvar Files embed.FS"},
		{"sender/send.go", `type number interface { int | int64 }; type two interface { A(); B(); C() }`},
		{"sender/send.go", `func f() (T, bool, error) { return T{}, false, nil }; type T struct{}; func (T) init() {}`},
		{"sender/api/send.go", `const a, b, c = "with regards", "Update your settings", "selection"`},
		{"sender/store/store_read.go", `const q = "select 1"`},
		{"sender/store/store_test.go", `const q = "select 1"`},
		{"shards/localpg/user.go", `import "os"; func f() string { return os.Getenv("PATH") }`},
		{"cmd/postrider/config.go", `import ("os"; "github.com/spf13/pflag"); func f() string { return os.Getenv("POSTRIDER_CONFIG") }`},
		{"cmd/loadtest/main.go", `import ("flag"; _ ` + mod + `/loadtest")`},
		{"cmd/postrider/serve.go", `import _ ` + mod + `/sender/dispatch"`},
		{"sender/dispatch/lane.go", `import _ ` + mod + `/sender/compose"`},
		{"sender/dispatch/lane_test.go", `import (_ ` + mod + `/sender/accept"; _ ` + mod + `/shards/shardtest"; _ ` + mod + `/schema")`},
		{"sender/compose/mime_test.go", `import ("os"; "github.com/emersion/go-smtp")`},
		{"loadtest/pace.go", `import "time"; func f() { time.Sleep(1) }`},
		{"shards/shardtest/server.go", `import "github.com/jackc/pgx/v5"`},
		{"sender/send.go", lines(fileLines - 2)},
		{"sender/send.go", `func f() {` + lines(funcLines-2) + `}`},
	} {
		for _, f := range findings(t, c.file, c.code, false) {
			t.Errorf("%.80q: %v", c.code, f)
		}
	}
}

// Between a limit and its hard stop stands a reminder, which does not fail.
func TestSoftLimits(t *testing.T) {
	for _, code := range []string{lines(fileLines), lines(fileLinesHard - 2), `func f() {` + lines(funcLines) + `}`} {
		if got := findings(t, "sender/send.go", code, false); len(got) != 1 || !got[0].soft {
			t.Errorf("got %v, want one soft finding", got)
		}
	}
}

func TestMachineTraces(t *testing.T) {
	for _, content := range []string{
		"see /wo" + "rk/notes.md", "COPY /ro" + "ot/go/pkg /x", "a\nGOPROXY=https://proxy.go" + "lang.org", "../sha" + "red/house.md",
		"https://registry.npm" + "js.org/x", "https://pypi.o" + "rg/simple",
	} {
		if got := machineTraces("README.md", content); len(got) != 1 || got[0].soft {
			t.Errorf("%q: got %v", content, got)
		}
	}
	for _, content := range []string{"https://example.com/wo" + "rk/", "the wo" + "rk/life balance", "../shareddata"} {
		if got := machineTraces("README.md", content); len(got) != 0 {
			t.Errorf("%q: got %v", content, got)
		}
	}
	if got := machineTraces("go.sum", "proxy.go"+"lang.org"); len(got) != 0 {
		t.Errorf("a lock file: got %v", got)
	}
}

// Every row of the table, and every home, speaks of packages that have rows: a misspelt name would allow nothing.
func TestTableNamesItself(t *testing.T) {
	for dir, r := range rooms {
		for _, name := range append(append([]string{}, r.may...), r.tests...) {
			if _, known := rooms[name]; !known && name != "*" {
				t.Errorf("rooms: %s may import %s, which has no row", dir, name)
			}
		}
		if reaches(dir, dir) {
			t.Errorf("rooms: the arrows from %s lead back to it", dir)
		}
	}
	for _, name := range kits {
		if _, known := rooms[name]; !known {
			t.Errorf("kits: %s has no row", name)
		}
	}
}

// findings inspects a package of one file. The code needs no package clause and, unless bare, gets a comment.
func findings(t *testing.T, file, code string, bare bool) []finding {
	t.Helper()
	if !strings.HasPrefix(code, "package ") {
		code = "package p; " + code
	}
	if !bare {
		code = "// Package p is a piece of code.\n" + code
	}
	packages, err := parse(map[string]string{file: code + "\n"})
	if err != nil {
		t.Fatalf("%s: %v", fmt.Sprintf("%.80q", code), err)
	}
	return inspect(packages[0])
}

func lines(n int) string { return strings.Repeat("\n", n) }
