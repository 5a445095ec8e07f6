package cachemount

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/key"
	"larder/internal/tree"
)

// sparseAbove is the size of files in which holes are worth looking for.
const sparseAbove = 2 * disk.Hole

// piece takes one piece, whose bytes are verified, to all its places. Its errors name the file.
func (r *restorer) piece(ctx context.Context, i int, data []byte) error {
	if int64(len(data)) != r.plan.pieces[i].Size {
		return fmt.Errorf("a piece of %d bytes came with %d: %w", r.plan.pieces[i].Size, len(data), tree.ErrDamaged)
	}
	for _, u := range r.plan.uses[i] {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if u.parts != nil {
			if err := r.part(u, data); err != nil {
				return fmt.Errorf("/%s: %w", u.places[0].path(), err)
			}
			continue
		}
		for _, o := range u.places {
			if err := r.whole(o, data); err != nil {
				return fmt.Errorf("/%s: %w", o.path(), err)
			}
		}
	}
	r.pieces.Add(1)
	return nil
}

// whole makes a file.
func (r *restorer) whole(o *object, data []byte) error {
	mode := o.node.Mode & 0o777 // so that it need not be set again, unless the umask says otherwise
	if len(o.node.Xattrs) > 0 {
		mode = 0o600
	}
	fd, err := openBeneath(r.rootfd, o.path(), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
	if err != nil {
		return err
	}
	if len(data) < sparseAbove {
		err = disk.WriteFull(fd, data, 0)
	} else if err = disk.WriteSparse(fd, data, 0); err == nil {
		err = os.NewSyscallError("truncate", unix.Ftruncate(fd, int64(len(data))))
	}
	if err == nil {
		err = r.stamp(fd, o)
	}
	return errors.Join(err, closed(fd))
}

// stamp gives a file its metadata and notes what stat says of it then.
func (r *restorer) stamp(fd int, o *object) error {
	st, err := setOpen(fd, tree.File, &o.node.Meta, r.atime)
	if err != nil {
		return err
	}
	r.stamps[o.number] = stampOf(&st, o.node.Content, len(o.node.Xattrs) > 0)
	return nil
}

// part writes a part of a large file, and finishes the file with the last one. Files are not held open between: there may be
// thousands.
func (r *restorer) part(u use, data []byte) error {
	p := u.parts
	if err := r.begin(u.content); err != nil {
		return err
	}
	for _, o := range u.places {
		if err := r.opened(o, func(fd int) error { return disk.WriteSparse(fd, data, p.off[u.part]) }); err != nil {
			return err
		}
	}
	complete, err := r.hash(u, data)
	if err != nil || !complete {
		return err
	}
	// Each piece is what it should be; that they are those of this file, in the right order, only its own digest tells.
	var got key.Digest
	if p.sum.Sum(got[:0]); got != u.digest {
		return fmt.Errorf("its pieces do not make up its contents: %w", tree.ErrDamaged)
	}
	for _, o := range u.places {
		if err := r.opened(o, func(fd int) error { return r.stamp(fd, o) }); err != nil {
			return err
		}
	}
	return nil
}

// begin makes the files of a content, once, with their full size.
func (r *restorer) begin(c *content) error {
	c.parts.mu.Lock()
	defer c.parts.mu.Unlock()
	if c.parts.made {
		return nil
	}
	c.parts.made = true // others do not try again after an error: it ends all
	for _, o := range c.places {
		fd, err := openBeneath(r.rootfd, o.path(), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		err = os.NewSyscallError("truncate", unix.Ftruncate(fd, c.size))
		if err = errors.Join(err, closed(fd)); err != nil {
			return err
		}
	}
	return nil
}

// hash adds to a content's digest what can be added now, in the order of the file: the part that was just written, and those that
// came before their turn. One goroutine does it at a time; the others leave their part to it. It reports whether that was all.
func (r *restorer) hash(u use, data []byte) (complete bool, err error) {
	p := u.parts
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there[u.part] = true
	if p.hashing {
		return false, nil
	}
	p.hashing = true
	for p.hashed < len(p.there) && p.there[p.hashed] {
		i := p.hashed
		p.mu.Unlock()
		if i == u.part {
			p.sum.Write(data)
		} else {
			err = r.hashWritten(u.places[0], p.sum, p.off[i], p.off[i+1]-p.off[i])
		}
		p.mu.Lock()
		if err != nil {
			return false, err
		}
		p.hashed++
	}
	p.hashing = false
	return p.hashed == len(p.there), nil
}

// hashWritten hashes a part that has been written.
func (r *restorer) hashWritten(o *object, h hash.Hash, off, n int64) error {
	return r.opened(o, func(fd int) error {
		buf := make([]byte, min(n, 256<<10))
		for n > 0 {
			got, err := unix.Pread(fd, buf[:min(n, int64(len(buf)))], off)
			switch {
			case err == unix.EINTR:
				continue
			case err != nil:
				return os.NewSyscallError("read", err)
			case got == 0:
				return io.ErrUnexpectedEOF
			}
			h.Write(buf[:got])
			off, n = off+int64(got), n-int64(got)
		}
		return nil
	})
}

// opened calls fn with a file that begin made.
func (r *restorer) opened(o *object, fn func(fd int) error) error {
	fd, err := openBeneath(r.rootfd, o.path(), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(fn(fd), closed(fd))
}

// closed closes a file that was written to: some file systems say only then that the disk is full.
func closed(fd int) error {
	if err := unix.Close(fd); err != unix.EINTR { // Linux has closed it even then
		return os.NewSyscallError("close", err)
	}
	return nil
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
