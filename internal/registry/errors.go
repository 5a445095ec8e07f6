package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/opencontainers/go-digest"

	"larder/internal/fault"
)

var (
	// ErrNotFound is wrapped when the registry has no such repository, tag, manifest or blob.
	ErrNotFound = errors.New("not found")
	// ErrDenied is wrapped when the registry wants (other) credentials.
	ErrDenied = errors.New("access denied")
	// ErrDamaged is wrapped when what came is not what its digest, size or type says.
	ErrDamaged = errors.New("damaged")
)

// maxMessage bounds what is quoted of a registry's answer, in bytes.
const maxMessage = 300

// maxError bounds what is read of an error's body, in bytes: a registry may list each missing blob of a manifest.
const maxError = 256 << 10

// Error is a registry's refusal, or the failure to reach it. Its text names what was asked for and the way out; it
// never holds a credential, token or query of a URL.
type Error struct {
	Op      string // "pull", "push", "delete" or "list"
	Ref     string // what was asked for
	Host    string // who was asked
	Status  int    // the HTTP status, 0 without an answer
	Code    string // the registry's own code ("MANIFEST_UNKNOWN"), where it gave one
	Message string // the registry's own words, cleaned
	Err     error  // ErrNotFound, ErrDenied, ErrDamaged, or what happened below HTTP

	Digests []digest.Digest // those that the registry's words name, the missing blobs of a manifest for example
	After   time.Duration   // what a Retry-After header asks to wait; 0 without one

	lasting bool // without an answer: no other try will go better
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Passing tells whether the same request may succeed later: the network, a limit, a server in trouble.
func (e *Error) Passing() bool {
	if e.Status != 0 {
		return passing(e.Status)
	}
	return !e.lasting
}

// RetryAfter is the pause that the registry asks for.
func (e *Error) RetryAfter() time.Duration { return e.After }

// Error says what failed and what can be done.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Op, e.Ref, e.reason())
}

func (e *Error) reason() string {
	said := ""
	if e.Message != "" {
		said = ": " + e.Message
	}
	login := e.Host
	if login == "registry-1.docker.io" {
		login = "docker.io"
	}
	switch {
	case errors.Is(e.Err, ErrDenied):
		return fmt.Sprintf("access denied by %s%s (sign in with  docker login %s, or check that the name is right)", e.Host, said, login)
	case e.Status == http.StatusNotFound && errors.Is(e.Err, ErrNotFound):
		return fmt.Sprintf("not found at %s", e.Host)
	case e.Status == http.StatusTooManyRequests:
		return fmt.Sprintf("%s limits requests%s (signing in, a mirror, or waiting helps)", e.Host, said)
	case e.Status != 0 && e.Err == nil:
		return fmt.Sprintf("%s answered %d %s%s", e.Host, e.Status, http.StatusText(e.Status), said)
	default:
		return fmt.Sprintf("%v", e.Err)
	}
}

// fail finishes an error for the caller: a cancelled context stays what it is, all else is of kind Registry.
func fail(ctx context.Context, op string, ref Ref, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", op, ref, context.Cause(ctx))
	}
	var e *Error
	if errors.As(err, &e) {
		e.Op, e.Ref = op, ref.String()
		return fault.New(fault.Registry, e)
	}
	return fault.New(fault.Registry, fmt.Errorf("%s %s: %w", op, ref, err))
}

// statusError reads a response that is no success, and closes it.
func statusError(e *endpoint, resp *http.Response) *Error {
	defer resp.Body.Close()
	out := &Error{Host: e.host, Status: resp.StatusCode}
	out.After, _ = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
	var doc struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &doc) == nil && len(doc.Errors) > 0 {
		out.Code = Clean(doc.Errors[0].Code)
		out.Message = Clean(redact(resp.Request, doc.Errors[0].Message))
		for _, one := range doc.Errors { // one for each missing blob
			out.Digests = appendDigests(out.Digests, string(one.Detail))
			out.Digests = appendDigests(out.Digests, one.Message)
		}
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		out.Err = ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		out.Err = ErrDenied
	}
	return out
}

