package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/retry"
	"glanced/contrib/testbed"
)

// quickly repeats the parts of an upload at once.
func quickly(s *Store) *Store {
	s.sending = retry.Policy{Total: time.Minute, Pause: time.Millisecond, LongPause: time.Millisecond}
	return s
}

// answer is an error as S3 says it: status, code, and headers in pairs.
func answer(status int, code string, headers ...string) testbed.Fault {
	text := `<?xml version="1.0"?><Error><Code>` + code + `</Code><Message>says the server</Message></Error>`
	return testbed.Answer(status, text, append(headers, "Content-Type", "application/xml")...)
}

func wantErr(t *testing.T, when string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", when, err, want)
	}
	if err != nil && (strings.Contains(err.Error(), "testbed/secret") || strings.Contains(err.Error(), "testbedkey")) {
		t.Errorf("%s: the error tells the keys: %v", when, err)
	}
}

func TestReadsThatFailSayWhy(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	s := openStore(t, on(srv))
	content := backendtest.Noise(1, 300_000)
	loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	keep := func(h http.Header, body []byte) []byte { return body }
	header := func(name, value string) func(http.Header, []byte) []byte {
		return func(h http.Header, body []byte) []byte { h.Set(name, value); return body }
	}
	elsewhere := 0
	other, otherSrv := srv.Behind(t)
	other.Set(testbed.Before(func(*http.Request) { elsewhere++ }))
	for _, c := range []struct {
		name  string
		fault testbed.Fault
		want  error
	}{
		{"busy", answer(503, "SlowDown"), backends.ErrUnavailable},
		{"too many requests", answer(429, ""), backends.ErrUnavailable},
		{"broken", answer(500, "InternalError"), backends.ErrUnavailable},
		{"a gateway's page", answer(502, "<html>"), backends.ErrUnavailable},
		{"cut off", testbed.Cut, backends.ErrUnavailable},
		{"answer lost", testbed.Lose, backends.ErrUnavailable},
		{"truncated", testbed.Truncate, backends.ErrUnavailable},
		{"shorter than asked", testbed.Change(func(_ http.Header, body []byte) []byte { return body[:1000] }), backends.ErrUnavailable},
		{"longer than asked", testbed.Change(func(_ http.Header, body []byte) []byte { return append(body, 0) }), backends.ErrUnavailable},
		{"another range", testbed.Change(header("Content-Range", "bytes 0-99999/300000")), backends.ErrUnavailable},
		{"no range", testbed.Change(header("Content-Range", "")), backends.ErrUnavailable},
		{"an object of another size", testbed.Change(header("Content-Range", "bytes 100000-199999/300001")), backends.ErrChanged},
		{"an object of another version", testbed.Change(header("ETag", `"0123"`)), backends.ErrChanged},
		{"the condition fails", answer(412, "PreconditionFailed"), backends.ErrChanged},
		{"it ends before", answer(416, "InvalidRange"), backends.ErrChanged},
		{"gone", answer(404, "NoSuchKey"), backends.ErrNotFound},
		{"the bucket is gone", answer(404, "NoSuchBucket"), backends.ErrUnavailable},
		{"not ours", answer(403, "AccessDenied"), backends.ErrDenied},
		{"somewhere else", answer(307, "TemporaryRedirect", "Location", otherSrv.Endpoint+"/"+srv.Bucket+"/k"), nil},
		{"nothing wrong", testbed.Change(keep), nil},
	} {
		p.Set(c.fault)
		buf := make([]byte, 100_000)
		err := b.ReadAt(t.Context(), buf, 100_000)
		if c.want != nil {
			wantErr(t, c.name, err, c.want)
		} else if (err == nil) != (c.name == "nothing wrong") {
			t.Errorf("%s: %v", c.name, err)
		}
		// net/http asks once more where an idle connection turns out to be cut.
		if n := p.Count("GetObject"); n != 1 && c.name != "cut off" && c.name != "answer lost" {
			t.Errorf("%s: %d requests, want one attempt", c.name, n)
		}
		if err == nil && !bytes.Equal(buf, content[100_000:200_000]) {
			t.Errorf("%s: other bytes", c.name)
		}
		p.Set(nil)
		if err := b.ReadAt(t.Context(), buf, 100_000); err != nil || !bytes.Equal(buf, content[100_000:200_000]) {
			t.Errorf("the read after %s: %v, or other bytes", c.name, err)
		}
	}
	if elsewhere > 0 {
		t.Error("a redirect was followed")
	}
}

// A pause that a server asks for is kept by who repeats.
func TestAServersPauseIsPassedOn(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	s := openStore(t, on(srv))
	p.Set(answer(503, "SlowDown", "Retry-After", "3600"))
	err := retry.Policy{Total: time.Minute, Pause: time.Millisecond, LongPause: time.Millisecond}.Do(t.Context(), func(ctx context.Context, before int) error {
		_, err := s.Stat(ctx, s.locate("k", head{size: -1}))
		return err
	})
	wantErr(t, "busy", err, backends.ErrUnavailable)
	if n := p.Count("HeadObject"); n != 1 {
		t.Errorf("asked %d times, though the server asked for an hour", n)
	}
}

