package remote

import (
	"context"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
)

// maxNames bounds the list of names.
const maxNames = 1_000_000

// Verify compares what a store gives with what was asked for. A blob's last bytes come only after all of it has the right size and
// digest, a document that was asked for by digest has it, lists and documents are bounded. What is wrong wraps ErrDamaged.
func Verify(s Store) Store { return &verifying{s} }

type verifying struct{ Store }

func (v *verifying) Manifest(ctx context.Context, name string) (Document, error) {
	doc, err := v.Store.Manifest(ctx, name)
	if err != nil {
		return Document{}, err
	}
	if len(doc.Bytes) > registry.MaxManifest {
		return Document{}, fmt.Errorf("%s: %s is a document of %d bytes (the limit is %d): %w", v.Name(), name, len(doc.Bytes), registry.MaxManifest, ErrDamaged)
	}
	if d := digest.Digest(name); IsDigest(name) && d.Algorithm().FromBytes(doc.Bytes) != d {
		return Document{}, fmt.Errorf("%s: another document came for %s: %w", v.Name(), name, ErrDamaged)
	}
	return doc, nil
}

func (v *verifying) Names(ctx context.Context, prefix string) ([]string, error) {
	names, err := v.Store.Names(ctx, prefix)
	if err != nil {
		return nil, err
	}
	if len(names) > maxNames {
		return nil, fmt.Errorf("%s: a list of %d names (the limit is %d): %w", v.Name(), len(names), maxNames, ErrDamaged)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) || CheckName(n) != nil })
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (v *verifying) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	rc, err := v.Store.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	return Verified(rc, desc), nil
}

func (v *verifying) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := CheckRange(desc, off, n); err != nil {
		return nil, err
	}
	rc, err := v.Store.OpenRange(ctx, desc, off, n)
	if err != nil {
		return nil, err
	}
	return &verified{ReadCloser: rc, what: fmt.Sprintf("%d bytes from %d of blob %s", n, off, desc.Digest), size: n}, nil
}

// CheckRange tells whether a blob has n bytes from off on.
func CheckRange(desc ocispecs.Descriptor, off, n int64) error {
	if off < 0 || n < 0 || off > desc.Size || n > desc.Size-off {
		return Mark(fmt.Errorf("blob %s has no %d bytes from %d on: its size is %d", desc.Digest, n, off, desc.Size), ErrFinal)
	}
	return nil
}

// Verified reads rc, which is to yield the blob desc. The last bytes are held back until size and digest have been compared, so
// that a copy of what it gives is either the blob or shorter; an error that wraps ErrDamaged comes instead of them. Close closes rc.
func Verified(rc io.ReadCloser, desc ocispecs.Descriptor) io.ReadCloser {
	v := &verified{ReadCloser: rc, what: "blob " + desc.Digest.String(), size: desc.Size}
	if err := desc.Digest.Validate(); err != nil {
		v.err = Mark(fmt.Errorf("digest %.100q of a blob: %w", desc.Digest, err), ErrFinal)
		return v
	}
	v.want, v.hash = desc.Digest, desc.Digest.Algorithm().Hash()
	return v
}

type verified struct {
	io.ReadCloser
	what string
	size int64
	want digest.Digest
	hash hash.Hash // nil where only the size can be compared

	n   int64
	err error
}

// Read gives the next bytes.
func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil || len(p) == 0 {
		return 0, v.err
	}
	if v.n == v.size { // an empty blob
		v.err = v.finish()
		return 0, v.err
	}
	n, err := v.ReadCloser.Read(p[:min(int64(len(p)), v.size-v.n)])
	if v.hash != nil {
		v.hash.Write(p[:n])
	}
	v.n += int64(n)
	switch {
	case v.n == v.size:
		if v.err = v.finish(); v.err != io.EOF {
			n = 0
		}
		return n, v.err
	case err == io.EOF:
		v.err = fmt.Errorf("%s ends after %d of %d bytes: %w", v.what, v.n, v.size, ErrDamaged)
	default:
		v.err = err
	}
	return n, v.err
}

// finish compares all of it; io.EOF says that it is right.
func (v *verified) finish() error {
	var one [1]byte
	for {
		n, err := v.ReadCloser.Read(one[:])
		if n > 0 {
			return fmt.Errorf("%s goes on after its %d bytes: %w", v.what, v.size, ErrDamaged)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if v.hash != nil && digest.NewDigest(v.want.Algorithm(), v.hash) != v.want {
		return fmt.Errorf("the bytes of %s do not match its digest: %w", v.what, ErrDamaged)
	}
	return io.EOF
}
