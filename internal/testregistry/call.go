package testregistry

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Call is a request as Faults saw it.
type Call struct {
	// Number counts the requests in the order in which they came, from 0.
	Number int
	// Signature is the request without what differs between equal builds: "GET /v2/app/blobs/DIGEST".
	Signature string
	// Nth counts the requests of this signature, from 0. Requests that run beside each other change their Number from one
	// build to the next; (Signature, Nth) stays.
	Nth int

	method string
	tagged bool  // of a manifest, by its tag
	status int   // 0 before the answer
	answer int64 // bytes of the answer's body, -1 before the answer
}

// String is for messages.
func (c Call) String() string {
	return fmt.Sprintf("request %d (%s, number %d of its kind)", c.Number, c.Signature, c.Nth)
}

var (
	digestPattern  = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	hexPattern     = regexp.MustCompile(`[0-9a-f]{16,}`)
	sessionPattern = regexp.MustCompile(`/blobs/uploads/[^/]+$`)
	tagPattern     = regexp.MustCompile(`^/v2/(.+)/manifests/([^/:]+)$`)
)

func newCall(req *http.Request) *Call {
	return &Call{
		Signature: signature(req.Method, req.URL, req.Header.Get("Range") != ""),
		method:    req.Method,
		tagged:    tagPattern.MatchString(req.URL.Path),
		answer:    -1,
	}
}

func signature(method string, u *url.URL, ranged bool) string {
	normal := func(s string) string {
		return hexPattern.ReplaceAllString(digestPattern.ReplaceAllString(s, "DIGEST"), "HEX")
	}
	out := method + " " + normal(sessionPattern.ReplaceAllString(u.Path, "/blobs/uploads/ID"))
	var query []string
	for k, list := range u.Query() {
		if k == "_state" { // of the upload session, for the registry itself
			continue
		}
		for _, v := range list {
			query = append(query, k+"="+normal(v))
		}
	}
	if len(query) > 0 {
		slices.Sort(query)
		out += "?" + strings.Join(query, "&")
	}
	if ranged {
		out += " (range)"
	}
	return out
}

// Kind is a way for a request to fail.
type Kind int

const (
	// Reset breaks the connection before the registry acts: half of an upload has been read then.
	Reset Kind = iota
	// LostAnswer breaks the connection after the registry has acted: within the answer's body where it has one.
	LostAnswer
	// TooMany answers 429 with "Retry-After: 0"; nothing is done.
	TooMany
	// TooManyWait answers 429 with "Retry-After: 1"; nothing is done.
	TooManyWait
	// ServerError answers 500; nothing is done.
	ServerError
	// LateError answers 500 although the registry has done what was asked for.
	LateError
	// Truncated ends the answer's body early and closes the connection.
	Truncated
	// FlippedByte changes one bit of the answer's body, or of the digest that its header names where it has none.
	FlippedByte
	// Stale answers a question about a tag with what it pointed to before: 404 where that was nothing.
	Stale
	// Slow stalls in the middle of the body, the answer's or else the request's, and without any before the answer.
	Slow

	kinds // their number
)

var kindNames = [kinds]string{"reset", "lost answer", "429", "429 and wait", "500", "500 after the deed", "truncated", "flipped byte", "stale", "slow"}

func (k Kind) String() string { return kindNames[k] }

// Kinds lists all of them.
func Kinds() []Kind {
	list := make([]Kind, kinds)
	for i := range list {
		list[i] = Kind(i)
	}
	return list
}

// Can tells whether a request can fail so: a manifest's tag can be stale, an answer without a body cannot be truncated.
// What only the answer decides counts as possible as long as there is none.
func (c Call) Can(k Kind) bool {
	question := c.method == http.MethodGet || c.method == http.MethodHead
	switch k {
	case LateError:
		return !question // a question answered late is one answered not at all: ServerError
	case Truncated:
		return c.method == http.MethodGet && c.answer != 0
	case FlippedByte:
		return c.method == http.MethodGet && c.answer != 0 || c.method == http.MethodHead && (c.status == 0 || c.status == http.StatusOK)
	case Stale:
		return question && c.tagged && c.status != http.StatusNotFound
	}
	return true
}
