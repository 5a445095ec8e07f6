package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

const (
	maxTries       = 5                // of one request at the registry itself
	maxMirrorTries = 2                // at a mirror, which the next host stands in for
	maxRefused     = 3                // tries at a port that nobody listens on
	maxSilent      = 2                // tries at an address that does not answer, half a minute each, or at a connection that hangs
	maxWait        = 30 * time.Second // the longest pause that a Retry-After may ask for
)

// call is one request of the protocol, before it is known where it goes.
type call struct {
	method string
	path   string // below the repository: "manifests/latest"
	query  url.Values
	header http.Header
	body   func() (io.ReadCloser, error) // opened anew for each try; nil for none
	size   int64                         // of body
	scopes []string
	abs    *url.URL // for uploads: where the registry sent us; path and query are not used then
	once   bool     // no second try: what failed cannot be repeated alone
	ranges bool     // hosts that are known to ignore a Range header are passed over
}

func pullScope(repo string) string { return "repository:" + repo + ":pull" }
func pushScope(repo string) string { return "repository:" + repo + ":pull,push" }

func deleteScope(repo string) string { return "repository:" + repo + ":pull,push,delete" }

// anywhere sends a call to the hosts that serve a registry's content in turn and gives the first success: an answer
// for which accept says true. The error is that of the host which came nearest: an answer counts more than silence.
func (c *Client) anywhere(ctx context.Context, ref Ref, q call, accept func(*endpoint, *http.Response) bool) (*endpoint, *http.Response, error) {
	list, err := c.endpoints(ref.Host)
	if err != nil {
		return nil, nil, err
	}
	var best error
	for i, e := range list {
		if e.mirror && e.down.Load() || q.ranges && e.rangeless.Load() {
			continue
		}
		resp, err := c.send(ctx, e, ref.Repo, q)
		if err == nil && accept(e, resp) {
			return e, resp, nil
		}
		if ctx.Err() != nil {
			if err == nil {
				resp.Body.Close()
			}
			return nil, nil, ctx.Err()
		}
		if err == nil {
			err = statusError(e, resp)
		} else if e.mirror {
			e.down.Store(true)
		}
		// The registry itself has the last word; a mirror only where nothing better was said.
		if i == len(list)-1 || best == nil {
			best = err
		}
	}
	if best == nil { // all were passed over
		best = ErrNoRanges
	}
	return nil, nil, best
}

// own is the registry's own endpoint, the one to push to.
func (c *Client) own(ref Ref) (*endpoint, error) {
	list, err := c.endpoints(ref.Host)
	if err != nil {
		return nil, err
	}
	return list[len(list)-1], nil
}

// ask sends a call to the registry itself. An answer of any other status than those given is an error.
func (c *Client) ask(ctx context.Context, ref Ref, q call, want ...int) (*endpoint, *http.Response, error) {
	e, err := c.own(ref)
	if err != nil {
		return nil, nil, err
	}
	resp, err := c.send(ctx, e, ref.Repo, q)
	if err == nil && !slices.Contains(want, resp.StatusCode) {
		err = statusError(e, resp)
	}
	if err != nil {
		return e, nil, err
	}
	return e, resp, nil
}

// send makes a call at one endpoint, signs in where asked to, and repeats what failed for a passing reason. It gives
// the last answer, whatever its status; the caller closes its body. An error means that there was no answer.
func (c *Client) send(ctx context.Context, e *endpoint, repo string, q call) (*http.Response, error) {
	tries := maxTries
	if e.mirror {
		tries = maxMirrorTries
	}
	for try := 1; ; try++ {
		resp, err := c.signedIn(ctx, e, repo, q)
		if ctx.Err() != nil {
			if err == nil {
				resp.Body.Close()
			}
			return nil, ctx.Err()
		}
		again, wait := verdict(resp, err, try)
		if !again || q.once || try >= tries || wait > maxWait {
			if err != nil {
				return nil, netError(e, err)
			}
			return resp, nil
		}
		if err == nil {
			resp.Body.Close()
		}
		c.cfg.Sleep(wait, ctx.Done())
	}
}

