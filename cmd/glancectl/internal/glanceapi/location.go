package glanceapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// SetLocation says where the data of a queued image lies: at a URL that one of the
// server's stores can read; store is its id, "" = whichever takes the URL. It takes
// as long as the server needs to look at the data.
func (c *Client) SetLocation(ctx context.Context, id, location, store string) error {
	fields := map[string]string{"url": location}
	if store != "" {
		fields["store"] = store
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	resp, err := c.send(ctx, request{
		method: http.MethodPut, path: "/admin/images/" + url.PathEscape(id) + "/location",
		header: http.Header{"Content-Type": {"application/json"}}, body: bytes.NewReader(b), size: int64(len(b)),
	})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
