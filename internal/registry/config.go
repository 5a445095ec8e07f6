package registry

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/util/resolver/config"
	"github.com/pelletier/go-toml/v2"

	"larder/internal/fault"
)

// Table is the [registry] table of buildkitd.toml: settings by the name of the registry.
type Table map[string]config.RegistryConfig

// ReadTable takes the [registry] table from a TOML document and leaves everything else in it alone, so that an
// existing buildkitd.toml can be used as it is.
func ReadTable(r io.Reader) (Table, error) {
	var doc struct {
		Registry Table `toml:"registry"`
	}
	if err := toml.NewDecoder(io.LimitReader(r, 4<<20)).Decode(&doc); err != nil {
		return nil, fault.Errorf(fault.Usage, "read [registry] table: %w", err)
	}
	return doc.Registry, nil
}

// Config is what a Client is made from. The zero value works: TLS, loopback registries in plain HTTP, docker's own
// credentials.
type Config struct {
	// Registries has mirrors, certificates and plain HTTP by registry.
	Registries Table
	// Insecure lists registries (host or host:port) whose certificate is not checked and that may answer in plain HTTP.
	Insecure []string
	// Credentials looks up user and secret for a registry as users name it; a secret with an empty user is an
	// identity token, both empty means none. It is called when a registry asks for a sign-in and not before. Nil is
	// docker's config.json with its credential helpers.
	Credentials func(host string) (user, secret string, err error)
	// UserAgent goes with each request.
	UserAgent string
	// Sleep waits between two tries of a request, nil is a timer: tests pass their own.
	Sleep func(d time.Duration, done <-chan struct{})
}

// Client speaks to registries. It is safe for concurrent use, and dials nothing before it is asked to.
type Client struct {
	cfg      Config
	insecure map[string]bool
	stall    time.Duration // as Guard's

	mu    sync.Mutex
	hosts map[string][]*endpoint // by Ref.Host: mirrors in order, then the registry itself

	requests, down, up atomic.Int64
}

// New makes a Client. Certificates that the table names are read when their registry is first used.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, insecure: make(map[string]bool), stall: maxStall, hosts: make(map[string][]*endpoint)}
	for _, h := range cfg.Insecure {
		c.insecure[h] = true
	}
	if c.cfg.Credentials == nil {
		c.cfg.Credentials = (&dockerConfig{}).credentials
	}
	if c.cfg.UserAgent == "" {
		c.cfg.UserAgent = "larder"
	}
	if c.cfg.Sleep == nil {
		c.cfg.Sleep = sleep
	}
	return c
}

// Stats counts what a Client has sent and received: requests with every retry, redirect and token request, and bytes
// of bodies.
type Stats struct {
	Requests  int64 `json:"requests"`
	BytesDown int64 `json:"bytes_down"`
	BytesUp   int64 `json:"bytes_up"`
}

// Stats gives the counts so far.
func (c *Client) Stats() Stats {
	return Stats{Requests: c.requests.Load(), BytesDown: c.down.Load(), BytesUp: c.up.Load()}
}

// Close drops idle connections. The client may be used again afterwards.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.hosts {
		for _, e := range list {
			e.client.CloseIdleConnections()
		}
	}
}
