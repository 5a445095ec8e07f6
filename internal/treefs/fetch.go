package treefs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"

	"larder/internal/layer"
)

// fetch opens an inode's contents and makes sure that they are what was hashed.
func (fs *FS) fetch(n *inode) (*content, error) {
	src, err := n.part.contents.Open(fs.ctx, n.node.Content, n.node.Size)
	if err != nil {
		return nil, fs.cause(err)
	}
	c, err := fs.take(n, src)
	return c, fs.cause(err)
}

// cause gives why the context ended in place of what that made of a read.
func (fs *FS) cause(err error) error {
	if err != nil && fs.ctx.Err() != nil {
		return context.Cause(fs.ctx)
	}
	return err
}

// take makes a content of what a Source opened, which it closes or keeps.
func (fs *FS) take(n *inode, src io.ReadCloser) (*content, error) {
	size := n.node.Size
	stored, isStored := src.(*layer.StoredFile)
	edited, isFile := src.(*os.File)
	if isStored {
		edited = stored.File
	}
	if isStored || isFile {
		src = edited
	}
	switch {
	case size <= inMemory:
		defer src.Close()
		b, err := fs.readAll(n, src, isStored)
		if err != nil {
			return nil, err
		}
		return &content{bytes: b}, nil
	case isStored: // in the local root, where nobody edits anything
		return &content{disk: edited, whole: true}, nil
	case isFile:
		w, err := fs.watch(n, edited)
		if err != nil {
			edited.Close()
			return nil, err
		}
		return &content{disk: edited, whole: true, watch: w}, nil
	}
	defer src.Close()
	return fs.contents.spool.add(fs.opt.Temp, n, layer.Verified(ctxReader{fs.ctx, src}, n.node.Content, size, nameOf(n, src)))
}

// readAll reads a small file into memory.
func (fs *FS) readAll(n *inode, r io.Reader, trusted bool) ([]byte, error) {
	b := make([]byte, n.node.Size)
	_, err := io.ReadFull(ctxReader{fs.ctx, r}, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && !trusted && sha256.Sum256(b) != n.node.Content {
		err = &layer.ChangedError{Name: nameOf(n, r)}
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// nameOf names a file for people: by where it is, if it is anywhere.
func nameOf(n *inode, r any) string {
	if f, ok := r.(interface{ Name() string }); ok {
		return f.Name()
	}
	return fmt.Sprintf("the content %s of a layer", n.node.Content)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// spool is one file without a name that holds contents which are in no other.
type spool struct {
	mu   sync.Mutex
	file *os.File
	end  int64
	done bool
}

// add writes one content at the end of the spool. What was written of one that fails stays there unused.
func (s *spool) add(dir string, n *inode, r io.Reader) (*content, error) {
	file, start, err := s.reserve(dir, n.node.Size)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.NewOffsetWriter(file, start), r); err != nil {
		return nil, err
	}
	return &content{disk: file, start: start}, nil
}

func (s *spool) reserve(dir string, size int64) (*os.File, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil, 0, errClosed
	}
	if s.file == nil {
		f, err := os.CreateTemp(dir, "contents-")
		if err != nil {
			return nil, 0, err
		}
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return nil, 0, err
		}
		s.file = f
	}
	start := s.end
	s.end += size
	return s.file, start, nil
}

func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.file != nil {
		s.file.Close()
	}
}
