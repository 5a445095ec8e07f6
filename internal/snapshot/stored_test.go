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
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
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

// TestStoredGone: whatever is wrong with the copy is a GoneError, leaves nothing, and does not stand in the way of the next.
func TestStoredGone(t *testing.T) {
	blobs := openBlobs(t)
	made, other := sample(t, "made", 7), sample(t, "other", 7)
	good, _ := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
	wrong, _ := remoteCopyOf(t, other, blobs, layer.ExportOptions{})
	plain, _ := blob(t, "f=made")
	data, err := blobs.ReadAll(t.Context(), good.Desc.Digest, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*layer.Blob)) *layer.Blob {
		b := *good
		change(&b)
		return &b
	}
	serve := func(r func() io.Reader) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r()), nil }
	}
	lost := errors.New("it was collected")
	for name, c := range map[string]struct {
		blob *layer.Blob
		is   error
	}{
		"no blob":   {nil, nil},
		"nowhere":   {with(func(b *layer.Blob) { b.Fetch = nil }), nil},
		"not found": {with(func(b *layer.Blob) { b.Fetch = func(context.Context) (io.ReadCloser, error) { return nil, lost } }), lost},
		"fetch times out": {with(func(b *layer.Blob) {
			b.Fetch = func(context.Context) (io.ReadCloser, error) { return nil, context.DeadlineExceeded }
		}), context.DeadlineExceeded},
		"breaks off": {with(func(b *layer.Blob) {
			b.Fetch = serve(func() io.Reader { return io.MultiReader(bytes.NewReader(data[:40]), iotest.ErrReader(lost)) })
		}), lost},
		"store is full": {with(func(b *layer.Blob) { b.Fetch = serve(func() io.Reader { return iotest.ErrReader(unix.ENOSPC) }) }), unix.ENOSPC},
		"cut":           {with(func(b *layer.Blob) { b.Fetch = serve(func() io.Reader { return bytes.NewReader(data[:len(data)/2]) }) }), layer.ErrBadTar},
		"empty":         {with(func(b *layer.Blob) { b.Fetch = serve(func() io.Reader { return bytes.NewReader(nil) }) }), layer.ErrBadTar},
		"not a tar": {with(func(b *layer.Blob) {
			b.Fetch = serve(func() io.Reader { return bytes.NewReader(bytes.Repeat([]byte("x"), 4096)) })
		}), layer.ErrBadTar},
		"another diff ID": {with(func(b *layer.Blob) { b.DiffID = wrong.DiffID }), layer.ErrBadTar},
		"another layer":   {wrong, nil},
		"other metadata":  {plain, nil},
		"wrong at its end": {with(func(b *layer.Blob) {
			b.Fetch = serve(func() io.Reader {
				return layer.Verified(bytes.NewReader(data), key.Bytes(nil), int64(len(data)), "blob")
			})
		}), nil},
		"impossible attribute": {impossible(t), unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			l := s.Stored(made.Identity, true, c.blob, nil)
			check := func(err error) {
				t.Helper()
				var gone *layer.GoneError
				if !errors.As(err, &gone) || gone.Identity != made.Identity || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("got %v", err)
				}
				if s.Has(made.Identity) {
					t.Error("it is stored")
				}
				nothingLeft(t, s)
			}
			_, err := s.Dir(t.Context(), l)
			check(err)
			_, err = l.Tree(t.Context())
			check(err)
			_, err = l.Contents.Open(t.Context(), key.Bytes([]byte("made")), 4)
			check(err)
			_, err = s.Mount(t.Context(), layer.Stack(l), MountOptions{})
			check(err)
			// A layer that was made of it cannot be had either, for the same reason.
			_, err = s.Dir(t.Context(), layer.New(key.Bytes([]byte("part")), false, must(known(t, made)(t.Context())), l.Contents))
			check(err)
			if dir, err := s.Dir(t.Context(), s.Stored(made.Identity, true, good, nil)); err != nil || read(t, dir+"/f") != "made" {
				t.Error(err)
			}
			nothingLeft(t, s)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// impossible is a copy whose file has a capability that the kernel refuses.
func impossible(t testing.TB) *layer.Blob {
	t.Helper()
	f := &tree.Node{Kind: tree.File, Meta: tree.Meta{Xattrs: []tree.Xattr{{Name: "security.capability", Value: []byte("all")}}}, Content: key.Bytes(nil)}
	root := must(tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "f", Node: f}}))
	var b bytes.Buffer
	if err := layer.Write(t.Context(), &b, root, nil, layer.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	blob, _ := rawBlob(b.Bytes())
	return blob
}

// TestStoredLocalFailure: what is wrong with this machine, or with nothing, does not make a layer gone.
func TestStoredLocalFailure(t *testing.T) {
	needRoot(t)
	blobs := openBlobs(t)
	made := sample(t, "made", 7)
	noise := make([]byte, 6<<20)
	for i, d := 0, key.Bytes(nil); i < len(noise); i += copy(noise[i:], d[:]) {
		d = key.Bytes(d[:])
	}
	big := sample(t, string(noise), 7)
	stays := func(t *testing.T, s *Store, made *layer.Layer, blob *layer.Blob, ctx context.Context, want error) {
		t.Helper()
		l := s.Stored(made.Identity, true, blob, nil)
		var gone *layer.GoneError
		if _, err := s.Dir(ctx, l); err == nil || errors.As(err, &gone) || want != nil && !errors.Is(err, want) {
			t.Errorf("directory: %v", err)
		}
		if _, err := l.Tree(ctx); err == nil || errors.As(err, &gone) || want != nil && !errors.Is(err, want) {
			t.Errorf("tree: %v", err)
		}
	}
	t.Run("disk full", func(t *testing.T) {
		root := t.TempDir()
		if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=4m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
		s := openStore(t, root, Options{})
		blob, _ := remoteCopyOf(t, big, blobs, layer.ExportOptions{})
		stays(t, s, big, blob, t.Context(), unix.ENOSPC)
		nothingLeft(t, s)
	})
	t.Run("no permission", func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		blob, _ := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		immutable(t, s.proc)
		stays(t, s, made, blob, t.Context(), unix.EPERM)
	})
	t.Run("closed", func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		blob, fetched := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		stays(t, s, made, blob, t.Context(), nil)
		if fetched.Load() != 0 {
			t.Error("fetched for a closed store")
		}
	})
	t.Run("cancelled before", func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		blob, _ := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		stays(t, s, made, blob, ctx, context.Canceled)
		nothingLeft(t, s)
	})
	t.Run("cancelled in the middle", func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("another step failed")
		blob, _ := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		blob.Fetch = func(context.Context) (io.ReadCloser, error) {
			cancel(why)
			return nil, errors.New("request cancelled")
		}
		stays(t, s, made, blob, ctx, why)
		nothingLeft(t, s)
	})
}

// immutable forbids even root to make anything in a directory until the test ends.
func immutable(t *testing.T, dir string) {
	t.Helper()
	const flag = 0x10 // FS_IMMUTABLE_FL
	set := func(on bool) error {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close()
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		if flags &^= flag; on {
			flags |= flag
		}
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags))
	}
	if err := set(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(false); err != nil {
			t.Error(err)
		}
	})
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
