package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"larder/internal/tree"
)

// ErrBadTar is wrapped by errors about a layer's tar that no disk or retry can mend.
var ErrBadTar = errors.New("not a valid layer")

// Unpack writes a layer's tar as an overlay lower directory into dir, which exists, is empty and is nobody else's, and
// gives the layer's tree; contents are hashed on the way. Of a name that comes twice the last one counts (directories are
// merged); a parent that does not come at all is root's with mode 755; the tar's entry for the root itself is
// ignored, as other builders do. A path that goes through a link of the same layer lands where the link leads inside dir:
// what is on disk below dir is only ever what this call made, and it follows no link there. After an error dir holds a part.
func Unpack(ctx context.Context, r io.Reader, dir string) (*tree.Node, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	defer root.Close()
	u := &unpacker{
		root: newUdir(tree.Meta{Mode: 0o755}),
		disk: newDiskWriter(ctx, int(root.Fd()), dir, true),
	}
	err = u.entries(ctx, r)
	if werr := u.disk.close(); werr != nil {
		err = werr // the reason for which entries stopped
	}
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	node, err := u.finish(ctx, u.root, "")
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	return node, nil
}

type unpacker struct {
	root  *udir
	disk  *diskWriter
	count int
	bytes int64
}

// maxTarBytes bounds what the files of one layer may claim to hold together: sparse files need no bytes in the tar.
const maxTarBytes = 1 << 42

func (u *unpacker) entries(ctx context.Context, r io.Reader) error {
	if _, ok := r.(*pump); !ok {
		r = bufio.NewReaderSize(r, 64<<10) // headers are read 512 bytes at a time
	}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return tarError(err)
		}
		if u.count++; u.count > maxEntries {
			return fmt.Errorf("more than %d entries: %w", maxEntries, ErrBadTar)
		}
		if u.bytes += hdr.Size; u.bytes > maxTarBytes {
			return fmt.Errorf("files of more than %d bytes: %w", int64(maxTarBytes), ErrBadTar)
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("%.300q: %w", hdr.Name, err)
		}
	}
}

// tarError marks what the tar reader dislikes; errors of the stream below stay as they are.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrBadTar, err)
	}
	return err
}

func (u *unpacker) entry(hdr *tar.Header, tr *tar.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name)
	if err != nil || name == "" {
		return err
	}
	dirName, base := path.Split(name)
	if base != whiteoutOpaque && strings.Contains("/"+name, "/"+whiteoutMeta) {
		return nil // what AUFS kept for itself
	}
	parent, rel, err := u.parent(dirName)
	if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		parent.opaque = true
		return nil
	}
	gone, isWhiteout := strings.CutPrefix(base, whiteoutPrefix)
	if isWhiteout {
		base = gone
	}
	rel = joinRel(rel, base)
	if len(rel) > maxPath {
		return fmt.Errorf("path of more than %d bytes: %w", maxPath, ErrBadTar)
	}
	if isWhiteout {
		return u.whiteout(parent, base)
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		meta, err := headerMeta(hdr, tree.Dir)
		if err != nil {
			return err
		}
		return u.putDir(parent, base, rel, meta)
	case tar.TypeLink:
		return u.putLink(parent, base, rel, hdr)
	}
	n, err := headerNode(hdr)
	if err != nil {
		return err
	}
	if n.Kind == tree.Whiteout {
		return u.whiteout(parent, base)
	}
	hides, err := u.clear(parent, base, rel)
	if err != nil {
		return err
	}
	if n.Kind == tree.File {
		err = tarError(u.disk.file(rel, n, tr))
	} else {
		err = u.disk.special(rel, n)
	}
	parent.entries[base] = uentry{node: n, seq: u.disk.seq, hides: hides}
	return err
}

// headerNode is the node of an entry that is neither a directory nor a hard link. Its Content comes later.
func headerNode(hdr *tar.Header) (*tree.Node, error) {
	n := &tree.Node{}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.Kind, n.Size = tree.File, hdr.Size
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) > maxPath || strings.ContainsRune(hdr.Linkname, 0) {
			return nil, fmt.Errorf("link to %.80q: %w", hdr.Linkname, ErrBadTar)
		}
		n.Kind, n.Link = tree.Symlink, hdr.Linkname
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
			return nil, fmt.Errorf("device number %d:%d: %w", hdr.Devmajor, hdr.Devminor, ErrBadTar)
		}
		n.Kind, n.Rdev = tree.Block, unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if hdr.Typeflag == tar.TypeChar {
			n.Kind = tree.Char
			if n.Rdev == 0 { // on disk that is overlay's whiteout
				return &tree.Node{Kind: tree.Whiteout}, nil
			}
		}
	case tar.TypeFifo:
		n.Kind = tree.Fifo
	default:
		return nil, fmt.Errorf("entry of type %q: %w", hdr.Typeflag, ErrBadTar)
	}
	var err error
	n.Meta, err = headerMeta(hdr, n.Kind)
	return n, err
}

// cleanName makes a relative path without . and .. of a name in a tar; "" is the root. A whiteout's may be longer than what
// a file can have, by its prefix.
func cleanName(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("name with a NUL: %w", ErrBadTar)
	}
	name = strings.TrimSuffix(name, "/") // of a directory; counts for nothing
	whiteout := 0
	if _, base := path.Split(name); reservedName(base) {
		whiteout = len(whiteoutPrefix)
	}
	if len(name)-whiteout > maxPath {
		return "", fmt.Errorf("path of more than %d bytes: %w", maxPath, ErrBadTar)
	}
	clean := path.Clean("/" + name)[1:]
	for rest := clean; rest != ""; {
		var elem string
		elem, rest, _ = strings.Cut(rest, "/")
		if rest == "" {
			elem = strings.TrimPrefix(elem, whiteoutPrefix)
		}
		if len(elem) > maxName {
			return "", fmt.Errorf("name of more than %d bytes: %w", maxName, ErrBadTar)
		}
	}
	return clean, nil
}
