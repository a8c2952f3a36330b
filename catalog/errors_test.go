package catalog_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestEverySentinelHasItsNameHere reads the sources: a sentinel of a room below that has no
// name in the catalog is in no table of the doors, which look at the catalog's.
func TestEverySentinelHasItsNameHere(t *testing.T) {
	named := map[string]bool{} // room.Err
	for name, value := range errorVars(t, ".") {
		if from, ok := value.(*ast.SelectorExpr); ok && from.Sel.Name == name {
			named[from.X.(*ast.Ident).Name+"."+name] = true
		}
	}
	found := 0
	for _, room := range []string{"disks", "intake", "leases", "records", "rules", "stores"} {
		for name := range errorVars(t, room) {
			found++
			if !named[room+"."+name] {
				t.Errorf("%s.%s has no line in errors.go", room, name)
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d sentinels were found in the sources", found)
	}
}

// errorVars are the exported error variables of a package's sources, and what each is set to.
func errorVars(t *testing.T, folder string) map[string]ast.Expr {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]ast.Expr{}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				for i, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") && i < len(spec.(*ast.ValueSpec).Values) {
						vars[name.Name] = spec.(*ast.ValueSpec).Values[i]
					}
				}
			}
		}
	}
	return vars
}
