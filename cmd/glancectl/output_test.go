package main

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestTablesLineUpWhateverTheNames(t *testing.T) {
	g := newServer(t)
	names := map[string]string{ // as stored: as shown
		"映像・デビアン":                "映像・デビアン",
		"镜像 12":                  "镜像 12",
		"Ảnh đĩa hệ thống":       "Ảnh đĩa hệ thống",
		"A\u0309nh ho\u0300a":    "A\u0309nh ho\u0300a", // decomposed
		"a\nb\x1b[31m\tc":        `a\nb\x1b[31m\tc`,
		"evil\u202egnp.exe":      `evil\u202egnp.exe`,
		"family 👨\u200d👩\u200d👧": "family 👨\u200d👩\u200d👧",
		"plain":                  "plain",
	}
	for name := range names {
		g.add(name, []byte("x"), nil)
	}
	table := g.do("image", "list", "-c", "name", "-c", "status").ok()
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	if len(lines) != len(names)+4 {
		t.Fatalf("%d lines:\n%s", len(lines), table)
	}
	for _, line := range lines {
		if cells(line) != cells(lines[0]) {
			t.Errorf("the line %q is %d cells wide, the frame %d", line, cells(line), cells(lines[0]))
		}
	}
	for _, shown := range names {
		if !strings.Contains(table, "| "+shown+" ") {
			t.Errorf("%q is not in the table:\n%s", shown, table)
		}
	}
	value := g.do("image", "list", "-f", "value", "-c", "name").ok()
	if strings.Count(value, "\n") != len(names) || strings.Contains(value, "\x1b") {
		t.Errorf("-f value breaks lines: %q", value)
	}
	for _, img := range decode[[]map[string]string](t, g.do("image", "list", "-f", "json", "-c", "name").ok()) {
		if _, ok := names[img["name"]]; !ok {
			t.Errorf("JSON changed a name to %q", img["name"])
		}
	}
}

func TestWidthsOfWideAndCombiningCharacters(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "映像": 4, "Ảnh": 3, "A\u0309nh": 3, "한국어": 6, "…": 1, "│": 1} {
		if got := cells(s); got != want {
			t.Errorf("%q is %d cells wide, want %d", s, got, want)
		}
	}
}

func TestSizesForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := humanBytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestFailuresSayWhatToDo(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.sock")
	glancectl(t, "", "--socket", missing, "image", "list").fails(exitFailed, missing, "no such file", "make run")
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	glancectl(t, "", "--socket", stale, "status").fails(exitFailed, "connection refused", "Is glanced running?", "make run", "--socket")
	glancectl(t, "", "--url", "http://127.0.0.1:1", "image", "list").fails(exitFailed, "connection refused", "--url")
	glancectl(t, "", "--url", "ftp://h", "image", "list").fails(exitUsage, "http://HOST:PORT")

	g := newServer(t)
	glancectl(t, "", "--url", g.url, "--token", "wrong", "image", "list").fails(exitFailed, "valid token", "401", "--token-file")
	id := g.add("x", nil, nil)
	g.do("image", "create", "--id", id).fails(exitFailed, "id exists", "(409 Conflict)", "image show")
	for status, says := range map[int]string{403: "Your user", 413: "quota", 415: "disk info", 503: "busy", 507: "full"} {
		g.refuseWith("POST", "/v2/images", status, "It&#x27;s <b>so</b>:<br /><br />\n&quot;&lt;1&gt;&quot;")
		g.do("image", "create").fails(exitFailed, `: It's so : "<1>" (`, says)
	}
	g.refuse(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		w.Write([]byte(`{"error":{"code":400,"message":"line one\u001b[31m\nline two"}}`))
		return true
	})
	g.do("image", "list").fails(exitFailed, `line one\x1b[31m line two (400 Bad Request)`)
}

func TestTheTokenIsNotSentOnToOthers(t *testing.T) {
	other := newServer(t)
	g := newServer(t)
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.url+r.URL.Path, http.StatusFound)
		return true
	})
	glancectl(t, "", "--url", g.url, "--token", testToken, "image", "list").fails(exitFailed, "not followed")
	if len(other.asked("")) > 0 {
		t.Errorf("the other server was asked: %q", other.asked(""))
	}
}

func TestOnlyReadsAreTriedAgainWhenTheServerIsBusy(t *testing.T) {
	g := newServer(t)
	id := g.add("x", nil, nil)
	busy := 2
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		if busy == 0 {
			return false
		}
		busy--
		w.Header().Set("Retry-After", "0")
		glanceError(w, 503, "busy")
		return true
	})
	g.do("image", "show", id).ok()
	if n := len(g.asked("GET /v2/images/" + id)); n != 3 {
		t.Errorf("asked %d times", n)
	}
	busy = 1
	g.do("image", "create").fails(exitFailed, "busy (503")
	busy = 100
	g.forget()
	g.do("status").fails(exitFailed, "busy (503", "try again later")
	if n := len(g.asked("")); n != 4 {
		t.Errorf("asked %d times, want the first and 3 more", n)
	}
}
