package ctl_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestBadCreatesAreToldAndLeaveNothing(t *testing.T) {
	w := newWorld(t, options{})
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	for _, c := range []struct {
		body   string
		status int
		words  string
	}{
		{`{"name": `, 400, "Malformed JSON"},
		{`{"name": "x"} trailing`, 400, "Malformed JSON"},
		{`{"name": "x",}`, 400, "Malformed JSON"},
		{"{\"name\": \"\xff\xfe\"}", 400, "UTF-8"},
		{`{"name": "a", "name": "b"}`, 400, "twice"},
		{deep, 400, "deeper"},
		{`"text"`, 400, "JSON object"},
		{`null`, 400, "JSON object"},
		{``, 400, "Body expected"},
		{`{"name": "` + strings.Repeat("n", 256) + `"}`, 400, "too long"},
		{`{"name": "` + strings.Repeat("ệ", 256) + `"}`, 400, "too long"},
		{`{"name": "\u0000"}`, 400, "name"},
		{`{"name": 5}`, 400, "5 is not of type 'null', 'string'"},
		{`{"protected": "yes"}`, 400, "'yes' is not of type 'boolean'"},
		{`{"min_disk": 1.5}`, 400, "1.5 is not of type 'integer'"},
		{`{"min_disk": 99999999999999999999}`, 400, "out of range"},
		{`{"min_ram": -1}`, 400, "negative"},
		{`{"tags": "a"}`, 400, "is not of type 'array'"},
		{`{"tags": [["a"]]}`, 400, "a list is not of type 'string'"},
		{`{"tags": [null]}`, 400, "None is not of type 'string'"},
		{`{"kernel_id": "x"}`, 400, "does not match"},
		{`{"": "x"}`, 400, "name"},
		{`{"` + strings.Repeat("k", 256) + `": "x"}`, 400, "long"},
		{`{"x": {"a": 1}}`, 400, "an object is not of type 'string'"},
		{`{"id": "6F0C4BD2"}`, 400, "does not match"},
		{`{"disk_format": "floppy"}`, 400, "'floppy' is not one of [None, 'ami'"},
		{`{"deleted": "x"}`, 403, "reserved"},
		{`{"os_glance_x": "1"}`, 403, "reserved"},
		{`{"checksum": "x"}`, 403, "read-only"},
		{`{"name": "` + strings.Repeat("n", 1<<20) + `"}`, 413, "larger than"},
	} {
		a := w.do("POST", "/v2/images", strings.NewReader(c.body), "Content-Type", "application/json")
		if a.StatusCode != c.status || !strings.Contains(a.message(t), c.words) {
			t.Errorf("%.60s: %d %s, want %d %q", c.body, a.StatusCode, a.body, c.status, c.words)
		}
		if len(a.body) > 1000 {
			t.Errorf("%.60s: a message of %d bytes", c.body, len(a.body))
		}
	}
	if list := w.do("GET", "/v2/images?os_hidden=false&visibility=all", nil).json(t)["images"].([]any); len(list) != 0 {
		t.Errorf("images were made: %v", list)
	}
	w.nothingLeft("")
}

func TestNamesInEveryScript(t *testing.T) {
	w := newWorld(t, options{})
	for _, name := range []string{"máy ảo Việt Nam", "镜像𠀋", "😀", "a/b c&d=é", strings.Repeat("ệ", 255)} {
		id := w.create(map[string]any{"name": name, "thuộc tính/镜": name, "tags": []string{name}})
		if img := w.show(id); img["name"] != name || img["thuộc tính/镜"] != name {
			t.Errorf("%q is shown as %v", name, img)
		}
	}
}

func TestADuplicateIdIsRefusedEvenAfterADelete(t *testing.T) {
	w := newWorld(t, options{})
	const id = "6f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a01"
	w.create(map[string]any{"id": id})
	again := func() {
		w.refused(w.do("POST", "/v2/images", strings.NewReader(`{"id": "`+id+`"}`)), 409, "id")
	}
	again()
	if a := w.do("DELETE", "/v2/images/"+id, nil); a.StatusCode != 204 {
		t.Fatal(a.StatusCode)
	}
	again()
}

