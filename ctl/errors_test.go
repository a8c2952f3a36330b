package ctl

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"glanced/catalog"
)

// TestEverySentinelHasARow reads the sources: a sentinel added to the catalog
// without a decision here would answer 500.
func TestEverySentinelHasARow(t *testing.T) {
	rows := map[string]bool{}
	for _, s := range sentinels {
		rows[s.name] = true
	}
	found := 0
	for dir, prefix := range map[string]string{"../catalog": "", "../catalog/records": "", "../catalog/access": "access.", "../backends/stored": "stored."} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range parsed.Decls {
				gen, ok := d.(*ast.GenDecl)
				if !ok || gen.Tok != token.VAR {
					continue
				}
				for _, spec := range gen.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						if !strings.HasPrefix(name.Name, "Err") {
							continue
						}
						found++
						if !rows[prefix+name.Name] {
							t.Errorf("%s of %s has no row in the table of errors.go", name.Name, dir)
						}
					}
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d sentinels were found in the sources", found)
	}
}

func TestEveryRowAnswersForItsSentinel(t *testing.T) {
	for _, s := range sentinels {
		e := explain(fmt.Errorf("in the way: %w", s.err))
		if e.status != s.status {
			t.Errorf("%s answers %d, its row says %d: a row above it hides it", s.name, e.status, s.status)
		}
	}
}

func TestUnknownErrorsTellNothing(t *testing.T) {
	e := explain(errors.New("open /var/lib/secret: user:password@host"))
	if e.status != 500 || strings.Contains(e.text, "secret") || strings.Contains(e.text, "password") {
		t.Errorf("%d %s", e.status, e.text)
	}
}

func TestQuotaErrorsNameTheNumbers(t *testing.T) {
	e := explain(fmt.Errorf("create: %w", &catalog.QuotaError{Project: "p", Resource: "image_count_total", Limit: 1, Usage: 19, Delta: 3}))
	const want = "Project p is over a limit for [Resource image_count_total is over limit of 1 due to current usage 19 and delta 3]"
	if e.status != 413 || e.text != want {
		t.Errorf("%d %q", e.status, e.text)
	}
}
