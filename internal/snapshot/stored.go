package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// Stored gives a layer that larder made, here or on another machine, of which a copy lies in a remote store: blob, or nil where
// none is known. Its directory is the stored one if there is one, else blob is fetched and unpacked when somebody asks. Its
// tree is that of the directory, else what load gives, else it is unpacked too; load may be nil, and may give nil or an error
// where it does not know. Neither ever stands for the layer without having its identity.
//
// What is wrong with the copy, that it is gone, damaged, or another layer's, is a *layer.GoneError, and what is gone is not
// asked for again. What is wrong with this machine (a full disk) and the end of the context are not.
//
// The copy also serves other layers of this identity, whose contents are had some other way: it is tried first.
func (s *Store) Stored(identity key.Digest, pinned bool, blob *layer.Blob, load func(ctx context.Context) (*tree.Node, error)) *layer.Layer {
	c := &remoteCopy{store: s, blob: blob, load: load}
	c.of = layer.Lazy(identity, pinned, c, c.tree)
	if blob != nil {
		s.mu.Lock()
		s.copies[identity] = c
		s.mu.Unlock()
	}
	return c.of
}

// copyOf finds the remote copy of a layer: its own, or the one that Stored heard of last. It is nil for a layer that none is
// known of.
func (s *Store) copyOf(l *layer.Layer) *remoteCopy {
	// The contents of a layer that was made of parts of another one are those of the other.
	own, _ := l.Contents.(*remoteCopy)
	if own != nil && own.of.Identity != l.Identity {
		own = nil
	}
	if own != nil && own.blob != nil {
		return own
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.copies[l.Identity]; c != nil {
		return c
	}
	return own
}

// remoteCopy is where a layer can be had from when it is not here, and the Source of its contents.
type remoteCopy struct {
	store *Store
	of    *layer.Layer
	blob  *layer.Blob
	load  func(ctx context.Context) (*tree.Node, error)

	mu     sync.Mutex
	loaded bool
	root   *tree.Node // from load, nil where it did not know
	lost   error      // a *layer.GoneError, once the copy turned out to be gone
}

func (c *remoteCopy) tree(ctx context.Context) (*tree.Node, error) {
	if e, err := c.store.lookup(c.of.Identity); err != nil {
		return nil, err
	} else if e != nil {
		return e.root, nil
	}
	if root := c.known(ctx); root != nil {
		return root, nil
	}
	e, err := c.store.ensure(ctx, c.of)
	if err != nil {
		return nil, err
	}
	return e.root, nil
}

// Open implements layer.Source.
func (c *remoteCopy) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	return contents{c.store, c.of}.Open(ctx, d, size)
}

// known gives the layer's tree as load knows it; nil where it does not.
func (c *remoteCopy) known(ctx context.Context) *tree.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded || c.load == nil {
		return c.root
	}
	root, err := c.load(ctx)
	if ctx.Err() != nil {
		return nil // the next one may have the time
	}
	c.loaded = true
	if err != nil || root == nil {
		return nil
	}
	if id, err := root.Identity(); err != nil || id != c.of.Identity {
		c.store.warn("the tree that is kept of layer %s is another one's, and not used", c.of.Identity)
		return nil
	}
	c.root = root
	return root
}

// unpack fetches the copy into dir and gives its tree.
func (c *remoteCopy) unpack(ctx context.Context, dir string) (*tree.Node, error) {
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	if lost != nil {
		return nil, lost
	}
	if c.blob == nil {
		return nil, c.gone(errors.New("no copy of it is known"))
	}
	root, err := c.store.unpack(ctx, c.blob, dir)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case badCopy(err):
			return nil, c.gone(err)
		}
		return nil, err
	}
	want := c.known(ctx)
	if want != nil && tree.Walk(want, func(string, *tree.Node) error { return nil }) != nil {
		want = nil // a part of it is damaged
	}
	if want != nil { // the tar does not carry what the root itself is
		root = root.WithMeta(want.Meta)
	}
	if id, err := root.Identity(); err != nil {
		return nil, err
	} else if id != c.of.Identity {
		return nil, c.gone(fmt.Errorf("the copy %s: %w, %s", c.blob.Desc.Digest, layer.ErrOther, id))
	}
	if want == nil {
		return root, nil
	}
	// The tar has whole seconds, or the times of an epoch: the directory gets those that the layer was made with.
	if err := layer.Retime(dir, root, want); err != nil {
		return nil, err
	}
	return want, nil
}

// gone says why there is no copy, from now on.
func (c *remoteCopy) gone(err error) error {
	var gone *layer.GoneError
	if !errors.As(err, &gone) || gone.Identity != c.of.Identity { // else whoever fetched it said so
		gone = &layer.GoneError{Identity: c.of.Identity, Err: err}
		if c.blob != nil {
			gone.Copy = c.blob.Desc.Digest
			if len(c.blob.Origin) > 0 {
				gone.Store = c.blob.Origin[0]
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = gone
	return gone
}

// badCopy tells whether a copy could not be unpacked for what it is, and not for what this machine is.
func badCopy(err error) bool {
	var fetching *fetchError
	if errors.As(err, &fetching) || errors.Is(err, layer.ErrBadTar) {
		return true
	}
	// What the kernel calls impossible: attributes, names and links that a layer larder made cannot have.
	for _, no := range []error{unix.EINVAL, unix.ERANGE, unix.E2BIG, unix.ENAMETOOLONG, unix.EMLINK} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
