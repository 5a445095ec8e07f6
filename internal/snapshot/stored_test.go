package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"larder/internal/content"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

func openBlobs(t testing.TB) *content.Store {
	t.Helper()
	blobs, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blobs.Close() })
	return blobs
}

// remoteCopyOf exports a layer and gives the blob as a remote store would: verified.
func remoteCopyOf(t testing.TB, l *layer.Layer, blobs *content.Store, opt layer.ExportOptions) (*layer.Blob, *atomic.Int64) {
	t.Helper()
	blob, err := layer.Export(t.Context(), l, blobs, opt)
	if err != nil {
		t.Fatal(err)
	}
	fetched := new(atomic.Int64)
	return &layer.Blob{Desc: blob.Desc, DiffID: blob.DiffID, Fetch: func(ctx context.Context) (io.ReadCloser, error) {
		fetched.Add(1)
		return blobs.Stream(ctx, blob.Desc.Digest)
	}}, fetched
}

// known is a tree as a catalog gives it: decoded from bytes.
func known(t testing.TB, l *layer.Layer) func(context.Context) (*tree.Node, error) {
	t.Helper()
	root, err := l.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tree.Encode(&b, root); err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (*tree.Node, error) {
		return tree.Decode(bytes.NewReader(b.Bytes()), int64(b.Len()))
	}
}

func nothingLeft(t testing.TB, s *Store) {
	t.Helper()
	if list, err := os.ReadDir(s.proc); err != nil || len(list) > 0 {
		t.Errorf("left: %v %v", list, err)
	}
	if list, err := os.ReadDir(filepath.Join(s.base, "locks")); err != nil || len(list) > 0 {
		t.Errorf("locks left: %v %v", list, err)
	}
}

// TestStoredRoundTrip: whatever is exported comes back under the identity that it had, however it was packed; to the
// nanosecond where the tree is known, to the second where it is not.
func TestStoredRoundTrip(t *testing.T) {
	s, blobs := openStore(t, t.TempDir(), Options{}), openBlobs(t)
	epoch := time.Unix(1e9, 0)
	rapid.Check(t, func(rt *rapid.T) {
		opt := layer.ExportOptions{Compression: rapid.SampledFrom([]layer.Compression{layer.Gzip, layer.Zstd, layer.Uncompressed}).Draw(rt, "compression")}
		withTree, clamped := rapid.Bool().Draw(rt, "tree is known"), rapid.Bool().Draw(rt, "epoch")
		if clamped {
			opt.Epoch = &epoch
		}
		made := drawLayer(rt, !withTree)
		blob, _ := remoteCopyOf(t, made, blobs, opt)
		var load func(context.Context) (*tree.Node, error)
		if withTree {
			load = known(t, made)
		}
		l := s.Stored(made.Identity, made.Pinned, blob, load)
		dir, err := s.Dir(t.Context(), l)
		if err != nil {
			rt.Fatal(err)
		}
		disk, err := layer.FromUpper(t.Context(), dir)
		if err != nil {
			rt.Fatal(err)
		}
		root, err := l.Tree(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		before, err := made.Tree(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		if id, err := root.Identity(); err != nil || id != made.Identity {
			rt.Fatalf("identity %s, %v; it was %s", id, err, made.Identity)
		}
		got, want := dump(t, disk, false), dump(t, before, !withTree)
		if withTree || !clamped {
			if got != want {
				rt.Fatalf("on the disk\n%s\nmade\n%s", got, want)
			}
		}
		if tree := dump(t, root, false); tree != got {
			rt.Fatalf("the tree says\n%s\nthe disk has\n%s", tree, got)
		}
		if stored, ok := s.Layer(t.Context(), made.Identity); !ok || stored.Pinned != made.Pinned {
			rt.Fatal("it is not stored, or not as what it is")
		}
		if err := tree.Walk(before, func(_ string, n *tree.Node) error {
			if n.Kind != tree.File {
				return nil
			}
			r, err := l.Contents.Open(t.Context(), n.Content, n.Size)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, layer.Verified(r, n.Content, n.Size, "file"))
			return err
		}); err != nil {
			rt.Fatal(err)
		}
		s.forget(t, made.Identity)
	})
}

// forget lets go of a layer and removes it, as the collector of a later process would.
func (s *Store) forget(t testing.TB, id key.Digest) {
	t.Helper()
	s.mu.Lock()
	e := s.entries[id]
	delete(s.entries, id)
	s.mu.Unlock()
	if e != nil {
		e.close()
	}
	if err := s.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// sample is a layer with one small file.
func sample(t testing.TB, body string, mtime int64) *layer.Layer {
	t.Helper()
	file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o640, UID: 5, MTime: mtime}, Size: int64(len(body)), Content: key.Bytes([]byte(body))}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: mtime}, false, []tree.Entry{{Name: "f", Node: file}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return layer.New(id, true, root, layer.Literal(map[key.Digest][]byte{file.Content: []byte(body)}))
}

