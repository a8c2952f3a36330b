package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/retry"
)

// What the driver itself asks for.
var (
	errCondition = errors.New("a condition does not hold") // of If-Match, If-None-Match
	errToken     = fmt.Errorf("%w: the token is refused", backends.ErrDenied)
)

// kinds are the sentinels that answers of a server stand for.
var kinds = map[int]error{
	http.StatusUnauthorized:                 errToken,
	http.StatusForbidden:                    backends.ErrDenied,
	http.StatusNotFound:                     backends.ErrNotFound,
	http.StatusRequestTimeout:               backends.ErrUnavailable,
	http.StatusConflict:                     backends.ErrUnavailable, // a newer change is there, or on its way
	http.StatusPreconditionFailed:           errCondition,
	http.StatusRequestEntityTooLarge:        backends.ErrFull,    // a quota, or max_file_size
	http.StatusRequestedRangeNotSatisfiable: backends.ErrChanged, // shorter than when it was opened
	http.StatusUnprocessableEntity:          backends.ErrUnavailable,
	http.StatusTooManyRequests:              backends.ErrUnavailable,
	498:                                     backends.ErrUnavailable, // Swift's ratelimit
	499:                                     backends.ErrUnavailable, // the server saw us hang up
	http.StatusInternalServerError:          backends.ErrUnavailable,
	http.StatusBadGateway:                   backends.ErrUnavailable,
	http.StatusServiceUnavailable:           backends.ErrUnavailable,
	http.StatusGatewayTimeout:               backends.ErrUnavailable,
	http.StatusInsufficientStorage:          backends.ErrFull,
}

// refused says in the contract's words what an answer that is no success means, and
// closes it.
func refused(doing string, answer *http.Response) error {
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	said := ""
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
		said = ": " + overhttp.Clip(string(text))
	}
	kind := kinds[answer.StatusCode]
	if kind == nil {
		return fmt.Errorf("%s: the server answers %d%s", doing, answer.StatusCode, said)
	}
	return retry.After(fmt.Errorf("%s: %w: the server answers %d%s", doing, kind, answer.StatusCode, said), overhttp.RetryAfter(answer.Header, time.Now()))
}

// failed says why a request had no answer, or none to its end. ctx is the caller's;
// asked is the request's, which may have ended because nothing moved.
func failed(ctx, asked context.Context, doing string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	case asked.Err() != nil:
		return fmt.Errorf("%s: %w", doing, context.Cause(asked))
	}
	return fmt.Errorf("%s: %w: %s", doing, backends.ErrUnavailable, bare(err))
}

// bare is an error's text less the URL of the request.
func bare(err error) string {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	text := overhttp.Clip(err.Error())
	if strings.Contains(text, "certificate") {
		text += " (ca_file names who signed the server's certificate)"
	}
	return text
}
