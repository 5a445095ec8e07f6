package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"larder/internal/tree"
)

// aheadItems is how many entries the readers may be ahead: at most so many small buffers are in use.
const aheadItems = 64

// item is an entry of a layer on its way into a tar or a directory.
type item struct {
	dir, name, path string
	node            *tree.Node
	first           string // path of the first name, for a File that is another name of it

	ready chan struct{} // closed when data or err is set; nil where nothing is read ahead
	data  *[]byte
	err   error
}

// readAhead calls fn for every entry below root, one after the other in the tree's order, with the contents of Files,
// verified; of hard links the first has contents. Small files are read by some workers meanwhile, so that opening
// them does not add up.
func readAhead(ctx context.Context, root *tree.Node, src Source, fn func(*item, io.Reader) error) error {
	if src == nil {
		src = Union()
	}
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan *item, aheadItems)
	loads := make(chan *item, aheadItems)
	for range runtime.NumCPU() {
		g.Go(func() error {
			for it := range loads {
				it.err = it.load(ctx, src)
				close(it.ready)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(queue)
		defer close(loads)
		w := itemWalk{groups: map[uint64]string{}, fn: func(it *item) error {
			if n := it.node; n.Kind == tree.File && it.first == "" && n.Size > 0 && n.Size <= smallFile {
				it.ready = make(chan struct{})
				if err := send(ctx, loads, it); err != nil {
					return err
				}
			}
			return send(ctx, queue, it)
		}}
		return w.walk("", root)
	})
	g.Go(func() error {
		for it := range queue {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := it.pass(ctx, src, fn); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func send(ctx context.Context, c chan<- *item, it *item) error {
	select {
	case c <- it:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load reads a small file whole.
func (it *item) load(ctx context.Context, src Source) error {
	r, err := src.Open(ctx, it.node.Content, it.node.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	it.data = smallBuffers.Get().(*[]byte)
	data := (*it.data)[:it.node.Size]
	if _, err := io.ReadFull(r, data); err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	} else if err != nil || sha256.Sum256(data) != it.node.Content {
		return &ChangedError{Name: it.path}
	}
	return nil
}

func (it *item) pass(ctx context.Context, src Source, fn func(*item, io.Reader) error) error {
	if it.ready != nil {
		<-it.ready
		if it.err != nil {
			return it.err
		}
		defer smallBuffers.Put(it.data)
		return fn(it, bytes.NewReader((*it.data)[:it.node.Size]))
	}
	if it.node.Kind != tree.File || it.node.Size == 0 || it.first != "" {
		return fn(it, nil)
	}
	r, err := src.Open(ctx, it.node.Content, it.node.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	return fn(it, Verified(&cancelReader{ctx, r}, it.node.Content, it.node.Size, it.path))
}

type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// itemWalk lists a layer tree, parents first.
type itemWalk struct {
	groups map[uint64]string
	fn     func(*item) error
}

func (w *itemWalk) walk(dir string, n *tree.Node) error {
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		it := &item{dir: dir, name: e.Name, path: joinRel(dir, e.Name), node: e.Node}
		if e.Node.Group != 0 {
			if it.first = w.groups[e.Node.Group]; it.first == "" {
				w.groups[e.Node.Group] = it.path
			}
		}
		if err := w.fn(it); err != nil {
			return err
		}
		if e.Node.Kind == tree.Dir {
			if err := w.walk(it.path, e.Node); err != nil {
				return err
			}
		}
	}
	return nil
}
