package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	fileLines, fileLinesHard = 400, 600
	funcLines, funcLinesHard = 60, 80
	interfaceMethods         = 3
)

// finding is one place where a rule is broken. A soft one is a reminder.
type finding struct {
	where, rule, text string
	soft              bool
}

func (f finding) String() string { return f.where + ": " + f.rule + ": " + f.text }

// rules in the order in which they are told. Each hands what it finds to report.
var rules = []struct {
	name  string
	check func(p pkg, report reporter)
}{
	{"imports", checkImports},
	{"homes", checkHomes},
	{"names", checkNames},
	{"comment", checkComment},
	{"length", checkLength},
	{"interface", checkInterfaces},
	{"init", checkInit},
	{"state", checkState},
	{"settings", checkSettings},
	{"sleep", checkSleep},
	{"bool-error", checkBoolError},
	{"sql", checkSQL},
}

type reporter func(at token.Pos, soft bool, format string, args ...any)

func inspect(p pkg) []finding {
	var found []finding
	for _, r := range rules {
		r.check(p, func(at token.Pos, soft bool, format string, args ...any) {
			where := p.fset.Position(at)
			found = append(found, finding{fmt.Sprintf("%s:%d", where.Filename, where.Line), r.name, fmt.Sprintf(format, args...), soft})
		})
	}
	return found
}

func checkImports(p pkg, report reporter) {
	r, known := rooms[p.dir]
	if !known {
		report(p.files[0].Package, false, "folder %s is not in the import table: add a row to rooms in house_test.go that says what it may import, and a line to ARCHITECTURE.md", p.dir)
		return
	}
	for _, f := range p.files {
		for _, spec := range f.Imports {
			target := importPath(spec)
			own, ours := strings.CutPrefix(target, module+"/")
			switch {
			case ours && !mayImport(p.dir, own, f.test):
				report(spec.Pos(), false, "%s may not import %s: it may import %s", p.dir, own, orNothing(r.may))
			case !ours && !f.test && r.only != nil && !slices.Contains(r.only, target):
				report(spec.Pos(), false, "%s may import nothing but %s, not %s", p.dir, strings.Join(r.only, ", "), target)
			case !ours && !f.test && slices.Contains(r.never, target):
				report(spec.Pos(), false, "%s may never import %s", p.dir, target)
			}
		}
	}
}

func mayImport(from, target string, test bool) bool {
	r := rooms[from]
	if slices.Contains(r.may, "*") || slices.Contains(r.may, target) {
		return true
	}
	if !test {
		return false
	}
	if target == from {
		return true // an external test
	}
	return !r.box && (slices.Contains(kits, target) || slices.Contains(r.tests, target) || reaches(from, target))
}

// reaches says whether the arrows lead from one package to another.
func reaches(from, target string) bool {
	return slices.ContainsFunc(rooms[from].may, func(next string) bool { return next == target || reaches(next, target) })
}

func checkHomes(p pkg, report reporter) {
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, spec := range f.Imports {
			for library, in := range homes {
				if within(importPath(spec), library) && !slices.ContainsFunc(in, func(home string) bool { return within(p.dir, home) }) {
					report(spec.Pos(), false, "%s is at home only in %s: ask that package for what is needed", library, strings.Join(in, ", "))
				}
			}
		}
	}
}

func checkNames(p pkg, report reporter) {
	for _, f := range p.files {
		name := strings.TrimSuffix(f.Name.Name, "_test")
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "models"}, name) {
			report(f.Name.Pos(), false, "package %s says nothing: name it after what it holds", name)
		}
	}
}

// checkComment wants a package comment in some file; in a test file only where there is nothing else.
func checkComment(p pkg, report reporter) {
	onlyTests := !slices.ContainsFunc(p.files, func(f source) bool { return !f.test })
	for _, f := range p.files {
		if (onlyTests || !f.test) && strings.TrimSpace(f.Doc.Text()) != "" {
			return
		}
	}
	report(p.files[0].Package, false, "package %s has no package comment", p.files[0].Name.Name)
}

func checkLength(p pkg, report reporter) {
	for _, f := range p.files {
		if f.lines > fileLines {
			report(f.Package, f.lines <= fileLinesHard, "%d lines; at most %d, never over %d: split the file by what it is about", f.lines, fileLines, fileLinesHard)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := p.fset.Position(fn.End()).Line - p.fset.Position(fn.Pos()).Line + 1; n > funcLines {
				report(fn.Pos(), n <= funcLinesHard, "func %s has %d lines; at most %d, never over %d", fn.Name.Name, n, funcLines, funcLinesHard)
			}
		}
	}
}

func checkInterfaces(p pkg, report reporter) {
	each(p, func(_ source, n ast.Node) {
		i, ok := n.(*ast.InterfaceType)
		if !ok {
			return
		}
		methods := 0
		for _, m := range i.Methods.List {
			methods += max(1, len(m.Names)) // an embedded interface counts for one
		}
		if methods > interfaceMethods {
			report(i.Pos(), false, "an interface of %d methods; at most %d", methods, interfaceMethods)
		}
	})
}

