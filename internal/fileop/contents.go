package fileop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// contents is where the files of an operation's layers come from: what the operation itself says, what it unpacked, and
// the layers of its inputs. It does not change once the operation is done.
type contents struct {
	states   []*layer.State
	literals map[key.Digest][]byte
	spool    spool
}

func (c *contents) literal(b []byte) { c.literals[key.Bytes(b)] = b }

// of gives the Source of a layer that the operation made.
func (c *contents) of(root *tree.Node) layer.Source { return &source{c: c, root: root} }

// source finds which layer of the inputs holds a file when the first one is asked for, and only looks for those that its
// own layer needs.
type source struct {
	c    *contents
	root *tree.Node

	mu    sync.Mutex
	where map[key.Digest]*layer.Layer
}

// Open implements layer.Source.
func (s *source) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	if b, ok := s.c.literals[d]; ok {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if r := s.c.spool.open(d); r != nil {
		return r, nil
	}
	l, err := s.find(ctx, d)
	if err != nil {
		return nil, err
	}
	return openIn(ctx, l, d, size)
}

func openIn(ctx context.Context, l *layer.Layer, d key.Digest, size int64) (io.ReadCloser, error) {
	if l == nil {
		return nil, fmt.Errorf("%s: %w", d, layer.ErrNoContent)
	}
	if l.Contents == nil {
		return nil, fmt.Errorf("%s, in layer %s: %w", d, l.Identity, layer.ErrNoContent)
	}
	return l.Contents.Open(ctx, d, size)
}

func (s *source) find(ctx context.Context, d key.Digest) (*layer.Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.where == nil {
		where, err := s.index(ctx)
		if err != nil {
			return nil, err
		}
		s.where = where
	}
	return s.where[d], nil
}

// index maps the contents of the layer to the uppermost layer of an input that has them.
func (s *source) index(ctx context.Context) (map[key.Digest]*layer.Layer, error) {
	where := map[key.Digest]*layer.Layer{}
	err := eachFile(s.root, func(d key.Digest) {
		if _, literal := s.c.literals[d]; !literal && s.c.spool.at[d] == (span{}) {
			where[d] = nil
		}
	})
	if err != nil {
		return nil, err
	}
	missing := len(where)
	seen := map[*layer.Layer]bool{}
	for _, st := range s.c.states {
		for ; st != nil && missing > 0; st = st.Parent() {
			l := st.Top()
			if seen[l] {
				continue
			}
			seen[l] = true
			root, err := l.Tree(ctx)
			if err != nil {
				return nil, err
			}
			err = eachFile(root, func(d key.Digest) {
				if have, wanted := where[d]; wanted && have == nil {
					where[d] = l
					missing--
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return where, nil
}

func eachFile(root *tree.Node, fn func(key.Digest)) error {
	entries, err := root.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Node.Kind {
		case tree.File:
			fn(e.Node.Content)
		case tree.Dir:
			if err := eachFile(e.Node, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// openPath opens a file of a state by its path: the layer that has it is the uppermost that shows it there.
func openPath(ctx context.Context, st *layer.State, clean string, n *tree.Node) (io.ReadCloser, error) {
	for ; st != nil; st = st.Parent() {
		root, err := st.Top().Tree(ctx)
		if err != nil {
			return nil, err
		}
		_, have, err := tree.Resolve(root, clean, false)
		if err == nil && have != nil && have.Kind == tree.File && have.Content == n.Content {
			return openIn(ctx, st.Top(), n.Content, n.Size)
		}
	}
	return nil, fmt.Errorf("%s: %w", clean, layer.ErrNoContent)
}

// spool keeps what was unpacked from archives in a file that has no name any more: it is gone with the last reader.
type spool struct {
	dir  string // where to make it
	f    *os.File
	size int64
	at   map[key.Digest]span
}

// span is where a content lies in the spool; length is one more than its size, so that none is the zero span.
type span struct{ off, length int64 }

// add reads r to its end.
func (s *spool) add(r io.Reader) (key.Digest, int64, error) {
	if s.f == nil {
		f, err := os.CreateTemp(s.dir, "larder-add-")
		if err != nil {
			return key.Digest{}, 0, err
		}
		if err := os.Remove(f.Name()); err != nil {
			return key.Digest{}, 0, errors.Join(err, f.Close())
		}
		s.f, s.at = f, map[key.Digest]span{}
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, io.NewOffsetWriter(s.f, s.size)), r)
	if err != nil {
		return key.Digest{}, 0, err
	}
	var d key.Digest
	h.Sum(d[:0])
	if _, twice := s.at[d]; !twice {
		s.at[d] = span{s.size, n + 1}
		s.size += n
	}
	return d, n, nil
}

func (s *spool) open(d key.Digest) io.ReadCloser {
	at, ok := s.at[d]
	if !ok {
		return nil
	}
	return io.NopCloser(io.NewSectionReader(s.f, at.off, at.length-1))
}
