// Package house holds the tree to its own rules: who may import whom, where each library lives, and the
// limits that keep the code readable. The rules stand in house_rules_test.go and house_state_test.go; each
// is shown to bite in house_bad_test.go.
package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postrider/postrider"

// room is a row of the import table.
type room struct {
	may   []string // packages of ours that it may import; "*" is all
	tests []string // packages of ours that its tests may import besides may, what those import, and the kits
	only  []string // if set, it imports these of all the world and nothing else
	never []string // packages of others that it may not import, with what is below them
	box   bool     // a black box: its tests may import no more than itself
}

// rooms is the import table. Arrows never point back. Libraries that have a home need no "never" here.
var rooms = map[string]room{
	"schema":         {only: []string{"embed"}},
	"sender":         {never: []string{"go.uber.org/zap"}},
	"shards":         {may: []string{"schema"}},
	"jobs":           {},
	"search":         {may: []string{"sender", "shards", "schema"}},
	"sender/store":   {may: []string{"sender", "shards"}},
	"sender/compose": {may: []string{"sender"}, never: pure},

	"sender/compose/rsafast": {never: pure},
	"sender/domains":         {may: []string{"sender", "sender/store", "sender/compose", "sender/compose/rsafast", "shards"}},

	"sender/bounce":     {may: []string{"sender"}, never: pure},
	"sender/deliver":    {may: []string{"sender"}},
	"sender/accept":     {may: []string{"sender", "sender/store", "shards", "jobs"}},
	"sender/ledger":     {may: []string{"sender", "sender/store", "shards", "jobs"}, tests: []string{"sender/accept"}},
	"sender/track":      {may: []string{"sender", "sender/ledger", "shards"}, tests: []string{"sender/accept"}},
	"webhooks":          {may: []string{"sender", "shards", "jobs"}},
	"sender/relay":      {may: []string{"sender", "sender/accept", "sender/bounce", "sender/ledger", "sender/store", "shards"}},
	"sender/api":        {may: []string{"sender", "sender/accept", "sender/store", "sender/domains", "search", "webhooks", "shards"}},
	"sender/dispatch":   {may: []string{"sender", "sender/store", "sender/compose", "sender/deliver", "sender/ledger", "shards", "jobs"}, tests: []string{"sender/accept"}},
	"sender/sandbox":    {},
	"shards/localpg":    {},
	"shards/shardtest":  {may: []string{"shards", "shards/localpg", "schema"}},
	"search/localnode":  {},
	"search/searchtest": {may: []string{"search", "search/localnode", "sender", "shards", "shards/shardtest", "schema"}},
	"jobs/jobstest":     {may: []string{"jobs"}},
	"loadtest":          {may: []string{"sender/sandbox"}, box: true},
	"e2e":               {may: []string{"sender/sandbox"}, box: true},
	"cmd/postrider":     {may: []string{"*"}},
	"cmd/loadtest":      {may: []string{"loadtest"}, box: true},
	".":                 {box: true},
}

// pure packages turn bytes into bytes: the same input gives the same output, without network, files or logs.
var pure = []string{"net", "net/http", "net/smtp", "os", "go.uber.org/zap"}

// kits are the real parts that any test may start.
var kits = []string{"schema", "sender/sandbox", "shards/localpg", "shards/shardtest", "search/localnode", "search/searchtest", "jobs/jobstest"}

// homes says where a library may be imported: in these packages and below them. A test may use a library away
// from home, to look at our work with independent eyes.
var homes = map[string][]string{
	"github.com/nats-io":          {"jobs"},
	"github.com/elastic":          {"search"},
	"github.com/labstack/echo":    {"sender/api", "sender/track"},
	"github.com/emersion/go-smtp": {"sender/relay", "sender/sandbox"},
	"github.com/jackc":            {"shards", "sender/store", "search", "webhooks"},
	"github.com/fergusstrange":    {"shards/localpg"},
	"github.com/spf13":            {"cmd"},
	"github.com/BurntSushi":       {"cmd"},
}

// TestHouse walks every Go file of the tree. Soft limits are listed in the log (go test -v), hard ones fail.
func TestHouse(t *testing.T) {
	sources, err := readTree(".")
	if err != nil {
		t.Fatal(err)
	}
	packages, err := parse(sources)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		for _, f := range inspect(p) {
			if f.soft {
				t.Logf("soft limit: %s", f)
			} else {
				t.Error(f)
			}
		}
	}
}

// TestNoMachineInFiles reads every text file that is in git or may go there.
func TestNoMachineInFiles(t *testing.T) {
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("not a git work tree: no list of files")
	}
	list, err := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Skipf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(list), "\x00"), "\x00") {
		text, err := os.ReadFile(name)
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			continue // removed, a link to a folder, or binary
		}
		for _, f := range machineTraces(name, string(text)) {
			t.Error(f)
		}
	}
}

// readTree is every Go file below root by its slash path, without hidden folders, vendored code, test data,
// what make puts into bin, and modules of their own.
func readTree(root string) (map[string]string, error) {
	sources := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, name, d.Name())
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		sources[filepath.ToSlash(name)] = string(text)
		return err
	})
	return sources, err
}

func enter(root, name, base string) error {
	if name == root {
		return nil
	}
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") ||
		slices.Contains([]string{"bin", "testdata", "vendor", "node_modules"}, base) {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

// pkg is one folder of Go files, its external tests included.
type pkg struct {
	dir   string // slash path from the root; "." is the root
	fset  *token.FileSet
	files []source
}

type source struct {
	*ast.File
	name  string // slash path from the root
	lines int
	test  bool
}

// parse groups files by folder, in the order of their names.
func parse(sources map[string]string) ([]pkg, error) {
	byDir := map[string]*pkg{}
	fset := token.NewFileSet()
	for name, text := range sources {
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir, fset: fset}
		}
		s := source{File: f, name: name, lines: strings.Count(text, "\n"), test: strings.HasSuffix(name, "_test.go")}
		byDir[dir].files = append(byDir[dir].files, s)
	}
	var list []pkg
	for _, p := range byDir {
		slices.SortFunc(p.files, func(a, b source) int { return strings.Compare(a.name, b.name) })
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b pkg) int { return strings.Compare(a.dir, b.dir) })
	return list, nil
}
