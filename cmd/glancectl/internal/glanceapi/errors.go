package glanceapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// Error is an answer of the server other than 2xx.
type Error struct {
	Method, Path string
	Status       int    // HTTP status
	Message      string // the server's explanation as plain text; may be empty
	RetryAfter   time.Duration
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the server answered %d %s to %s %s", e.Status, http.StatusText(e.Status), e.Method, e.Path)
	}
	return fmt.Sprintf("%s (%d %s)", e.Message, e.Status, http.StatusText(e.Status))
}

// ConnError is a request that got no answer: nobody listens, or the connection broke.
type ConnError struct {
	Client *Client
	Err    error
}

func (e *ConnError) Error() string {
	var call *os.SyscallError // "dial unix PATH: connect: …" would name the server twice
	if errors.As(e.Err, &call) {
		return fmt.Sprintf("no answer from %s: %v", e.Client.Where(), call.Err)
	}
	return fmt.Sprintf("no answer from %s: %v", e.Client.Where(), e.Err)
}

func (e *ConnError) Unwrap() error { return e.Err }

// maxErrorBody bounds what is read of an error's explanation, bytes.
const maxErrorBody = 64 << 10

func answerError(r request, resp *http.Response) error {
	e := &Error{Method: r.method, Path: r.path, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header, time.Now())}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // the status says enough without it
	e.Message = plainText(resp.Header.Get("Content-Type"), body)
	// glanced repeats the status line for the sake of OpenStack's clients; Error says it too.
	e.Message = strings.TrimPrefix(e.Message, fmt.Sprintf("%d %s: ", e.Status, http.StatusText(e.Status)))
	if e.Status == http.StatusMultipleChoices { // the list of API versions, which tells nobody what is wrong
		e.Message = "the server knows no " + r.path
	}
	if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
		e.Message = fmt.Sprintf("the server sends us on to %q, which is not followed because the token would go there too", to)
	}
	return e
}

// plainText is an error body as one line for people: Glance answers with small
// HTML pages, glanced and gateways also with JSON.
func plainText(contentType string, body []byte) string {
	text := strings.TrimSpace(string(body))
	switch {
	case strings.HasPrefix(contentType, "text/html") || strings.HasPrefix(text, "<"):
		text = stripHTML(text)
	case strings.Contains(contentType, "json") || strings.HasPrefix(text, "{"):
		if m := jsonMessage(body); m != "" {
			text = m
			if strings.Contains(text, "<br") {
				text = stripHTML(text)
			}
		}
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " ")
}

func stripHTML(page string) string {
	page = regexp.MustCompile(`(?is)<(title|h1|style|script)[^>]*>.*?</(title|h1|style|script)>`).ReplaceAllString(page, " ")
	page = regexp.MustCompile(`(?s)<[^>]*>`).ReplaceAllString(page, " ")
	return html.UnescapeString(page)
}

// jsonMessage looks for the explanation where OpenStack's services and their
// gateways put it: {"message": …} or {"error": {"message": …}}.
func jsonMessage(body []byte) string {
	var outer struct {
		Message string          `json:"message"`
		Error   json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &outer) != nil {
		return ""
	}
	if outer.Message != "" {
		return outer.Message
	}
	var text string
	if json.Unmarshal(outer.Error, &text) == nil {
		return text
	}
	var inner struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(outer.Error, &inner) != nil {
		return ""
	}
	return inner.Message
}