func TestAServerThatFallsSilentFailsARead(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	content := backendtest.Noise(1, 3<<20)
	loc, err := backendtest.Put(t.Context(), openStore(t, on(srv)), "k", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openStore(t, on(srv)).Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	o := *b.(*object)
	short := on(srv)
	short.stall = 100 * time.Millisecond
	o.t.api = openStore(t, short).client
	for name, f := range map[string]testbed.Fault{
		"before the answer": testbed.Hold,
		"in the middle":     testbed.Stall,
	} {
		p.Set(testbed.On("GetObject", 1, f))
		wantErr(t, name, o.ReadAt(t.Context(), make([]byte, len(content)), 0), backends.ErrUnavailable)
	}
	p.Set(nil)
	got := make([]byte, len(content))
	if err := b.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the next read: %v, or other bytes", err)
	}
}

func TestAnObjectThatIsOverwrittenWhileItIsOpenIsNotRead(t *testing.T) {
	srv := testbed.S3(t)
	s := openStore(t, on(srv))
	content := backendtest.Noise(1, 3<<20)
	loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	srv.Put(t, "k", backendtest.Noise(2, len(content)))
	wantErr(t, "overwritten", b.ReadAt(t.Context(), make([]byte, 10), 0), backends.ErrChanged)
	wantErr(t, "overwritten", s.Delete(t.Context(), loc), backends.ErrChanged)
	srv.Put(t, "k", content)
	if err := b.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
		t.Errorf("put back: %v", err)
	}
}

func TestAnswersThatAreLostWhileCommitting(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	s := quickly(openStore(t, on(srv)))
	for _, size := range []int{1000, 12 << 20} {
		content := backendtest.Noise(3, size)
		for _, call := range []string{"PutObject", "CompleteMultipartUpload", "HeadObject", "AbortMultipartUpload", "UploadPart"} {
			for name, f := range map[string]testbed.Fault{"lost": testbed.Lose, "refused": testbed.Cut, "busy": answer(503, "SlowDown")} {
				when := fmt.Sprintf("%d bytes, %s %s", size, call, name)
				w, err := s.Begin(t.Context(), "k", -1)
				if err != nil {
					t.Fatal(err)
				}
				times := 100 // net/http asks again where an idle connection turns out to be cut
				if call == "UploadPart" {
					times = 1
				}
				p.Set(testbed.On(call, times, f))
				if _, err := backends.Copy(w, bytes.NewReader(content), -1); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				loc, err := w.Commit(t.Context())
				met := p.Count(call) > 0
				p.Set(nil)
				if met && call != "UploadPart" {
					wantErr(t, when, err, backends.ErrUnavailable)
					loc, err = w.Commit(t.Context())
				}
				if err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				if again, err := w.Commit(t.Context()); err != nil || again != loc {
					t.Errorf("%s: committed to %+v, then to %+v, %v", when, loc, again, err)
				}
				b, err := s.Open(t.Context(), loc)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(content))
				if err := b.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s: %v, or other bytes", when, err)
				}
				if err := s.Delete(t.Context(), loc); err != nil {
					t.Fatal(err)
				}
				if left := srv.List(t); len(left) > 0 {
					t.Fatalf("%s: left: %v", when, left)
				}
			}
		}
	}
}

