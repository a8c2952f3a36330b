package nbd

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"

	"glanced/backends/stored"
	"glanced/formats"
)

// sentinelNames are the package-level variables called Err… or err… of a folder.
func sentinelNames(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(dir, err)
	}
	names := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(n.Name, "Err") || strings.HasPrefix(n.Name, "err") {
						names[n.Name] = true
					}
				}
			}
		}
	}
	return names
}

// tableNames are the errors that the table names in its source.
func tableNames(t *testing.T) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		row, ok := n.(*ast.CompositeLit)
		if !ok || row.Type != nil || len(row.Elts) != 4 {
			return true
		}
		switch x := row.Elts[0].(type) {
		case *ast.Ident:
			names[x.Name] = true
		case *ast.SelectorExpr:
			names[x.X.(*ast.Ident).Name+"."+x.Sel.Name] = true
		}
		return true
	})
	return names
}

func TestEverySentinelIsInTheTable(t *testing.T) {
	table := tableNames(t)
	if len(table) != len(outcomes) {
		t.Fatalf("%d rows found in the source of a table of %d", len(table), len(outcomes))
	}
	// Ends of a session that no client is told of, or an unknown export error.
	untold := map[string]bool{"errDisconnect": true, "errHalfClosed": true, "errStalled": true, "errNoExtents": true}
	for name := range sentinelNames(t, ".") {
		if !table[name] && !untold[name] {
			t.Errorf("%s is not in the table of errors.go", name)
		}
	}
	for pkg, dir := range map[string]string{"formats.": "../formats", "stored.": "../backends/stored"} {
		for name := range sentinelNames(t, dir) {
			if !table[pkg+name] {
				t.Errorf("%s%s is not in the table of errors.go", pkg, name)
			}
		}
	}
}

func TestOutcomes(t *testing.T) {
	const unknown = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN
	for _, c := range []struct {
		err          error
		reply, errno uint32
	}{
		{ErrUnknownExport, unknown, 1},
		{ErrForbidden, repErrPolicy, 1},
		{ErrUnreadable, repErrPolicy, 5},
		{ErrWithheld, repErrPolicy, 1},
		{ErrNoSpace, repErrPolicy, 28},
		{ErrRevoked, unknown, 1},
		{ErrServerClosed, repErrShutdown, 108},
		{fmt.Errorf("%w: %w", formats.ErrCorrupt, context.Canceled), repErrPolicy, 5},
		{fmt.Errorf("%w: %w", ErrRevoked, context.Canceled), unknown, 1},
		{formats.ErrRange, repErrPolicy, 22},
		{stored.ErrRange, repErrPolicy, 5},
		{stored.ErrUnavailable, unknown, 5},
		{stored.ErrChanged, unknown, 5},
		{stored.ErrNotFound, unknown, 5},
		{context.DeadlineExceeded, repErrShutdown, 5},
		{errors.New("the store is on fire"), unknown, 5},
	} {
		got := outcomeOf(fmt.Errorf("read: %w", c.err))
		if got.reply != c.reply || got.errno != c.errno || got.text == "" || len(got.text) > 200 {
			t.Errorf("%v: %+v", c.err, got)
		}
		if got.reply == protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED || got.errno == 0 {
			t.Errorf("%v: %+v", c.err, got)
		}
	}
}
