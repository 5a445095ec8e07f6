package snapshot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

func TestUnpackOnce(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	b, fetched := blob(t, "dir/", "dir/f=hello")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := s.FromBlob(b, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := l.Tree(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	l, ok := s.Layer(t.Context(), key.Digest(mustKey(t, b)))
	if !ok || !l.Pinned {
		t.Fatal("the layer is not stored")
	}
	root, err := l.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := tree.Resolve(root, "/dir/f", true)
	if err != nil || n == nil {
		t.Fatal(n, err)
	}
	r, err := l.Contents.Open(t.Context(), n.Content, n.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if body, _ := io.ReadAll(r); string(body) != "hello" {
		t.Errorf("got %q", body)
	}
}

func mustKey(t testing.TB, b *layer.Blob) key.Digest {
	t.Helper()
	d, err := key.FromOCI(b.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestUnpackAgain makes layers that failed before, and those whose first maker was cancelled.
func TestUnpackAgain(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	b, _ := blob(t, "f=f")
	good, broken := b.Fetch, errors.New("the network is down")
	b.Fetch = func(context.Context) (io.ReadCloser, error) { return nil, broken }
	l, err := s.FromBlob(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Dir(t.Context(), l); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	b.Fetch = func(ctx context.Context) (io.ReadCloser, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Dir(ctx, l); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	<-entered
	b.Fetch = good
	wg.Go(func() {
		if _, err := s.Dir(t.Context(), l); err != nil {
			t.Error(err)
		}
	})
	cancel()
	wg.Wait()
	list, err := os.ReadDir(s.proc)
	if err != nil || len(list) > 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

func TestWrongDiffID(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	b, _ := blob(t, "f=f")
	other, _ := blob(t, "f=g")
	b.DiffID = other.DiffID
	l, err := s.FromBlob(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Dir(t.Context(), l); err == nil {
		t.Error("bytes were stored under another's digest")
	}
	if s.Has(l.Identity) {
		t.Error("it is stored")
	}
}

func TestGone(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	l := layer.New(key.Bytes([]byte("x")), true, tree.Empty(), nil)
	if _, err := s.Dir(t.Context(), l); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}

// TestTreeLayer writes a layer that is only a tree and contents into a directory.
func TestTreeLayer(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	body := []byte("from the context")
	file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o640, UID: 5}, Size: int64(len(body)), Content: key.Bytes(body)}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "f", Node: file}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	l := layer.New(id, false, root, layer.Literal(map[key.Digest][]byte{key.Bytes(body): body}))
	m := mount(t, s, layer.Stack(l), MountOptions{})
	if got := read(t, m.Root+"/f"); got != string(body) {
		t.Errorf("got %q", got)
	}
}

// TestFirstWins makes the same layer twice.
func TestFirstWins(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	st := layer.Stack(image(t, s, "d/", "d/f=f"))
	var dirs []string
	for range 2 {
		m := mount(t, s, st, MountOptions{})
		write(t, m.Root+"/d/new", "new")
		l, err := m.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dir, err := s.Dir(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	if dirs[0] != dirs[1] {
		t.Errorf("stored twice: %s", dirs)
	}
}

// TestPowerFailure: what was written under another boot counts only if it was synced.
func TestPowerFailure(t *testing.T) {
	root := t.TempDir()
	b, fetched := blob(t, "f=f")
	reboot := func(boot string, sync bool) {
		s := openStore(t, root, Options{})
		s.boot = boot
		l, err := s.FromBlob(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Dir(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		boot    string
		sync    bool
		fetched int64
	}{{"a", false, 1}, {"a", false, 1}, {"b", false, 2}, {"b", true, 2}, {"c", false, 2}, {"", false, 2}} {
		reboot(c.boot, c.sync)
		if n := fetched.Load(); n != c.fetched {
			t.Errorf("boot %s: fetched %d times, want %d", c.boot, n, c.fetched)
		}
	}
	s := openStore(t, root, Options{})
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, _ := filepath.Glob(root + "/layers/*/fs"); len(list) != 1 {
		t.Errorf("layers: %s", list)
	}
}

// TestDamage: a damaged layer is a miss, and is made again.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"tree cut":     func(t *testing.T, dir string) { os.Truncate(dir+"/tree", 20) },
		"tree missing": func(t *testing.T, dir string) { os.Remove(dir + "/tree") },
		"tree flipped": func(t *testing.T, dir string) {
			write(t, dir+"/tree", strings.Replace(read(t, dir+"/tree"), "f", "g", 1))
		},
		"meta empty":   func(t *testing.T, dir string) { os.Truncate(dir+"/meta", 0) },
		"meta missing": func(t *testing.T, dir string) { os.Remove(dir + "/meta") },
		"meta other":   func(t *testing.T, dir string) { write(t, dir+"/meta", `{"identity":"sha256:00"}`) },
		"all missing":  func(t *testing.T, dir string) { os.RemoveAll(dir) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			b, fetched := blob(t, "f=f")
			for i := range 3 {
				s := openStore(t, root, Options{})
				l, err := s.FromBlob(b, nil)
				if err != nil {
					t.Fatal(err)
				}
				dir, err := s.Dir(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				if got := read(t, dir+"/f"); got != "f" {
					t.Errorf("got %q", got)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					damage(t, filepath.Dir(dir))
				}
			}
			if n := fetched.Load(); n != 2 {
				t.Errorf("fetched %d times", n)
			}
		})
	}
}

func TestCollect(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	other := openStore(t, root, Options{})
	l := image(t, s, "f=12345")
	if _, err := s.Dir(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	for _, st := range []*Store{s, other} {
		if err := st.Remove(t.Context(), l.Identity); !errors.Is(err, ErrInUse) {
			t.Errorf("got %v", err)
		}
	}
	u, err := other.Usage(t.Context())
	if err != nil || len(u) != 1 || u[0].Size != 5 || !u[0].InUse || u[0].Identity != l.Identity {
		t.Errorf("got %+v, %v", u, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Remove(t.Context(), l.Identity); err != nil {
		t.Error(err)
	}
	if err := other.Remove(t.Context(), l.Identity); err != nil {
		t.Error(err)
	}
	if other.Has(l.Identity) {
		t.Error("still there")
	}
	if list, _ := filepath.Glob(root + "/layers/*/fs"); len(list) != 0 {
		t.Errorf("layers: %s", list)
	}
}
