package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"larder/internal/fault"
)

// authorizer gives the endpoint's tokens.
func (e *endpoint) authorizer() docker.Authorizer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.auth
}

// forget drops the tokens: an authorizer answers with the error of a failed token request for ever.
func (e *endpoint) forget(old docker.Authorizer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.auth == old {
		e.auth = e.newAuth()
	}
}

// authorize puts a token into a request and fetches it first where that is needed. Requests with the same scopes take
// turns: containerd reads when a token ends while the goroutine that fetches it may be writing that.
func (e *endpoint) authorize(ctx context.Context, auth docker.Authorizer, req *http.Request, scopes []string) error {
	turn := e.turn(strings.Join(scopes, " "))
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turn }()
	err := auth.Authorize(ctx, req)
	if err != nil {
		e.forget(auth)
	}
	return err
}

func (e *endpoint) turn(scopes string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	turn, ok := e.turns[scopes]
	if !ok {
		turn = make(chan struct{}, 1)
		if e.turns == nil {
			e.turns = map[string]chan struct{}{}
		}
		e.turns[scopes] = turn
	}
	return turn
}

// checkRedirect keeps credentials at the origin that they were meant for. net/http drops them only when the host name
// changes, and puts the first request's headers back at each hop. A Referer would tell a signed URL to the next host.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("stopped after %d redirects", len(via))
	}
	req.Header.Del("Referer")
	if !sameOrigin(req.URL, via[0].URL) {
		req.Header.Del("Authorization")
	}
	return nil
}

// checkTokenRedirect is checkRedirect for token servers, whose requests may have the password in the body.
func checkTokenRedirect(req *http.Request, via []*http.Request) error {
	if !sameOrigin(req.URL, via[0].URL) && (req.Body != nil && req.Body != http.NoBody || req.Header.Get("Authorization") != "") {
		return fault.Errorf(fault.Registry, "the token server %s sends requests on to %s://%s, where credentials must not go: "+
			"the registry should name that one", via[0].URL.Host, req.URL.Scheme, req.URL.Host)
	}
	return checkRedirect(req, via)
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }
