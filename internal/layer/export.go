package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/key"
)

// ExportOptions say what blob is wanted for a layer. The zero value is gzip at the default level.
type ExportOptions struct {
	Compression Compression
	// Level is the encoder's; nil for the default.
	Level *int
	// Epoch is as in WriteOptions.
	Epoch *time.Time
	// ForceCompression also repacks layers that have a blob packed otherwise.
	ForceCompression bool
}

// Export gives a layer as a blob. One that came from an image is returned as it is, unless ForceCompression wants it packed
// otherwise. Others are written to store, once: the first blob of an identity wins, and later calls, of other
// processes too, find it. The bytes depend on the tree and the options only, not on the machine. The tar starts a new
// gzip member or zstd frame at file borders (see Frames), so files can be read from it by range.
func Export(ctx context.Context, l *Layer, store *content.Store, opt ExportOptions) (*Blob, error) {
	level, err := opt.Compression.level(opt.Level)
	if err != nil {
		return nil, err
	}
	if l.Blob != nil && (!opt.ForceCompression || packedAs(l.Blob.Desc.MediaType, opt.Compression)) {
		return l.Blob, nil
	}
	id, err := BlobKey(l.Identity, l.Blob != nil, opt)
	if err != nil {
		return nil, err
	}
	x := &exporter{store: store, layer: l, id: id, opt: opt, codec: newCodec(opt.Compression, level)}
	blob, err := x.export(ctx)
	if err != nil {
		return nil, fmt.Errorf("export layer %s: %w", l.Identity, err)
	}
	return blob, nil
}

// packedAs compares a media type with a compression; docker's types end in .tar.gzip, OCI's in +gzip.
func packedAs(mediaType string, c Compression) bool {
	switch {
	case strings.HasSuffix(mediaType, "+gzip"), strings.HasSuffix(mediaType, ".gzip"):
		return c == Gzip
	case strings.HasSuffix(mediaType, "+zstd"), strings.HasSuffix(mediaType, ".zstd"):
		return c == Zstd
	}
	return c == Uncompressed
}

type exporter struct {
	store *content.Store
	layer *Layer
	id    key.Digest // what the index has the blob under
	opt   ExportOptions
	codec codec
}

func (x *exporter) export(ctx context.Context) (*Blob, error) {
	unlock, err := exporting.lock(ctx, x.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if b, ok := packed(x.store, x.id); ok {
		return b, nil
	}
	w, err := x.store.Create()
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	f := newFrameWriter(ctx, w, x.codec)
	defer f.abort()
	if x.layer.Blob != nil {
		err = x.repack(ctx, f)
	} else {
		err = x.pack(ctx, f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	info, err := w.Commit("", -1)
	if err != nil {
		return nil, err
	}
	e := indexEntry{
		Descriptor: ocispecs.Descriptor{MediaType: x.opt.Compression.MediaType(), Digest: info.Digest, Size: info.Size},
		DiffID:     f.tarDigest().OCI(),
		Frames:     f.frames,
	}
	if x.layer.Blob != nil && x.layer.Blob.DiffID != e.DiffID {
		return nil, fmt.Errorf("its tar has digest %s, the image says %s: %w", e.DiffID, x.layer.Blob.DiffID, ErrBadTar)
	}
	return writeIndex(x.store, x.id, e)
}

// pack writes the layer's tree.
func (x *exporter) pack(ctx context.Context, f *frameWriter) error {
	root, err := x.layer.Tree(ctx)
	if err != nil {
		return err
	}
	return writeTar(ctx, f, root, x.layer.Contents, WriteOptions{Epoch: x.opt.Epoch}, f.border)
}

// repack writes the tar of the blob that the layer has, unchanged. Its frames end anywhere.
func (x *exporter) repack(ctx context.Context, f *frameWriter) error {
	blob := x.layer.Blob
	src, err := x.store.Stream(ctx, blob.Desc.Digest)
	if errors.Is(err, content.ErrNotFound) && blob.Fetch != nil {
		src, err = blob.Fetch(ctx)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	tar, err := Decompress(&cancelReader{ctx, src})
	if err != nil {
		return err
	}
	defer tar.Close()
	_, err = io.Copy(f, tar)
	return err
}
