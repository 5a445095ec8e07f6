package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

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
	t.Run("disk read-only", func(t *testing.T) {
		root := t.TempDir()
		s := openStore(t, root, Options{})
		blob, _ := remoteCopyOf(t, made, blobs, layer.ExportOptions{})
		if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(root, unix.MNT_DETACH)
		if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		stays(t, s, made, blob, t.Context(), unix.EROFS)
		nothingLeft(t, s)
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

// TestBadCopy tells errors of a copy from errors of the machine, whichever way they come.
func TestBadCopy(t *testing.T) {
	wrapped := func(err error) error {
		return fmt.Errorf("unpack layer: /f: %w", &os.PathError{Op: "chown", Path: "f", Err: err})
	}
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOENT, unix.ENOTSUP} {
		if badCopy(wrapped(errno)) {
			t.Errorf("%v on this machine makes the copy bad", errno)
		}
		if !badCopy(wrapped(&fetchError{errno})) {
			t.Errorf("%v where the copy comes from does not make it bad", errno)
		}
	}
	for _, err := range []error{layer.ErrBadTar, unix.EINVAL, unix.ERANGE, unix.E2BIG, unix.ENAMETOOLONG, unix.EMLINK} {
		if !badCopy(wrapped(err)) {
			t.Errorf("%v does not make a copy bad", err)
		}
	}
}
