package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"

	"larder/internal/fault"
	"larder/internal/registry"
	"larder/internal/remote"
)

// refused makes an error that is one of package remote's, in other words.
func refused(kind error, format string, args ...any) error {
	return remote.Mark(fmt.Errorf(format, args...), kind)
}

// busy is an error of a server that wants to be left alone for a while.
type busy struct {
	error
	after time.Duration
}

// RetryAfter is the pause that the server asks for, for remote.Retry.
func (b *busy) RetryAfter() time.Duration { return b.after }

// fail finishes an error for the caller: a cancelled context stays what it is, all else is of kind Registry, names the object
// and says which of package remote's errors it is.
func (s *Store) fail(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf("%s s3://%s/%s", op, s.cfg.Bucket, key)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	var missing *remote.MissingError
	if errors.As(err, &missing) {
		return fault.New(fault.Registry, fmt.Errorf("%s: %w", what, err))
	}
	return fault.New(fault.Registry, fmt.Errorf("%s: %w", what, s.reason(err)))
}

// reason says what an answer means, and what helps.
func (s *Store) reason(err error) error {
	var e minio.ErrorResponse
	if !errors.As(err, &e) {
		return s.unreachable(err)
	}
	said := registry.Clean(s.creds.redact(e.Error()))
	switch e.Code {
	case minio.NoSuchBucket:
		return refused(remote.ErrDenied, "%s has no bucket %q: make it, or check bucket, region and endpoint_url", s.host, s.cfg.Bucket)
	case minio.NoSuchKey, "NotFound", "NoSuchVersion":
		return refused(remote.ErrNotFound, "%s: %v", s.host, remote.ErrNotFound)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		region := ""
		if e.Region != "" && e.Region != s.cfg.Region {
			region = " (it is in region " + registry.Clean(e.Region) + ")"
		}
		return refused(remote.ErrDenied, "%s does not serve bucket %s as one of region %s%s: %s", s.host, s.cfg.Bucket, s.cfg.Region, region, said)
	case "RequestTimeTooSkewed":
		return refused(remote.ErrDenied, "%s: the clock of this machine is wrong: %s", s.host, said)
	case "ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return refused(remote.ErrDenied, "%s refuses the credentials (%s: %s)", s.host, e.Code, said)
	case "NoSuchUpload", "InvalidPart": // somebody tidied up under an upload, which can begin anew
		return fmt.Errorf("%s answered %d: %s", s.host, e.StatusCode, said)
	case "InvalidBucketName", "InvalidArgument", "InvalidRequest", "KeyTooLongError", "EntityTooLarge", "InvalidObjectState":
		return refused(remote.ErrFinal, "%s answered %d (%s: %s)", s.host, e.StatusCode, e.Code, said)
	case "InvalidRange":
		return refused(remote.ErrDamaged, "%s has fewer bytes than were asked for: %v", s.host, remote.ErrDamaged)
	case minio.PreconditionFailed, minio.Conflict, "ConditionalRequestConflict", "OperationAborted":
		return refused(remote.ErrConflict, "%s: %v", s.host, remote.ErrConflict)
	}
	switch e.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint := "may they read, write and list there? Without s3:ListBucket, what is not there is refused, too"
		if looked := s.creds.why(); looked != "" {
			hint = "there are no credentials: looked at " + looked
		}
		return refused(remote.ErrDenied, "%s does not allow it (%s; %s)", s.host, said, hint)
	case http.StatusNotFound: // of something else than an object: to take that for an empty store would be wrong
		return refused(remote.ErrDenied, "%s answered 404 (%s: %s)", s.host, registry.Clean(e.Code), said)
	case http.StatusPreconditionFailed, http.StatusConflict:
		return refused(remote.ErrConflict, "%s: %v", s.host, remote.ErrConflict)
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return refused(remote.ErrUnsupported, "%s cannot do that (%s)", s.host, said)
	}
	return &busy{fmt.Errorf("%s answered %d: %s", s.host, e.StatusCode, said), s.transport.pause()}
}

// unreachable tells what happened below HTTP, without URLs.
func (s *Store) unreachable(err error) error {
	for _, known := range []error{remote.ErrDamaged, remote.ErrNotFound, remote.ErrConflict, remote.ErrUnsupported, remote.ErrDenied, remote.ErrFinal} {
		if errors.Is(err, known) {
			return err
		}
	}
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%s speaks plain HTTP: if that is meant, say endpoint_url=http://%s", s.host, s.host)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("there is no host %s (are endpoint_url and region right? A server that is not Amazon's may need use_path_style=true)", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses connections: is a server running there? (%w)", s.host, syscall.ECONNREFUSED)
	}
	// The text of what minio-go and net/http say may hold a proxy's password in a URL; the cause stays for errors.Is.
	words := strings.Fields(s.creds.redact(err.Error()))
	for i, w := range words {
		if at := strings.LastIndexByte(w, '@'); at >= 0 && strings.Contains(w[:at], "//") {
			words[i] = "***" + w[at:]
		}
	}
	return refused(err, "%s: %s", s.host, registry.Clean(strings.Join(words, " ")))
}
