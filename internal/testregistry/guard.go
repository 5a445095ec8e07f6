package testregistry

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// GuardOptions say who may do what, and for how long a token lets them.
type GuardOptions struct {
	User, Password string
	// Reader and ReaderPassword, where set, may pull and nothing else.
	Reader, ReaderPassword string
	// Lifetime is how long a token is good, 5 minutes when zero. The registry compares it when a request begins.
	Lifetime time.Duration
	// Unsaid keeps the lifetime from the clients. One below a second cannot be said.
	Unsaid bool
}

// Guard stands before a registry (Options.Wrap) and lets only those pass who bring a token for what they do. The tokens
// come from a server of their own, on another port.
type Guard struct {
	// Addr is the token server's host:port.
	Addr string

	opt    GuardOptions
	server *server

	mu     sync.Mutex
	tokens map[string]token
	counts GuardCounts
}

type token struct {
	ends  time.Time
	grant []string // "repository:app:pull"
}

// GuardCounts is what a Guard has decided.
type GuardCounts struct {
	Tokens  int // handed out
	Denied  int // requests for a token with wrong credentials
	Expired int // requests with a token that was good once
}

// NewGuard runs a token server until Close.
func NewGuard(opt GuardOptions) (*Guard, error) {
	if opt.Lifetime == 0 {
		opt.Lifetime = 5 * time.Minute
	}
	g := &Guard{opt: opt, tokens: map[string]token{}}
	var err error
	if g.server, err = listen("", http.HandlerFunc(g.sign)); err != nil {
		return nil, fmt.Errorf("token server: %w", err)
	}
	g.Addr = g.server.addr
	return g, nil
}

// Close stops the token server.
func (g *Guard) Close() error { return g.server.close() }

// Counts gives the counts so far.
func (g *Guard) Counts() GuardCounts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts
}

// sign answers a request for a token: GET with basic authentication, or POST with a form. A password is an identity token
// too.
func (g *Guard) sign(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	user, password, _ := req.BasicAuth()
	if req.Method == http.MethodPost {
		user, password = req.PostForm.Get("username"), req.PostForm.Get("password")
		if req.PostForm.Get("grant_type") == "refresh_token" {
			user, password = g.opt.User, req.PostForm.Get("refresh_token")
		}
	}
	writer := user == g.opt.User && password == g.opt.Password
	reader := g.opt.Reader != "" && user == g.opt.Reader && password == g.opt.ReaderPassword
	g.mu.Lock()
	defer g.mu.Unlock()
	if !writer && !reader {
		g.counts.Denied++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	g.counts.Tokens++
	name := rand.Text()
	g.tokens[name] = token{ends: time.Now().Add(g.opt.Lifetime), grant: granted(req.Form["scope"], writer)}
	answer := map[string]any{"token": name, "access_token": name}
	if s := int(g.opt.Lifetime.Seconds()); s > 0 && !g.opt.Unsaid {
		answer["expires_in"] = s
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// granted lists what a token allows of what was asked for, one action each.
func granted(scopes []string, writer bool) []string {
	var list []string
	for _, s := range strings.Fields(strings.Join(scopes, " ")) {
		i := strings.LastIndexByte(s, ':')
		if i < 0 {
			continue
		}
		for action := range strings.SplitSeq(s[i+1:], ",") {
			if writer || action == "pull" {
				list = append(list, s[:i+1]+action)
			}
		}
	}
	return list
}

// Wrap is for Options.Wrap. The registry's own pushes need no token.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		why := ""
		need := needed(req)
		if req.Header.Get(uncounted) == "" {
			why = g.judge(req.Header.Get("Authorization"), need)
		}
		if why == "" {
			next.ServeHTTP(w, req)
			return
		}
		challenge := fmt.Sprintf(`Bearer realm="http://%s/token",service="testregistry"`, g.Addr)
		if len(need) > 0 {
			challenge += fmt.Sprintf(`,scope=%q`, strings.Join(need, " "))
		}
		if why != "none" {
			challenge += fmt.Sprintf(`,error=%q`, why)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	})
}

// judge says "" to a token that is good for what is needed, and else what is wrong, "none" where there is no token.
func (g *Guard) judge(header string, need []string) string {
	name, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return "none"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := g.tokens[name]
	switch {
	case !ok:
		return "invalid_token"
	case !time.Now().Before(t.ends):
		g.counts.Expired++
		return "invalid_token"
	}
	for _, scope := range need {
		i := strings.LastIndexByte(scope, ':')
		for action := range strings.SplitSeq(scope[i+1:], ",") {
			if !slices.Contains(t.grant, scope[:i+1]+action) {
				return "insufficient_scope"
			}
		}
	}
	return ""
}

// needed lists the scopes that a request needs, as distribution asks for them.
func needed(req *http.Request) []string {
	repository := repositoryOf(req.URL)
	if repository == "" {
		return nil
	}
	actions := "pull"
	switch req.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		actions = "pull,push"
	case http.MethodDelete:
		actions = "delete"
	}
	list := []string{"repository:" + repository + ":" + actions}
	if from := req.URL.Query().Get("from"); from != "" && req.Method == http.MethodPost {
		list = append(list, "repository:"+from+":pull")
	}
	return list
}

// repositoryOf cuts the repository out of a path of the protocol.
func repositoryOf(u *url.URL) string {
	rest, ok := strings.CutPrefix(u.Path, "/v2/")
	if !ok {
		return ""
	}
	for _, part := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if i := strings.LastIndex(rest, part); i >= 0 {
			return rest[:i]
		}
	}
	return ""
}