func TestPathsThatAreNoText(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	w.refused(w.do("PUT", "/v2/images/"+id+"/tags/%ff", nil), 400, "UTF-8")
	w.refused(w.do("GET", "/v2/images/%fe", nil), 400, "UTF-8")
	w.refused(w.do("GET", "/v2/images?name=%ff", nil), 400, "UTF-8")
	w.refused(w.do("GET", "/v2/images?name=%zz", nil), 400, "escaped")
	w.refused(w.do("GET", "/v2/images/"+strings.Repeat("a", 5000), nil), 404)
	if a := w.do("PUT", "/v2/images/"+id+"/tags/a%2Fb", nil); a.StatusCode != 204 || fmt.Sprint(w.show(id)["tags"]) != "[a/b]" {
		t.Errorf("%d %v", a.StatusCode, w.show(id)["tags"])
	}
}

func TestLimitsOfTagsAndProperties(t *testing.T) {
	w := newWorld(t, options{})
	tags := make([]string, 128)
	all := map[string]any{}
	for i := range 128 {
		tags[i] = fmt.Sprint("t", i)
		all[fmt.Sprint("p", i)] = "v"
	}
	all["tags"] = tags
	id := w.create(all)
	w.refused(w.do("PUT", "/v2/images/"+id+"/tags/more", nil), 413, "129", "128")
	if a := w.do("PUT", "/v2/images/"+id+"/tags/t5", nil); a.StatusCode != 204 {
		t.Errorf("a tag that is there: %d", a.StatusCode)
	}
	w.refused(w.patch(id, `[{"op":"add","path":"/more","value":"v"}]`), 413, "129", "128")
	if a := w.patch(id, `[{"op":"remove","path":"/p1"},{"op":"add","path":"/more","value":"v"}]`); a.StatusCode != 200 {
		t.Errorf("one out, one in: %d %s", a.StatusCode, a.body)
	}
	for _, filter := range []string{"tag=t%d&", "p%[1]d=v&"} {
		query := func(n int) (q string) {
			for i := range n {
				q += fmt.Sprintf(filter, i)
			}
			return q
		}
		if a := w.do("GET", "/v2/images?"+query(128), nil); a.StatusCode != 200 {
			t.Errorf("a list filtered by 128: %d %s", a.StatusCode, a.body)
		}
		w.refused(w.do("GET", "/v2/images?"+query(2000), nil), 400, "2000", "128")
	}
}

func (w *world) patch(id, body string, h ...string) answer {
	w.t.Helper()
	return w.do("PATCH", "/v2/images/"+id, strings.NewReader(body), append([]string{"Content-Type", "application/openstack-images-v2.1-json-patch"}, h...)...)
}