// What cannot be cleaned up now can be later, by the claim.
func TestAnAbortMayBeRepeated(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	s := quickly(openStore(t, on(srv)))
	for _, call := range []string{"AbortMultipartUpload", "ListParts", "HeadObject", "DeleteObject"} {
		for name, f := range map[string]testbed.Fault{"lost": testbed.Lose, "refused": testbed.Cut} {
			w, err := s.Begin(t.Context(), "k", -1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := backends.Copy(w, bytes.NewReader(backendtest.Noise(4, 12<<20)), -1); err != nil {
				t.Fatal(err)
			}
			if call == "DeleteObject" {
				if _, err := w.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			p.Set(testbed.On(call, 100, f))
			wantErr(t, call+" "+name, w.Abort(t.Context()), backends.ErrUnavailable)
			p.Set(nil)
			if err := w.Abort(t.Context()); err != nil {
				t.Errorf("%s %s, again: %v", call, name, err)
			}
			if left := srv.List(t); len(left) > 0 {
				t.Errorf("%s %s: left: %v", call, name, left)
			}
		}
	}
}

// Another process writes in the instant between a look and the change that follows:
// the server's conditions keep the two apart.
func TestConditionsKeepOtherProcessesApart(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	s := openStore(t, on(srv))
	rival := backendtest.Noise(9, 2000)
	intrude := testbed.Before(func(*http.Request) { srv.Put(t, "k", rival) })
	for call, size := range map[string]int{"PutObject": 1000, "CompleteMultipartUpload": 6 << 20} {
		p.Set(testbed.On(call, 1, intrude))
		_, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(backendtest.Noise(8, size)), -1)
		wantErr(t, call, err, backends.ErrExists)
		if p.Count(call) == 0 {
			t.Errorf("no %s", call)
		}
		p.Set(nil)
		loc, err := s.Stat(t.Context(), s.locate("k", head{size: -1}))
		if err != nil || loc.Size != 2000 {
			t.Errorf("%s: the rival's object is %+v, %v", call, loc, err)
		}
		if err := s.Delete(t.Context(), loc); err != nil {
			t.Fatal(err)
		}
	}
	loc, err := backendtest.Put(t.Context(), s, "k", strings.NewReader("x"), -1)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(testbed.On("DeleteObject", 1, intrude))
	wantErr(t, "DeleteObject", s.Delete(t.Context(), loc), backends.ErrChanged)
	if left := srv.List(t); len(left) != 1 {
		t.Errorf("the successor was deleted with it: %v", left)
	}
}

func TestABucketThatIsNotThereIsNoObjectThatIsNotThere(t *testing.T) {
	srv := testbed.S3(t)
	cfg := on(srv)
	cfg.Bucket += "-new"
	s := openStore(t, cfg)
	loc := s.locate("k", head{size: -1})
	_, err := s.Stat(t.Context(), loc)
	wantErr(t, "stat", err, backends.ErrUnavailable)
	wantErr(t, "delete", s.Delete(t.Context(), loc), backends.ErrUnavailable)
	if errors.Is(err, backends.ErrNotFound) {
		t.Errorf("what is not found is forgotten: %v", err)
	}
	_, err = s.Begin(t.Context(), "k", 1)
	wantErr(t, "begin", err, backends.ErrUnavailable)

	cfg.CreateBucket = true
	s = openStore(t, cfg)
	if loc, err = backendtest.Put(t.Context(), s, "k", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Error(err)
	}
}

func TestAReadOnlyStoreChangesNothing(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	srv.Put(t, "k", []byte("x"))
	cfg := on(srv)
	cfg.ReadOnly = true
	s := openStore(t, cfg)
	p.Set(nil)
	loc := s.locate("k", head{size: 1})
	_, err := s.Begin(t.Context(), "other", 1)
	wantErr(t, "begin", err, backends.ErrReadOnly)
	wantErr(t, "delete", s.Delete(t.Context(), loc), backends.ErrReadOnly)
	wantErr(t, "abandon", s.Abandon(t.Context(), claim{bucket: srv.Bucket, key: "k", token: strings.Repeat("x", tokenLen)}.text()), backends.ErrReadOnly)
	if n := len(p.Requests()); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
	if _, err := s.Stat(t.Context(), loc); err != nil {
		t.Errorf("stat: %v", err)
	}
}

// The first Commit's work may end between the second one's look and its request.
func TestACompletionThatWasUnderWayIsFound(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	s := openStore(t, on(srv))
	w, err := s.Begin(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backends.Copy(w, bytes.NewReader(backendtest.Noise(7, 6<<20)), -1); err != nil {
		t.Fatal(err)
	}
	p.Set(testbed.On("CompleteMultipartUpload", 1, testbed.Lose))
	_, err = w.Commit(t.Context())
	wantErr(t, "the answer is lost", err, backends.ErrUnavailable)
	notYet := testbed.On("HeadObject", 1, answer(404, ""))
	gone := testbed.Always("CompleteMultipartUpload", answer(404, "NoSuchUpload"))
	p.Set(func(p *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
		// versitygw says that the object exists, and others that the upload is gone.
		return notYet(p, w, r) || gone(p, w, r)
	})
	loc, err := w.Commit(t.Context())
	if err != nil || loc.Size != 6<<20 || p.Count("CompleteMultipartUpload") != 1 {
		t.Errorf("%+v, %v after %d requests", loc, err, p.Count("CompleteMultipartUpload"))
	}

	// One whose upload was abandoned meanwhile fails for good. No part is on its way then:
	// versitygw takes such a one in after the upload was aborted, and what follows it.
	p.Set(nil)
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Fatal(err)
	}
	if w, err = s.Begin(t.Context(), "k", -1); err != nil {
		t.Fatal(err)
	}
	if _, err := backends.Copy(w, bytes.NewReader(backendtest.Noise(7, 6<<20)), -1); err != nil {
		t.Fatal(err)
	}
	upload := &w.(*writer).claim.upload
	for parts := 0; parts == 0; time.Sleep(10 * time.Millisecond) {
		list, err := s.client.ListParts(t.Context(), &awss3.ListPartsInput{Bucket: &srv.Bucket, Key: aws.String("k"), UploadId: upload})
		if err != nil {
			t.Fatal(err)
		}
		parts = len(list.Parts)
	}
	if err := s.Abandon(t.Context(), w.Claim()); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context())
	if err == nil || errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("abandoned: %v", err)
	}
	if err := w.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