// verdict says whether a try deserves another and how long to wait before it.
func verdict(resp *http.Response, err error, try int) (again bool, wait time.Duration) {
	wait = backoff(try)
	if err != nil {
		var status remoteerrors.ErrUnexpectedStatus // of a token server
		if errors.As(err, &status) {
			return passing(status.StatusCode), wait
		}
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return dns.IsTemporary || dns.IsTimeout, wait
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return try < maxRefused, wait
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" && op.Timeout() || errors.Is(err, ErrStalled) {
			return try < maxSilent, wait
		}
		var ne net.Error
		// A connection that breaks while a body is sent is closed under the goroutine that sends.
		return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) ||
			errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) ||
			errors.As(err, &ne) && ne.Timeout(), wait
	}
	if !passing(resp.StatusCode) {
		return false, 0
	}
	if after, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
		wait = max(after, wait)
	}
	return true, wait
}

func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// backoff is 0.2 s, 0.4 s, 0.8 s ... up to 5 s, each up to a quarter longer.
func backoff(try int) time.Duration {
	d := min(200*time.Millisecond<<min(try-1, 10), 5*time.Second)
	return d + rand.N(d/4)
}

func retryAfter(v string, now time.Time) (time.Duration, bool) {
	if v == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(now), 0), true
	}
	return 0, false
}

// signedIn makes one try, with as many rounds as signing in takes.
func (c *Client) signedIn(ctx context.Context, e *endpoint, repo string, q call) (*http.Response, error) {
	for _, s := range q.scopes {
		ctx = docker.WithScope(ctx, s)
	}
	var rounds []*http.Response
	for {
		auth := e.authorizer()
		resp, err := c.inScheme(ctx, e, auth, repo, q)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, resp)
		if resp.StatusCode != http.StatusUnauthorized || len(rounds) > 2 || q.abs != nil && q.abs.Host != e.host {
			return resp, nil
		}
		if len(rounds) == 1 && resp.Request.Header.Get("Authorization") != "" {
			// The token was good once. Not every registry says that it has expired, and containerd keeps one without a
			// stated end for ever.
			e.forget(auth)
			auth = e.authorizer()
		}
		if err := auth.AddResponses(ctx, rounds); err != nil {
			if errdefs.IsNotImplemented(err) {
				return resp, nil
			}
			resp.Body.Close()
			return nil, err
		}
		io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
		resp.Body.Close()
	}
}

// inScheme sends a request by TLS or in plain HTTP. Where both are allowed, the first that works stays.
func (c *Client) inScheme(ctx context.Context, e *endpoint, auth docker.Authorizer, repo string, q call) (*http.Response, error) {
	for {
		i := e.scheme.Load()
		req, err := c.newRequest(ctx, e, e.schemes[i], repo, q)
		if err != nil {
			return nil, err
		}
		if q.abs == nil || q.abs.Host == e.host {
			if err := e.authorize(ctx, auth, req, q.scopes); err != nil {
				if req.Body != nil {
					req.Body.Close()
				}
				return nil, err
			}
		}
		resp, err := e.client.Do(req)
		if err == nil {
			e.settled.Store(true)
			return resp, nil
		}
		if ctx.Err() == nil && e.scheme.Load() > i {
			continue // another request found out meanwhile
		}
		if ctx.Err() != nil || e.settled.Load() || int(i) == len(e.schemes)-1 || !wrongScheme(err, e.host) {
			return nil, err
		}
		e.scheme.CompareAndSwap(i, i+1)
	}
}

// wrongScheme tells an answer in plain HTTP, and a closed port 443, from other failures.
func wrongScheme(err error, host string) bool {
	if isPlainAnswer(err) {
		return true
	}
	_, port, splitErr := net.SplitHostPort(host)
	var ne net.Error
	return (splitErr != nil || port == "") && (errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &ne) && ne.Timeout())
}

func (c *Client) newRequest(ctx context.Context, e *endpoint, scheme, repo string, q call) (*http.Request, error) {
	u := &url.URL{Scheme: scheme, Host: e.host, Path: e.prefix + "/" + repo + "/" + q.path, RawQuery: q.query.Encode()}
	if q.abs != nil {
		u = q.abs
	} else if e.mirror {
		v := url.Values{"ns": {e.upstream}} // a mirror of several registries tells them apart by it
		for k, list := range q.query {
			v[k] = list
		}
		u.RawQuery = v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range q.header {
		req.Header[k] = append([]string(nil), v...)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if q.body != nil {
		if req.Body, err = q.body(); err != nil {
			return nil, err
		}
		req.GetBody, req.ContentLength = q.body, q.size
		if q.size == 0 {
			req.Body.Close()
			req.Body = http.NoBody
		}
	}
	return req, nil
}
