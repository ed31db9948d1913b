package house

import (
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// checkState finds package-level variables that can change. A variable may stand at package level only as a
// value: with an initial value, of a kind that is not made for writing, and without an assignment, an address
// taken or a method on its address anywhere in the package. Nobody writes another package's variables.
func checkState(p pkg, report reporter) {
	for _, files := range byClause(p) {
		info := resolve(p.fset, files)
		written := writes(info, files, report)
		for _, f := range files {
			for _, d := range f.Decls {
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
					checkVars(p.fset, f, g, info, written, report)
				}
			}
		}
	}
}

func checkVars(fset *token.FileSet, f source, g *ast.GenDecl, info *types.Info, written map[types.Object]token.Pos, report reporter) {
	for _, s := range g.Specs {
		spec := s.(*ast.ValueSpec)
		if embedded(g.Doc) || embedded(spec.Doc) {
			continue
		}
		for i, name := range spec.Names {
			why := madeForWriting(f, spec, i)
			if at, ok := written[info.Defs[name]]; ok {
				where := fset.Position(at)
				why = "it is written, or its address taken, at " + path.Base(where.Filename) + ":" + strconv.Itoa(where.Line)
			}
			if name.Name != "_" && why != "" {
				report(name.Pos(), false, "package-level %s can change: %s; keep it in a struct that somebody makes and hands on", name.Name, why)
			}
		}
	}
}

// madeForWriting says why a variable makes sense only if something changes it later, or nothing.
func madeForWriting(f source, spec *ast.ValueSpec, i int) string {
	if len(spec.Values) == 0 {
		return "it has no value yet"
	}
	if spec.Type != nil && synchronized(f, spec.Type) {
		return "it is a lock, a pool or an atomic"
	}
	if i >= len(spec.Values) {
		return ""
	}
	value := spec.Values[i]
	if u, ok := value.(*ast.UnaryExpr); ok && u.Op == token.AND {
		value = u.X
	}
	switch v := value.(type) {
	case *ast.CompositeLit:
		if synchronized(f, v.Type) {
			return "it is a lock, a pool or an atomic"
		}
	case *ast.CallExpr:
		if made, ok := v.Fun.(*ast.Ident); ok && (made.Name == "make" || made.Name == "new") {
			return "it is made empty"
		}
	}
	return ""
}

func synchronized(f source, e ast.Expr) bool {
	switch t := e.(type) {
	case *ast.StarExpr:
		return synchronized(f, t.X)
	case *ast.IndexExpr: // atomic.Pointer[T]
		return synchronized(f, t.X)
	}
	return refersTo(f, e, "sync", "Mutex", "RWMutex", "Once", "Pool", "Map", "WaitGroup", "Cond") ||
		refersTo(f, e, "sync/atomic", "Bool", "Int32", "Int64", "Uint32", "Uint64", "Uintptr", "Pointer", "Value")
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// writes finds the package-level variables that the code changes, or could: where each is changed first.
func writes(info *types.Info, files []source, report reporter) map[types.Object]token.Pos {
	written := map[types.Object]token.Pos{}
	note := func(e ast.Expr, assigned bool) {
		name := root(e)
		if name == nil {
			return
		}
		switch o := info.Uses[name].(type) {
		case *types.Var:
			if _, seen := written[o]; !seen && o.Pkg() != nil && o.Parent() == o.Pkg().Scope() {
				written[o] = e.Pos()
			}
		case *types.PkgName:
			if assigned {
				report(e.Pos(), false, "a variable of package %s is changed from outside", o.Name())
			}
		}
	}
	for _, f := range files {
		ast.Inspect(f.File, func(n ast.Node) bool {
			noteWrites(info, n, note)
			return true
		})
	}
	return written
}

func noteWrites(info *types.Info, n ast.Node, note func(e ast.Expr, assigned bool)) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, e := range n.Lhs {
				note(e, true)
			}
		}
	case *ast.IncDecStmt:
		note(n.X, true)
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			note(n.Key, true)
			note(n.Value, true)
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			note(n.X, false)
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, f.Name) {
			note(n.Args[0], true)
		}
	case *ast.SelectorExpr:
		if s := info.Selections[n]; s != nil && s.Kind() == types.MethodVal && onAddress(s) {
			note(n.X, false)
		}
	}
}

// onAddress says whether a method call takes the address of its operand in passing.
func onAddress(s *types.Selection) bool {
	signature := s.Obj().Type().(*types.Signature)
	if signature.Recv() == nil {
		return false
	}
	_, wants := types.Unalias(signature.Recv().Type()).(*types.Pointer)
	_, has := s.Recv().Underlying().(*types.Pointer)
	return wants && !has
}

// root is the variable that holds the place which an expression names.
func root(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.ParenExpr:
		return root(e.X)
	case *ast.IndexExpr:
		return root(e.X)
	case *ast.SliceExpr:
		return root(e.X)
	case *ast.StarExpr:
		return root(e.X)
	case *ast.TypeAssertExpr:
		return root(e.X)
	case *ast.SelectorExpr:
		return root(e.X)
	}
	return nil
}

// byClause parts the files of a folder by their package clause: external tests are a package of their own.
func byClause(p pkg) map[string][]source {
	parts := map[string][]source{}
	for _, f := range p.files {
		parts[f.Name.Name] = append(parts[f.Name.Name], f)
	}
	return parts
}

// resolve finds what each name in the files means. Imported packages stay hollow, so what the type checker
// says about them is not heard: the compiler says it better.
func resolve(fset *token.FileSet, files []source) *types.Info {
	info := &types.Info{
		Defs:       map[*ast.Ident]types.Object{},
		Uses:       map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{},
	}
	var trees []*ast.File
	for _, f := range files {
		trees = append(trees, f.File)
	}
	c := types.Config{Importer: hollow{}, Error: func(error) {}, FakeImportC: true, DisableUnusedImportCheck: true}
	_, _ = c.Check(files[0].name, fset, trees, info)
	return info
}

// hollow imports every package as an empty one, under the name that its path suggests.
type hollow struct{}

var version = regexp.MustCompile(`[/.]v\d+$`)

func (hollow) Import(target string) (*types.Package, error) {
	name := strings.TrimPrefix(path.Base(version.ReplaceAllString(target, "")), "go-")
	p := types.NewPackage(target, name)
	p.MarkComplete()
	return p, nil
}
