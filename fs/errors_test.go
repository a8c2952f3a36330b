package fs

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"syscall"
	"testing"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/formats"
)

// sentinels are the exported error variables of the packages whose errors reach
// this one, and the errno each becomes.
var sentinels = map[string]struct {
	err  error
	want syscall.Errno
}{
	"catalog.ErrNotFound":          {catalog.ErrNotFound, syscall.ENOENT},
	"catalog.ErrNoData":            {catalog.ErrNoData, syscall.ENOENT},
	"catalog.ErrStoredOnly":        {catalog.ErrStoredOnly, syscall.ENOENT},
	"catalog.ErrNoSnapshot":        {catalog.ErrNoSnapshot, syscall.ENOENT},
	"catalog.ErrParent":            {catalog.ErrParent, syscall.EIO},
	"catalog.ErrGone":              {catalog.ErrGone, syscall.ENOENT},
	"catalog.ErrDeactivated":       {catalog.ErrDeactivated, syscall.EACCES},
	"catalog.ErrParentDeactivated": {catalog.ErrParentDeactivated, syscall.EACCES},
	"catalog.ErrSpoolFull":         {catalog.ErrSpoolFull, syscall.ENOSPC},
	"access.ErrHidden":             {access.ErrHidden, syscall.ENOENT},
	"access.ErrDenied":             {access.ErrDenied, syscall.EACCES},
	"catalog.ErrClosing":           {catalog.ErrClosing, syscall.EIO},
	"catalog.ErrRevoked":           {catalog.ErrRevoked, syscall.EIO},
	"catalog.ErrStore":             {catalog.ErrStore, syscall.EIO},
	"catalog.ErrLocation":          {catalog.ErrLocation, syscall.EIO},
	"catalog.ErrUnknownStore":      {catalog.ErrUnknownStore, syscall.EIO},
	"catalog.ErrFormat":            {catalog.ErrFormat, syscall.EIO},
	"catalog.ErrUnsafe":            {catalog.ErrUnsafe, syscall.EIO},
	"catalog.ErrBusy":              {catalog.ErrBusy, syscall.EAGAIN},
	"catalog.ErrUnreachable":       {catalog.ErrUnreachable, syscall.EAGAIN},
	"catalog.ErrUnknown":           {catalog.ErrUnknown, syscall.EIO},
	"catalog.ErrFull":              {catalog.ErrFull, syscall.ENOSPC},
	"catalog.ErrStatus":            {catalog.ErrStatus, syscall.EIO},
	"catalog.ErrFixed":             {catalog.ErrFixed, syscall.EIO},
	"catalog.ErrInvalid":           {catalog.ErrInvalid, syscall.EINVAL},
	"catalog.ErrMarker":            {catalog.ErrMarker, syscall.EIO},
	"catalog.ErrLeased":            {catalog.ErrLeased, syscall.EBUSY},
	"catalog.ErrLeaseLost":         {catalog.ErrLeaseLost, syscall.EIO},
	"catalog.ErrTrimmed":           {catalog.ErrTrimmed, syscall.EIO},
	"catalog.ErrExists":            {catalog.ErrExists, syscall.EEXIST},
	"catalog.ErrProtected":         {catalog.ErrProtected, syscall.EPERM},
	"catalog.ErrInUse":             {catalog.ErrInUse, syscall.EBUSY},
	"catalog.ErrQuota":             {catalog.ErrQuota, syscall.EDQUOT},
	"catalog.ErrTooLarge":          {catalog.ErrTooLarge, syscall.EFBIG},
	"catalog.ErrStoreFull":         {catalog.ErrStoreFull, syscall.ENOSPC},
	"catalog.ErrStoreReadOnly":     {catalog.ErrStoreReadOnly, syscall.EROFS},
	"catalog.ErrStoreDenied":       {catalog.ErrStoreDenied, syscall.EROFS},
	"catalog.ErrMetadata":          {catalog.ErrMetadata, syscall.EINVAL},
	"catalog.ErrUploads":           {catalog.ErrUploads, syscall.EAGAIN},
	"catalog.ErrBodySize":          {catalog.ErrBodySize, syscall.EIO},
	"catalog.ErrBody":              {catalog.ErrBody, syscall.EIO},
	"stored.ErrUnavailable":        {stored.ErrUnavailable, syscall.EIO},
	"stored.ErrDenied":             {stored.ErrDenied, syscall.EIO},
	"stored.ErrChanged":            {stored.ErrChanged, syscall.EIO},
	"stored.ErrNotFound":           {stored.ErrNotFound, syscall.EIO},
	"stored.ErrRange":              {stored.ErrRange, syscall.EIO},
	"formats.ErrFormat":            {formats.ErrFormat, syscall.EIO},
	"formats.ErrCorrupt":           {formats.ErrCorrupt, syscall.EIO},
	"formats.ErrUnsupported":       {formats.ErrUnsupported, syscall.EIO},
	"formats.ErrReference":         {formats.ErrReference, syscall.EIO},
	"formats.ErrEncrypted":         {formats.ErrEncrypted, syscall.EIO},
	"formats.ErrLimit":             {formats.ErrLimit, syscall.EIO},
	"formats.ErrSnapshot":          {formats.ErrSnapshot, syscall.ENOENT},
	"formats.ErrClosed":            {formats.ErrClosed, syscall.EIO},
	"formats.ErrWouldWait":         {formats.ErrWouldWait, syscall.EIO},
	"formats.ErrRange":             {formats.ErrRange, syscall.EINVAL},
}

func TestEverySentinelHasItsErrno(t *testing.T) {
	for name, s := range sentinels {
		if got := errnoOf(fmt.Errorf("read 5 bytes: %w", s.err)); got != s.want {
			t.Errorf("%s becomes %v, want %v", name, got, s.want)
		}
	}
	for pkg, folder := range map[string]string{"catalog": "../catalog", "access": "../catalog/access", "formats": "../formats", "stored": "../backends/stored"} {
		for _, name := range exportedErrors(t, folder) {
			s, ok := sentinels[pkg+"."+name]
			if !ok {
				t.Errorf("%s.%s is in no line of the table", pkg, name)
				continue
			}
			listed := false
			for _, e := range errnos {
				listed = listed || errors.Is(e.err, s.err)
			}
			if !listed {
				t.Errorf("%s.%s is in no line of the table", pkg, name)
			}
		}
	}
	for err, want := range map[error]syscall.Errno{
		nil:                      0,
		errors.New("never seen"): syscall.EIO,
		context.Canceled:         syscall.EINTR,
		context.DeadlineExceeded: syscall.ETIMEDOUT,
		fmt.Errorf("%w: %w", catalog.ErrRevoked, context.Canceled): syscall.EIO,
		fmt.Errorf("%w: %w", catalog.ErrStore, context.Canceled):   syscall.EINTR,
	} {
		if got := errnoOf(err); got != want {
			t.Errorf("%v becomes %v, want %v", err, got, want)
		}
	}
}

// exportedErrors are the exported Err… variables of a package's sources.
func exportedErrors(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), folder+"/"+e.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("no errors found in %s", folder)
	}
	return names
}
