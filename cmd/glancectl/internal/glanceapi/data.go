package glanceapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
)

// Upload gives the image its data, in a store ("" = the default one): size bytes of
// body, or all of it where size is -1. The server is asked for its consent (Expect: 100-continue) before the
// first byte, so a refusal costs no transfer. After an error one Read of body may
// still be under way: a pipe that gives nothing cannot be called back.
func (c *Client) Upload(ctx context.Context, id, store string, body io.Reader, size int64) error {
	h := http.Header{"Content-Type": {"application/octet-stream"}, "Expect": {"100-continue"}}
	if size >= 0 {
		h.Set("X-Openstack-Image-Size", strconv.FormatInt(size, 10))
	}
	if store != "" {
		h.Set("X-Image-Meta-Store", store)
	}
	if size == 0 {
		h.Del("Expect")
	}
	// net/http waits, even when ctx ends, for a Read of the request's body to
	// return. Our pipe's does at once.
	src := &source{r: body, left: size}
	pr, pw := io.Pipe()
	defer pr.Close()
	defer context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })()
	go func() {
		_, err := io.Copy(pw, src)
		pw.CloseWithError(err)
	}()
	resp, err := c.send(ctx, request{
		method: http.MethodPut, path: imagePath(id) + "/file", header: h, body: pr, size: size,
	})
	if err != nil {
		if own := src.failure(); own != nil && ctx.Err() == nil {
			return own
		}
		return err
	}
	return resp.Body.Close()
}

// source keeps the error of the reader whose bytes are sent: net/http reports it
// like a broken connection.
type source struct {
	r    io.Reader
	left int64 // bytes still due, negative = unknown

	mu  sync.Mutex
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.left >= 0 {
		s.left = max(s.left-int64(n), 0)
	}
	if err == io.EOF && s.left > 0 {
		err = fmt.Errorf("the data ended %d bytes early: was the file changed while it was sent?", s.left)
	}
	if err != nil && err != io.EOF {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Download opens the image's data as it is stored, or, where format is not "", its
// guest disk written in that format (a disk_format word). Size is -1 where the
// server does not say; ok is false where the image has no data yet (204). The
// caller closes body.
func (c *Client) Download(ctx context.Context, id, format string) (body io.ReadCloser, size int64, ok bool, err error) {
	r := request{method: http.MethodGet, path: imagePath(id) + "/file"}
	if format != "" {
		r.query = url.Values{"disk_format": {format}}
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, 0, false, err
	}
	if resp.StatusCode == http.StatusNoContent {
		resp.Body.Close()
		return nil, 0, false, nil
	}
	return resp.Body, resp.ContentLength, true, nil
}
