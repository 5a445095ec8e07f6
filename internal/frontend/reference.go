package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// maxRead bounds what a frontend may read of one file at once, in bytes: the largest thing that it reads whole is
// a context archive, when it looks for the newest time in it.
const maxRead = 1 << 30

const opOpen = "open"

// reference is a definition that a frontend can look into. It is safe for concurrent use.
type reference struct {
	req *Request
	def *pb.Definition

	mu    sync.Mutex
	done  bool
	state *layer.State
}

var _ gwclient.Reference = (*reference)(nil)

// definition gives what a reference stands for; nil, which is scratch, for none.
func definition(ref gwclient.Reference) *pb.Definition {
	if r, ok := ref.(*reference); ok && r != nil {
		return r.def
	}
	return nil
}

// ToState implements gwclient.Reference.
func (r *reference) ToState() (llb.State, error) { return stateOf(r.def) }

// Evaluate implements gwclient.Reference.
func (r *reference) Evaluate(ctx context.Context) error {
	_, err := r.evaluate(ctx)
	return err
}

// evaluate asks the solver once; a failure is tried again by the next call, since it may have been a cancelled one.
func (r *reference) evaluate(ctx context.Context) (*layer.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.state, nil
	}
	st, err := r.req.Solver.Evaluate(ctx, r.def)
	if err != nil {
		return nil, err
	}
	r.state, r.done = st, true
	return st, nil
}

// root gives the tree to look into.
func (r *reference) root(ctx context.Context) (*tree.Node, *layer.State, error) {
	st, err := r.evaluate(ctx)
	if err != nil {
		return nil, nil, err
	}
	root, err := st.Merged(ctx)
	return root, st, err
}

// lookup finds what a path leads to, links followed within the root, and the path without links.
func (r *reference) lookup(ctx context.Context, op, name string) (string, *tree.Node, *layer.State, error) {
	root, st, err := r.root(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	clean, n, err := tree.Resolve(root, name, true)
	if err == nil && n == nil {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	return clean, n, st, err
}

// ReadFile implements gwclient.Reference.
func (r *reference) ReadFile(ctx context.Context, req gwclient.ReadRequest) ([]byte, error) {
	_, n, st, err := r.lookup(ctx, opOpen, req.Filename)
	if err != nil {
		return nil, err
	}
	if n.Kind != tree.File {
		return nil, fmt.Errorf("%s is not a regular file", req.Filename)
	}
	offset, length := int64(0), n.Size
	if req.Range != nil {
		if req.Range.Offset < 0 || req.Range.Length < 0 {
			return nil, fmt.Errorf("read %s: %d bytes at %d: %w", req.Filename, req.Range.Length, req.Range.Offset, fs.ErrInvalid)
		}
		offset = min(int64(req.Range.Offset), n.Size)
		length = min(int64(req.Range.Length), n.Size-offset)
	}
	if length > maxRead {
		return nil, fmt.Errorf("%s has %d bytes, more than a frontend may read", req.Filename, n.Size)
	}
	f, err := r.open(ctx, st, n)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.Filename, err)
	}
	defer f.Close()
	data := make([]byte, length)
	if _, err = io.CopyN(io.Discard, f, offset); err == nil {
		_, err = io.ReadFull(f, data)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.Filename, err)
	}
	if length == n.Size && key.Bytes(data) != n.Content {
		return nil, fmt.Errorf("%s changed while the build ran; start the build again", req.Filename)
	}
	return data, nil
}

// open finds the layer that has a file's contents.
func (r *reference) open(ctx context.Context, st *layer.State, n *tree.Node) (io.ReadCloser, error) {
	layers := st.Layers()
	for i := len(layers) - 1; i >= 0; i-- {
		src := layers[i].Contents
		if src == nil && r.req.Contents != nil {
			var err error
			if src, err = r.req.Contents(ctx, layers[i]); err != nil {
				return nil, err
			}
		}
		if src == nil {
			continue
		}
		f, err := src.Open(ctx, n.Content, n.Size)
		if !errors.Is(err, layer.ErrNoContent) {
			return f, err
		}
	}
	return nil, layer.ErrNoContent
}

// StatFile implements gwclient.Reference.
func (r *reference) StatFile(ctx context.Context, req gwclient.StatRequest) (*fstypes.Stat, error) {
	clean, n, _, err := r.lookup(ctx, "lstat", req.Path)
	if err != nil {
		return nil, err
	}
	return stat(base(clean), n), nil
}

// ReadDir implements gwclient.Reference.
func (r *reference) ReadDir(ctx context.Context, req gwclient.ReadDirRequest) ([]*fstypes.Stat, error) {
	_, n, _, err := r.lookup(ctx, "resolve", req.Path)
	if err != nil {
		return nil, err
	}
	if n.Kind != tree.Dir {
		return nil, &fs.PathError{Op: "stat", Path: req.Path, Err: syscall.ENOTDIR}
	}
	return listing(ctx, n, req.IncludePattern)
}