func TestAPatchIsAllOrNothing(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(map[string]any{"name": "before", "a": "1"})
	for body, status := range map[string]int{
		`[{"op":"replace","path":"/name","value":"after"},{"op":"replace","path":"/none","value":"x"}]`:            409,
		`[{"op":"replace","path":"/name","value":"after"},{"op":"remove","path":"/none"}]`:                         409,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/visibility","value":"public"}]`:                     403,
		`[{"op":"remove","path":"/a"},{"op":"add","path":"/locations/-","value":{"url":"file:///etc/passwd"}}]`:    403,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/locations","value":[]}]`:                            403,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/owner","value":"me"}]`:                              403,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/id","value":"x"}]`:                                  403,
		`[{"op":"remove","path":"/a"},{"op":"remove","path":"/tags"}]`:                                             403,
		`[{"op":"remove","path":"/a"},{"op":"add","path":"/~2","value":"x"}]`:                                      400,
		`[{"op":"remove","path":"/a"},{"op":"add","path":"/","value":"x"}]`:                                        400,
		`[{"op":"remove","path":"/a"},{"op":"add","path":"/b/","value":"x"}]`:                                      400,
		`[{"op":"remove","path":"/a"},{"op":"add","path":5,"value":"x"}]`:                                          400,
		`[{"op":"remove","path":"/a"},5]`:                                                                          400,
		`[{"op":["add"],"path":"/a"}]`:                                                                             400,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/tags","value":[5]}]`:                                400,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/protected","value":null}]`:                          400,
		`[{"op":"remove","path":"/a"},{"op":"replace","path":"/name","value":"` + strings.Repeat("n", 256) + `"}]`: 400,
	} {
		w.refused(w.patch(id, body), status)
		if img := w.show(id); img["name"] != "before" || img["a"] != "1" || img["visibility"] != "shared" {
			t.Fatalf("%s changed the image: %v", body, img)
		}
	}
	a := w.patch(id, `[{"op":"add","path":"/name","value":"after"},{"op":"add","path":"/b","value":"2"},{"op":"replace","path":"/b","value":"3"},{"op":"remove","path":"/a"},`+
		`{"op":"replace","path":"/disk_format","value":"vmdk"},{"op":"add","path":"/kernel_id","value":null},{"op":"replace","path":"/os_hidden","value":true}]`)
	if a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if img := a.json(t); img["name"] != "after" || img["b"] != "3" || img["a"] != nil || img["disk_format"] != "vmdk" || img["os_hidden"] != true {
		t.Errorf("%v", img)
	}
	v20 := "application/openstack-images-v2.0-json-patch"
	for _, body := range []string{`[{"value": 1}]`, `[{"add": "/x", "remove": "/y"}]`, `[{"add": 5, "value": "x"}]`, `[{"add": "/x"}]`} {
		w.refused(w.patch(id, body, "Content-Type", v20), 400)
	}
}

func TestListsArePagedToTheEnd(t *testing.T) {
	w := newWorld(t, options{})
	const n = 7
	for i := range n {
		w.create(map[string]any{"name": fmt.Sprint("máy & ", i), "tags": []string{"a b", "c"}, "colour": "r+g"})
	}
	w.create(map[string]any{"name": "one tag of two", "tags": []string{"c"}, "colour": "r+g"})
	w.create(map[string]any{"name": "another colour", "tags": []string{"a b", "c"}, "colour": "r g"})
	for _, query := range []string{"", "&sort=name:asc", "&sort=disk_format:asc,size:desc", "&sort_key=status&sort_dir=asc"} {
		next := "/v2/images?limit=2&tag=a+b&tag=c&colour=r%2Bg" + query
		var names []string
		for pages := 0; next != ""; pages++ {
			if pages > n {
				t.Fatal("the pages have no end")
			}
			a := w.do("GET", next, nil)
			if a.StatusCode != 200 {
				t.Fatalf("%s: %d %s", next, a.StatusCode, a.body)
			}
			page := a.json(t)
			for _, img := range page["images"].([]any) {
				names = append(names, img.(map[string]any)["name"].(string))
			}
			next, _ = page["next"].(string)
		}
		if len(names) != n {
			t.Errorf("%s: %d images: %q", query, len(names), names)
		}
	}
}

func TestVersionsAndTheWaysToNameThem(t *testing.T) {
	w := newWorld(t, options{})
	for path, status := range map[string]int{"/": 300, "/versions": 200, "/v1/images": 300, "/v2.99/images": 300, "/nothing": 300} {
		a := w.do("GET", path, nil, "X-Auth-Token", "")
		list, _ := a.json(t)["versions"].([]any)
		if a.StatusCode != status || len(list) != 10 {
			t.Fatalf("%s: %d %s", path, a.StatusCode, a.body)
		}
		newest := list[0].(map[string]any)
		link := newest["links"].([]any)[0].(map[string]any)
		if newest["id"] != "v2.9" || newest["status"] != "CURRENT" || link["href"] != w.server.URL+"/v2/" {
			t.Errorf("%s: %v", path, newest)
		}
	}
	for _, path := range []string{"/v2.3/images", "/v2/images"} {
		if a := w.do("GET", path, nil); a.StatusCode != 200 {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	for _, accept := range []string{"application/vnd.openstack.images-v2", "application/vnd.openstack.images-v2.5"} {
		if a := w.do("GET", "/images", nil, "Accept", accept); a.StatusCode != 200 {
			t.Errorf("%s: %d", accept, a.StatusCode)
		}
	}
	if a := w.do("GET", "/images", nil, "Accept", "application/vnd.openstack.images-v9"); a.StatusCode != 300 {
		t.Errorf("v9: %d", a.StatusCode)
	}
	if a := w.do("GET", "/v2", nil); a.StatusCode != http.StatusOK || a.json(t)["versions"] == nil {
		t.Errorf("/v2 with a token: %d", a.StatusCode)
	}
}

func TestTooLargeABodyIsAnsweredWhileItIsSent(t *testing.T) {
	w := newWorld(t, options{})
	c, r := w.raw("POST /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: demo-token\r\nContent-Length: 16777216\r\n\r\n")
	if _, err := c.Write(bytes.Repeat([]byte(" "), 1<<24)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 413 {
		t.Errorf("%v %v", res, err)
	}
}

func TestForwardedHeadersAreBelievedOnlyWhereConfigured(t *testing.T) {
	for trust, scheme := range map[bool]string{false: "http://127", true: "https://img.example:443/v2/"} {
		w := newWorld(t, options{trust: trust})
		a := w.do("GET", "/", nil, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "img.example:443")
		if !strings.Contains(string(a.body), `"href":"`+scheme) {
			t.Errorf("trust %v: %s", trust, a.body)
		}
	}
}
