package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/retry"
)

// What the driver itself asks for.
var (
	errNoUpload  = errors.New("no such upload")
	errCondition = errors.New("a condition does not hold") // of If-Match, If-None-Match
)

// kinds are the sentinels that answers of a server stand for; the first entry that
// matches decides. A code is S3's ("Error responses" in its API reference), "" = any;
// status 0 is any.
var kinds = []struct {
	code     string
	status   int
	sentinel error
}{
	{"NoSuchUpload", 0, errNoUpload},
	{"NoSuchBucket", 0, backends.ErrUnavailable},
	{"QuotaExceeded", 0, backends.ErrFull},
	{"EntityTooLarge", 0, backends.ErrFull},
	{"NoSpaceLeftOnDevice", 0, backends.ErrFull},
	{"", http.StatusInsufficientStorage, backends.ErrFull},
	{"SlowDown", 0, backends.ErrUnavailable},
	{"RequestTimeout", 0, backends.ErrUnavailable},
	{"OperationAborted", 0, backends.ErrUnavailable},           // another one on the same object is under way
	{"ConditionalRequestConflict", 0, backends.ErrUnavailable}, // the same
	{"IncompleteBody", 0, backends.ErrUnavailable},
	{"", http.StatusNotFound, backends.ErrNotFound},
	{"", http.StatusPreconditionFailed, errCondition},
	{"", http.StatusRequestedRangeNotSatisfiable, backends.ErrChanged}, // shorter than when it was opened
	{"", http.StatusUnauthorized, backends.ErrDenied},
	{"", http.StatusForbidden, backends.ErrDenied},
	{"", http.StatusTooManyRequests, backends.ErrUnavailable},
	{"", http.StatusInternalServerError, backends.ErrUnavailable},
	{"", http.StatusBadGateway, backends.ErrUnavailable},
	{"", http.StatusServiceUnavailable, backends.ErrUnavailable},
	{"", http.StatusGatewayTimeout, backends.ErrUnavailable},
}

// advice is what an operator can do about an answer.
var advice = map[string]string{
	"NoSuchBucket":                 "the bucket is not there: make it, or set create_bucket = true",
	"InvalidAccessKeyId":           "check access_key",
	"SignatureDoesNotMatch":        "check the secret key, and region",
	"Forbidden":                    "check access_key, the secret key, region, and what the keys may do", // of HEAD, whose answer does not say
	"RequestTimeTooSkewed":         "this machine's clock and the server's differ",
	"PermanentRedirect":            "set endpoint and region to those of the bucket",
	"TemporaryRedirect":            "set endpoint and region to those of the bucket",
	"AuthorizationHeaderMalformed": "set region to that of the bucket",
}

// explain says in the contract's words why a request failed. It holds what the server
// said, and no credentials: no URL, no header.
func explain(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	var answer *awshttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil || answer.HTTPStatusCode() == 0 { // none came
		return fmt.Errorf("%s: %w: %s", doing, backends.ErrUnavailable, bare(err))
	}
	status, code, message := answer.HTTPStatusCode(), "", ""
	if said := (smithy.APIError)(nil); errors.As(err, &said) {
		code, message = said.ErrorCode(), said.ErrorMessage()
	}
	story := fmt.Sprintf("%d %s", status, overhttp.Clip(code))
	if message != "" && message != code {
		story += ": " + overhttp.Clip(message)
	}
	if hint := advice[code]; hint != "" {
		story += " (" + hint + ")"
	}
	if status < 300 { // what came could not be read: it was cut off
		return fmt.Errorf("%s: %w: %s: the answer cannot be read", doing, backends.ErrUnavailable, story)
	}
	for _, k := range kinds {
		if (k.code == "" || k.code == code) && (k.status == 0 || k.status == status) {
			return retry.After(fmt.Errorf("%s: %w: %s", doing, k.sentinel, story), overhttp.RetryAfter(answer.Response.Header, time.Now()))
		}
	}
	return fmt.Errorf("%s: the server answers %s", doing, story)
}

// bare is an error's text less the URL of the request.
func bare(err error) string {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if strings.Contains(err.Error(), "certificate") {
		return err.Error() + " (ca_file names who signed the server's certificate)"
	}
	return err.Error()
}
