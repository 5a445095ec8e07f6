package frontend

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/opencontainers/go-digest"
)

// configs resolves each image once in a build, however many stages and platforms ask for it. Failures are kept as well: a
// build that goes on after one would only meet it again. It is safe for concurrent use.
type configs struct {
	resolver sourceresolver.ImageMetaResolver

	mu    sync.Mutex
	known map[string]*config
}

type config struct {
	done   chan struct{} // closed when the rest is set
	ref    string
	digest digest.Digest
	data   []byte
	err    error
}

// ResolveImageConfig implements sourceresolver.ImageMetaResolver.
func (c *configs) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	key := fmt.Sprintf("%q", ref)
	if o := opt.ImageOpt; o != nil {
		key += fmt.Sprintf(" image %q", o.ResolveMode)
		if o.Platform != nil {
			key += fmt.Sprintf(" %q", platforms.FormatAll(*o.Platform))
		}
	}
	if o := opt.OCILayoutOpt; o != nil {
		key += fmt.Sprintf(" layout %q", o.Store.StoreID)
		if o.Platform != nil {
			key += fmt.Sprintf(" %q", platforms.FormatAll(*o.Platform))
		}
	}
	c.mu.Lock()
	known, ok := c.known[key]
	if !ok {
		known = &config{done: make(chan struct{})}
		if c.known == nil {
			c.known = map[string]*config{}
		}
		c.known[key] = known
	}
	c.mu.Unlock()
	if ok {
		select {
		case <-known.done:
		case <-ctx.Done():
			return "", "", nil, ctx.Err() // not its cause, which is another image's failure
		}
	} else {
		known.ref, known.digest, known.data, known.err = c.resolver.ResolveImageConfig(ctx, ref, opt)
		close(known.done)
	}
	return known.ref, known.digest, known.data, known.err
}