var digestWord = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// appendDigests adds the digests in a text that list does not have. Registries agree on no form for them: a string, an
// object with a key "digest", a word in the message.
func appendDigests(list []digest.Digest, text string) []digest.Digest {
	for _, w := range digestWord.FindAllString(text, -1) {
		if d := digest.Digest(w); !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list
}

// Clean makes a server's words fit for a terminal and short.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "..."
	}
	return strings.TrimSpace(s)
}

// redact takes the request's own credential out of what a registry says: some echo it.
func redact(req *http.Request, s string) string {
	if req == nil {
		return s
	}
	_, secret, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if secret == "" {
		return s
	}
	s = strings.ReplaceAll(s, secret, "***")
	if plain, err := base64.StdEncoding.DecodeString(secret); err == nil {
		if _, password, ok := strings.Cut(string(plain), ":"); ok && password != "" {
			s = strings.ReplaceAll(s, password, "***")
		}
	}
	return s
}

// netError turns what net/http and the authorizer say into an Error without URLs.
func netError(e *endpoint, err error) *Error {
	out := &Error{Host: e.host}
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	var (
		status   remoteerrors.ErrUnexpectedStatus
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		verify   *tls.CertificateVerificationError
		dns      *net.DNSError
	)
	switch {
	case errors.As(err, &status):
		out.Status = status.StatusCode
		if status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden {
			out.Err, out.Message = ErrDenied, "its token server refuses the credentials"
			return out
		}
		out.Message = "said by its token server"
	case errors.Is(err, docker.ErrInvalidAuthorization):
		out.Status, out.Err = http.StatusUnauthorized, ErrDenied
	case errors.As(err, &unknown):
		out.lasting = true
		out.Err = fmt.Errorf("the certificate of %s is not signed by an authority that this machine knows: name it as ca in "+
			"[registry.%q] of the settings, or use --insecure-registry %s", e.host, e.upstream, e.upstream)
	case errors.As(err, &hostname), errors.As(err, &verify):
		out.lasting = true
		out.Err = fmt.Errorf("the certificate of %s: %w", e.host, &unnamed{err})
	case isPlainAnswer(err):
		out.lasting = true
		out.Err = fmt.Errorf("%s speaks plain HTTP: if that is meant, use --insecure-registry %s or http = true in [registry.%q] of the settings",
			e.host, e.upstream, e.upstream)
	case errors.As(err, &dns) && dns.IsNotFound:
		out.lasting = true
		out.Err = fmt.Errorf("there is no host %s (checked the spelling, DNS and proxy settings?)", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		out.Err = fmt.Errorf("%s refuses connections: is a registry running there? (%w)", e.host, syscall.ECONNREFUSED)
	case errors.Is(err, ErrStalled):
		out.Err = fmt.Errorf("the connection to %s hangs: %w", e.host, ErrStalled)
	case fault.Of(err) == fault.Usage || fault.Of(err) == fault.Registry: // credentials that could not be read
		out.lasting = true
		out.Err = err
	default:
		out.Err = fmt.Errorf("cannot reach %s: %w", e.host, &unnamed{err})
	}
	return out
}

// unnamed shows an error without the user names and passwords of URLs in its text (a proxy's, for example).
type unnamed struct{ err error }

func (u *unnamed) Error() string {
	words := strings.Fields(u.err.Error())
	for i, w := range words {
		if before, rest, ok := strings.Cut(w, "//"); ok {
			if at := strings.LastIndexByte(rest, '@'); at >= 0 {
				words[i] = before + "//***" + rest[at:]
			}
		}
	}
	return strings.Join(words, " ")
}

func (u *unnamed) Unwrap() error { return u.err }

// isPlainAnswer recognises a server that answered a TLS handshake in plain HTTP.
func isPlainAnswer(err error) bool {
	var header tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/"
}

// damaged makes an Error for an answer that is not what it should be.
func damaged(e *endpoint, format string, args ...any) *Error {
	return &Error{Host: e.host, Err: fmt.Errorf("%s sent %s: %w", e.host, fmt.Sprintf(format, args...), ErrDamaged)}
}
