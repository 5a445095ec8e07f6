package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/util/resolver/config"

	"larder/internal/fault"
)

const (
	maxStall  = 1 * time.Minute // how long a connection may move nothing before it is given up
	maxAnswer = 3 * time.Minute // how long a registry may think before it answers: it may store a large blob meanwhile
)

// endpoint is one host that serves a registry's content: the registry itself or a mirror of it.
type endpoint struct {
	upstream string // the registry as users write it
	host     string // where to dial
	prefix   string // path before the repository, "/v2" or "/v2/proxy"
	mirror   bool
	client   *http.Client

	rangeless atomic.Bool // answers a range with the whole blob

	schemes []string     // candidates in the order to try
	scheme  atomic.Int32 // index of the one in use
	settled atomic.Bool  // a request has been answered in it
	down    atomic.Bool  // a mirror that could not be reached: not asked again

	mu      sync.Mutex
	auth    docker.Authorizer
	newAuth func() docker.Authorizer
	turns   map[string]chan struct{} // by scopes: see authorize
}

// endpoints lists where a registry's content may be had, mirrors first.
func (c *Client) endpoints(registry string) ([]*endpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if list, ok := c.hosts[registry]; ok {
		return list, nil
	}
	cfg := c.cfg.Registries[registry]
	var list []*endpoint
	for _, m := range cfg.Mirrors {
		host, path, err := splitMirror(m)
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "mirror of registry %s: %w", registry, err)
		}
		e, err := c.newEndpoint(registry, host, c.cfg.Registries[host])
		if err != nil {
			return nil, err
		}
		e.mirror = true
		e.prefix += path
		list = append(list, e)
	}
	host := registry
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	e, err := c.newEndpoint(registry, host, cfg)
	if err != nil {
		return nil, err
	}
	list = append(list, e)
	c.hosts[registry] = list
	return list, nil
}

// splitMirror reads "host", "host:port/path" or "https://host/path"; path comes without a slash at its end.
func splitMirror(m string) (host, path string, err error) {
	u, err := url.Parse(m)
	if err != nil || u.Host == "" {
		u, err = url.Parse("//" + m)
	}
	if err != nil || u.Host == "" {
		return "", "", fmt.Errorf("%.200q is no host name", m)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", "", fmt.Errorf("%s: only a host and a path may stand in a mirror", u.Host)
	}
	return u.Host, strings.TrimRight(u.Path, "/"), nil
}

func (c *Client) newEndpoint(upstream, host string, cfg config.RegistryConfig) (*endpoint, error) {
	tc, err := tlsConfig(cfg)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "settings of registry %s: %w", host, err)
	}
	plain := isLoopback(host)
	if cfg.PlainHTTP != nil {
		plain = *cfg.PlainHTTP
	}
	flagged := c.insecure[host] || c.insecure[upstream] && upstreamHost(upstream) == host
	insecure := flagged || cfg.Insecure != nil && *cfg.Insecure
	tc.InsecureSkipVerify = insecure

	e := &endpoint{upstream: upstream, host: host, prefix: "/v2"}
	switch {
	case plain && !insecure:
		e.schemes = []string{"http"}
	case plain || flagged:
		e.schemes = []string{"https", "http"}
	default:
		e.schemes = []string{"https"}
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 60 * time.Second}).DialContext,
		TLSClientConfig:       tc,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: maxAnswer,
		// Manifests and layers are wanted as the bytes that their digest names.
		DisableCompression: true,
		// HTTP/2's flow control holds uploads back and puts all downloads on one connection (golang/go#14077).
		TLSNextProto: make(map[string]func(string, *tls.Conn) http.RoundTripper),
	}
	e.client = &http.Client{
		Transport:     &counter{base: transport, guard: Guard{Base: transport, Stall: c.stall, Answer: maxAnswer}, c: c},
		CheckRedirect: checkRedirect,
	}
	tokens := &http.Client{
		Transport:     &limited{base: e.client.Transport, max: 1 << 20},
		CheckRedirect: checkTokenRedirect,
		Timeout:       time.Minute,
	}
	header := http.Header{"User-Agent": {c.cfg.UserAgent}}
	e.newAuth = func() docker.Authorizer {
		return docker.NewDockerAuthorizer(docker.WithAuthClient(tokens), docker.WithAuthHeader(header),
			docker.WithAuthCreds(func(h string) (string, string, error) {
				if h == "registry-1.docker.io" {
					h = "docker.io"
				}
				return c.cfg.Credentials(h)
			}))
	}
	e.auth = e.newAuth()
	return e, nil
}

func upstreamHost(registry string) string {
	if registry == "docker.io" {
		return "registry-1.docker.io"
	}
	return registry
}

// isLoopback tells whether a host[:port] is this machine: such a registry is spoken to in plain HTTP without being told.
func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func tlsConfig(cfg config.RegistryConfig) (*tls.Config, error) {
	cas, pairs := cfg.RootCAs, cfg.KeyPairs
	for _, dir := range cfg.TLSConfigDir {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			switch filepath.Ext(path) {
			case ".crt":
				cas = append(cas[:len(cas):len(cas)], path)
			case ".cert":
				key := strings.TrimSuffix(path, ".cert") + ".key"
				pairs = append(pairs[:len(pairs):len(pairs)], config.TLSKeyPair{Certificate: path, Key: key})
			}
		}
	}
	tc := &tls.Config{}
	if len(cas) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("the system's certificates: %w", err)
		}
		for _, path := range cas {
			pem, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("ca %s: no PEM certificate in it", path)
			}
		}
		tc.RootCAs = pool
	}
	for _, p := range pairs {
		cert, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
		if err != nil {
			return nil, fmt.Errorf("keypair %s: %w", p.Certificate, err)
		}
		tc.Certificates = append(tc.Certificates, cert)
	}
	return tc, nil
}
