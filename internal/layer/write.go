package layer

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// WriteOptions say how a tree becomes a tar.
type WriteOptions struct {
	// Epoch is SOURCE_DATE_EPOCH: no object shows a later mtime, and directories show just this one: a layer carries
	// directories of lower layers, and what those showed when it was made is no part of its identity. Nil leaves the mtimes.
	Epoch *time.Time
}

// Write writes a layer tree as a layer's tar. The same tree gives the same bytes: entries in the tree's order, parents
// first, no names of owners, PAX records only for what a plain header cannot hold. As other builders do, it cuts mtimes to
// whole seconds (a PAX record for each would make a layer of small files a third larger), leaves out the root's own entry,
// directories that are only implied, and sockets, and dates whiteouts 1970. Of hard links, the first path has the contents. Contents come from src and are
// verified: the error is a *ChangedError naming the path where they are not what the tree says.
func Write(ctx context.Context, w io.Writer, root *tree.Node, src Source, opt WriteOptions) error {
	return writeTar(ctx, w, root, src, opt, func(int64) error { return nil })
}

// writeTar is Write; border is called where an entry begins, with the size of its contents, when all of the one before is
// written to w.
func writeTar(ctx context.Context, w io.Writer, root *tree.Node, src Source, opt WriteOptions, border func(size int64) error) error {
	t := &tarWriter{tw: tar.NewWriter(w), border: border}
	if opt.Epoch != nil {
		t.epoch, t.clamp = opt.Epoch.Unix(), true
	}
	if root.Opaque {
		if err := t.put(opaqueHeader(""), nil); err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
	}
	err := readAhead(ctx, root, src, func(it *item, data io.Reader) error {
		if err := t.entry(it, data); err != nil {
			return fmt.Errorf("/%s: %w", it.path, err)
		}
		return nil
	})
	if err == nil {
		err = t.tw.Close()
	}
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

type tarWriter struct {
	tw     *tar.Writer
	border func(int64) error
	epoch  int64
	clamp  bool
}

func (t *tarWriter) entry(it *item, data io.Reader) error {
	n := it.node
	if n.Kind == tree.Socket {
		return nil
	}
	if reservedName(it.name) {
		return errors.New("a file of this name would be a whiteout in an image's layer; rename it or leave it out")
	}
	if n.Kind == tree.Whiteout {
		return t.put(whiteoutHeader(it.dir, it.name), nil)
	}
	if n.Kind == tree.Dir && n.Implied {
		if n.Opaque {
			return t.put(opaqueHeader(it.path), nil)
		}
		return nil
	}
	hdr := t.header(it)
	if it.first != "" {
		hdr.Typeflag, hdr.Linkname, hdr.Size, hdr.Devmajor, hdr.Devminor = tar.TypeLink, it.first, 0, 0, 0
	}
	if err := t.put(hdr, data); err != nil {
		return err
	}
	if n.Kind == tree.Dir && n.Opaque {
		return t.put(opaqueHeader(it.path), nil)
	}
	return nil
}

func opaqueHeader(dir string) *tar.Header {
	return whiteoutHeader(dir, strings.TrimPrefix(whiteoutOpaque, whiteoutPrefix))
}

// whiteoutHeader is what containerd writes for a whiteout: nobody's empty file of 1970.
func whiteoutHeader(dir, name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: joinRel(dir, whiteoutPrefix+name), ModTime: time.Unix(0, 0)}
}

func (t *tarWriter) put(hdr *tar.Header, data io.Reader) error {
	if err := t.border(hdr.Size); err != nil {
		return err
	}
	if err := t.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if hdr.Size > 0 {
		buf := chunkBuffers.Get().(*[]byte)
		defer chunkBuffers.Put(buf)
		if _, err := io.CopyBuffer(onlyWriter{t.tw}, data, *buf); err != nil {
			return err
		}
	}
	return t.tw.Flush() // the padding belongs to this entry
}

// onlyWriter hides tar.Writer's ReadFrom, which would allocate a buffer per file.
type onlyWriter struct{ io.Writer }

func (t *tarWriter) header(it *item) *tar.Header {
	n := it.node
	hdr := &tar.Header{Name: it.path, Mode: int64(n.Mode), Uid: int(n.UID), Gid: int(n.GID), ModTime: t.mtime(n.MTime)}
	switch n.Kind {
	case tree.File:
		hdr.Typeflag, hdr.Size = tar.TypeReg, n.Size
	case tree.Dir:
		hdr.Typeflag = tar.TypeDir
		if t.clamp {
			hdr.ModTime = time.Unix(t.epoch, 0)
		}
		hdr.Name += "/"
	case tree.Symlink:
		hdr.Typeflag, hdr.Linkname, hdr.Mode = tar.TypeSymlink, n.Link, 0o777
	case tree.Char, tree.Block:
		hdr.Typeflag = tar.TypeBlock
		if n.Kind == tree.Char {
			hdr.Typeflag = tar.TypeChar
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(n.Rdev)), int64(unix.Minor(n.Rdev))
	case tree.Fifo:
		hdr.Typeflag = tar.TypeFifo
	}
	if len(n.Xattrs) > 0 {
		hdr.PAXRecords = make(map[string]string, len(n.Xattrs))
		for _, x := range n.Xattrs {
			if k := paxSchily + x.Name; !strings.Contains(k, "=") {
				hdr.PAXRecords[k] = string(x.Value)
				continue
			}
			// A record's name cannot hold this; libarchive's can. Other readers of the layer leave the attribute out.
			hdr.PAXRecords[paxLibarchive+escapeXattr.Replace(x.Name)] = base64.RawStdEncoding.EncodeToString(x.Value)
		}
	}
	return hdr
}

var escapeXattr = strings.NewReplacer("%", "%25", "=", "%3D")

// mtime is the second in which t lies, or the epoch if that is earlier.
func (t *tarWriter) mtime(ns int64) time.Time {
	s := ns / int64(time.Second)
	if ns%int64(time.Second) < 0 {
		s--
	}
	if t.clamp {
		s = min(s, t.epoch)
	}
	return time.Unix(s, 0)
}