// TestStoredTree: a tree that is known costs no fetching, one that is not or is another's does.
func TestStoredTree(t *testing.T) {
	blobs := openBlobs(t)
	made, other := sample(t, "made", 7), sample(t, "other", 7)
	for _, c := range []struct {
		name    string
		load    func(context.Context) (*tree.Node, error)
		fetched int64
	}{
		{"known", known(t, made), 0},
		{"nobody knows", nil, 1},
		{"nothing", func(context.Context) (*tree.Node, error) { return nil, nil }, 1},
		{"error", func(context.Context) (*tree.Node, error) { return nil, errors.New("gone too") }, 1},
		{"another's", known(t, other), 1},
		{"damaged", func(context.Context) (*tree.Node, error) {
			root, err := made.Tree(context.Background())
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			if err := tree.Encode(&b, root); err != nil {
				return nil, err
			}
			b.Bytes()[20] ^= 1 // in the listing, whose digest the root has
			return tree.Decode(bytes.NewReader(b.Bytes()), int64(b.Len()))
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			blob, fetched := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
			l := s.Stored(made.Identity, true, blob, c.load)
			root, err := l.Tree(t.Context())
			if err != nil || fetched.Load() != c.fetched {
				t.Fatalf("fetched %d times, %v", fetched.Load(), err)
			}
			if id, err := root.Identity(); err != nil || id != made.Identity {
				t.Errorf("the tree of %s, %v", id, err)
			}
			if s.Has(made.Identity) != (c.fetched > 0) {
				t.Error("unpacked though it need not be, or the other way round")
			}
			dir, err := s.Dir(t.Context(), l)
			if err != nil || fetched.Load() != 1 || read(t, dir+"/f") != "made" {
				t.Errorf("fetched %d times, %v", fetched.Load(), err)
			}
			// What is here is not asked for elsewhere.
			again := s.Stored(made.Identity, true, nil, func(context.Context) (*tree.Node, error) { panic("asked") })
			if _, err := again.Tree(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := s.Dir(t.Context(), again); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStoredOnce fetches once for many who ask at once, and tries again when the one who fetched was called off.
func TestStoredOnce(t *testing.T) {
	s, blobs := openStore(t, t.TempDir(), Options{}), openBlobs(t)
	made := sample(t, "made", 7)
	blob, fetched := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			l := s.Stored(made.Identity, true, blob, nil)
			var err error
			if i%2 == 0 {
				_, err = l.Tree(t.Context())
			} else {
				_, err = s.Dir(t.Context(), l)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	s.forget(t, made.Identity)
	fetched.Store(0)
	fetch, entered := blob.Fetch, make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	blob.Fetch = func(ctx context.Context) (io.ReadCloser, error) {
		if fetched.Add(1) > 1 {
			return fetch(ctx)
		}
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	wg.Go(func() {
		if _, err := s.Dir(ctx, s.Stored(made.Identity, true, blob, nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	<-entered
	wg.Go(func() {
		if _, err := s.Dir(t.Context(), s.Stored(made.Identity, true, blob, nil)); err != nil {
			t.Error(err)
		}
	})
	cancel()
	wg.Wait()
}

// detour is the contents of a layer that are those of its remote copy, or where that is gone, made again.
type detour struct {
	copied layer.Source
	again  layer.Source
	used   *atomic.Int64
}

func (d detour) Open(ctx context.Context, id key.Digest, size int64) (io.ReadCloser, error) {
	r, err := d.copied.Open(ctx, id, size)
	var gone *layer.GoneError
	if errors.As(err, &gone) {
		d.used.Add(1)
		return d.again.Open(ctx, id, size)
	}
	return r, err
}

// TestStoredBehind: a layer whose contents lead, by some way, to a copy of itself is unpacked from the copy, and made of its
// contents where the copy is gone, which is asked for once. Nobody waits for himself.
func TestStoredBehind(t *testing.T) {
	blobs, made := openBlobs(t), sample(t, "made", 7)
	lost := errors.New("it was collected")
	for _, gone := range []bool{false, true} {
		s := openStore(t, t.TempDir(), Options{})
		blob, fetched := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		if gone {
			blob.Fetch = func(context.Context) (io.ReadCloser, error) {
				fetched.Add(1)
				return nil, &layer.GoneError{Identity: made.Identity, Err: lost} // as a cache may say
			}
		}
		used := new(atomic.Int64)
		copied := s.Stored(made.Identity, false, blob, nil)
		contents := detour{copied.Contents, made.Contents, used}
		l := layer.New(made.Identity, false, must(made.Tree(t.Context())), contents)
		dir, err := s.Dir(t.Context(), l)
		if err != nil || read(t, dir+"/f") != "made" {
			t.Fatal(err)
		}
		agrees(t, s, made.Identity)
		if n := used.Load(); n > 0 != gone || fetched.Load() != 1 {
			t.Errorf("gone: %v, but made again %d times, fetched %d times", gone, n, fetched.Load())
		}
		if !gone {
			continue
		}
		s.forget(t, made.Identity)
		_, err = s.Dir(t.Context(), copied)
		if err == nil || err.Error() != (&layer.GoneError{Identity: made.Identity, Err: lost}).Error() || fetched.Load() != 1 {
			t.Errorf("fetched %d times: %v", fetched.Load(), err)
		}
		// What is known of another copy serves all.
		good, _ := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		s.Stored(made.Identity, false, good, nil)
		if _, err := s.Dir(t.Context(), s.Stored(made.Identity, false, nil, nil)); err != nil {
			t.Error(err)
		}
	}
}

// TestBlobNowhere: a base image's layer whose blob cannot be had is an error, at once.
func TestBlobNowhere(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	b, _ := blob(t, "f=f")
	b.Fetch = nil
	l := must(s.FromBlob(b, nil))
	if _, err := s.Dir(t.Context(), l); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Tree(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}

// TestFromBlobTree: the tree of a base image's layer, where it is known, spares unpacking it; its contents do not.
func TestFromBlobTree(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	b, fetched := blob(t, "dir/", "dir/f=hello")
	twin := image(t, openStore(t, t.TempDir(), Options{}), "dir/", "dir/f=hello")
	asked := 0
	load := func(ctx context.Context) (*tree.Node, error) {
		if asked++; asked == 1 {
			return nil, errors.New("no catalog")
		}
		return twin.Tree(ctx)
	}
	l := must(s.FromBlob(b, load))
	root, err := l.Tree(t.Context())
	if err != nil || fetched.Load() != 1 || asked != 1 {
		t.Fatalf("not known: fetched %d times, asked %d times, %v", fetched.Load(), asked, err)
	}
	if _, err := must(s.FromBlob(b, load)).Tree(t.Context()); err != nil || asked != 1 {
		t.Errorf("stored: asked %d times, %v", asked, err)
	}
	s.forget(t, l.Identity)
	l = must(s.FromBlob(b, load))
	again, err := l.Tree(t.Context())
	if err != nil || fetched.Load() != 1 || asked != 2 || s.Has(l.Identity) {
		t.Fatalf("known: fetched %d times, asked %d times, %v", fetched.Load(), asked, err)
	}
	if a, b := dump(t, root, false), dump(t, again, false); a != b {
		t.Errorf("unpacked\n%s\nknown\n%s", a, b)
	}
	r, err := l.Contents.Open(t.Context(), key.Bytes([]byte("hello")), 5)
	if err != nil || fetched.Load() != 2 || !s.Has(l.Identity) {
		t.Fatalf("contents: fetched %d times, %v", fetched.Load(), err)
	}
	r.Close()
}