func checkInit(p pkg, report reporter) {
	each(p, func(_ source, n ast.Node) {
		if fn, ok := n.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			report(fn.Pos(), false, "func init runs unasked: call it by a name from where it is needed")
		}
	})
}

// checkSettings keeps the environment and flags in one file. PATH is no setting, it is handed on to children.
func checkSettings(p pkg, report reporter) {
	const home = "cmd/postrider/config.go"
	for _, f := range p.files {
		if f.test || f.name == home || within(p.dir, "cmd/loadtest") {
			continue
		}
		for _, spec := range f.Imports {
			if slices.Contains([]string{"flag", "github.com/spf13/pflag"}, importPath(spec)) {
				report(spec.Pos(), false, "flags are read in %s only: take what is needed in a Config", home)
			}
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if len(call.Args) > 0 && text(call.Args[0]) != "PATH" && refersTo(f, call.Fun, "os", "Getenv", "LookupEnv", "ExpandEnv") {
				report(call.Pos(), false, "the environment is read in %s only: take what is needed in a Config", home)
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && callsMethod(method.X, "Flags", "PersistentFlags") {
				report(call.Pos(), false, "flags are bound in %s only", home)
			}
			return true
		})
	}
}

func checkSleep(p pkg, report reporter) {
	each(p, func(f source, n ast.Node) {
		if e, ok := n.(ast.Expr); ok && f.test && refersTo(f, e, "time", "Sleep") {
			report(n.Pos(), false, "a test that sleeps is slow or wrong: wait for the named thing, or use testing/synctest")
		}
	})
}

func checkBoolError(p pkg, report reporter) {
	each(p, func(_ source, n ast.Node) {
		fn, ok := n.(*ast.FuncType)
		if !ok || fn.Results == nil {
			return
		}
		var results []string
		for _, r := range fn.Results.List {
			name, _ := r.Type.(*ast.Ident)
			for range max(1, len(r.Names)) {
				results = append(results, fmt.Sprint(name))
			}
		}
		slices.Sort(results)
		if slices.Equal(results, []string{"bool", "error"}) {
			report(fn.Pos(), false, "two answers to one question: return (bool, error) as a value that names the cases, or as an error alone")
		}
	})
}

var sqlStart = regexp.MustCompile(`(?i)^\s*(select\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s|with\s+(recursive\s+)?\w+\s*(\([^)]*\)\s*)?as\s)`)

// checkSQL keeps the SQL of the sender tables in sender/store/store*.go.
func checkSQL(p pkg, report reporter) {
	if !within(p.dir, "sender") {
		return
	}
	each(p, func(f source, n ast.Node) {
		if home, _ := path.Match("sender/store/store*.go", f.name); home || f.test {
			return
		}
		if s, ok := n.(*ast.BasicLit); ok && sqlStart.MatchString(text(s)) {
			report(s.Pos(), false, "SQL of the sender tables lives in sender/store/store*.go: add a constant and its function there")
		}
	})
}

// machine is split so that it does not find itself.
var machine = regexp.MustCompile(`(^|[^\w./-])(/wo` + `rk|/ro` + `ot/go)/|\.\./sha` + `red\b|(proxy|sum)\.go` + `lang\.org|registry\.npm` + `js\.org|\bpypi\.o` + `rg\b`)

// machineTraces finds names of the machine that wrote a file, and of the registries that it used. Lock files
// are left out: their tools write them.
func machineTraces(name, content string) []finding {
	if slices.Contains([]string{"go.sum", "package-lock.json"}, path.Base(name)) {
		return nil
	}
	var found []finding
	number := 0
	for line := range strings.SplitSeq(content, "\n") {
		number++
		if m := machine.FindString(line); m != "" {
			found = append(found, finding{where: fmt.Sprintf("%s:%d", name, number), rule: "machine", text: fmt.Sprintf("%q belongs to one machine: nobody else has it", m)})
		}
	}
	return found
}

func each(p pkg, visit func(f source, n ast.Node)) {
	for _, f := range p.files {
		ast.Inspect(f.File, func(n ast.Node) bool {
			visit(f, n)
			return true
		})
	}
}

// refersTo says whether an expression is one of these names of the package with this path.
func refersTo(f source, e ast.Expr, target string, names ...string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, s.Sel.Name) {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && slices.ContainsFunc(f.Imports, func(spec *ast.ImportSpec) bool {
		return importPath(spec) == target && (spec.Name == nil && path.Base(target) == x.Name || spec.Name != nil && spec.Name.Name == x.Name)
	})
}

func callsMethod(e ast.Expr, names ...string) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := call.Fun.(*ast.SelectorExpr)
	return ok && slices.Contains(names, s.Sel.Name)
}

// text is the value of a string literal, or nothing.
func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

func importPath(spec *ast.ImportSpec) string { return text(spec.Path) }

func within(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing of ours"
	}
	return strings.Join(list, ", ")
}
