package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/content"
	"larder/internal/key"
)

// indexEntry is a file of <blobs>/index: which blob stands for a layer under given options.
type indexEntry struct {
	Descriptor ocispecs.Descriptor `json:"descriptor"`
	DiffID     digest.Digest       `json:"diffID"`
	Frames     []Frame             `json:"frames,omitempty"`
}

func (e indexEntry) blob() *Blob { return &Blob{Desc: e.Descriptor, DiffID: e.DiffID} }

// BlobKey names what decides on the bytes of a layer's blob: the layer, how it is packed, and the epoch; fromImage says that
// the layer came with an image, whose tar the epoch leaves alone. The error is that of a level which the compression does not
// have.
func BlobKey(identity key.Digest, fromImage bool, opt ExportOptions) (key.Digest, error) {
	level, err := opt.Compression.level(opt.Level)
	if err != nil {
		return key.Digest{}, err
	}
	k := key.New("larder.blob.v1").Digest(identity).Str(opt.Compression.String()).Int(int64(level))
	clamped := opt.Epoch != nil && !fromImage
	if k.Bool(clamped); clamped {
		k.Int(opt.Epoch.Unix())
	}
	return k.Sum(), nil
}

// packed gives the blob that Export made before under a BlobKey, if store still has its bytes.
func packed(store *content.Store, k key.Digest) (*Blob, bool) {
	e, ok := readIndex(store, k)
	if !ok {
		return nil, false
	}
	return e.blob(), true
}

func indexPath(store *content.Store, id key.Digest) string {
	h := id.Hex()
	return filepath.Join(store.Dir(), "index", h[:2], h[2:]+".json")
}

// readIndex finds a blob that is still in the store. A damaged entry is none.
func readIndex(store *content.Store, id key.Digest) (indexEntry, bool) {
	var e indexEntry
	b, err := os.ReadFile(indexPath(store, id))
	if err != nil || json.Unmarshal(b, &e) != nil {
		return e, false
	}
	if _, err := key.FromOCI(e.DiffID); err != nil || e.Descriptor.MediaType == "" {
		return e, false
	}
	info, err := store.Stat(e.Descriptor.Digest)
	return e, err == nil && info.Size == e.Descriptor.Size
}

// writeIndex enters a blob and gives the one that counts: another process may have been first.
func writeIndex(store *content.Store, id key.Digest, e indexEntry) (*Blob, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	path := indexPath(store, id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("index blob: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return nil, fmt.Errorf("index blob: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		if first, ok := packed(store, id); ok {
			return first, nil
		}
		err = os.Rename(tmp.Name(), path) // what it named is gone or it is damaged
	}
	if err != nil {
		return nil, fmt.Errorf("index blob: %w", err)
	}
	return e.blob(), nil
}

// PruneIndex forgets the blobs that the store has no longer, and what interrupted writers left: for after a collection.
func PruneIndex(store *content.Store) error {
	root := filepath.Join(store.Dir(), "index")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var e indexEntry
		b, err := os.ReadFile(path)
		switch {
		case err != nil:
			return err
		case json.Unmarshal(b, &e) == nil && store.Has(e.Descriptor.Digest):
			return nil
		}
		// A writer links its file within moments of making it.
		if st, err := d.Info(); err != nil || time.Since(st.ModTime()) < time.Minute {
			return nil
		}
		return os.Remove(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another process prunes too, or there is no index
	}
	return err
}

// Frames tells where a blob that Export gave for l under these options can be read from, in order; none for a blob that
// others made.
func Frames(l *Layer, store *content.Store, opt ExportOptions) ([]Frame, error) {
	id, err := BlobKey(l.Identity, l.Blob != nil, opt)
	if err != nil {
		return nil, err
	}
	e, _ := readIndex(store, id)
	return e.Frames, nil
}

// keyLocks lets one goroutine at a time make the blob of a key; the others then find it.
type keyLocks struct {
	mu   sync.Mutex
	held map[key.Digest]chan struct{}
}

var exporting = keyLocks{held: map[key.Digest]chan struct{}{}}

func (k *keyLocks) lock(ctx context.Context, id key.Digest) (unlock func(), err error) {
	for {
		k.mu.Lock()
		busy, ok := k.held[id]
		if !ok {
			mine := make(chan struct{})
			k.held[id] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, id)
				k.mu.Unlock()
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
