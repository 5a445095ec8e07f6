package snapshot

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// TestAdoptCut stops after every step of adopting, as a killed process does: whoever opens the layer next finds one of the
// two sets of times, whole, on the disk and in the tree.
func TestAdoptCut(t *testing.T) {
	made := sample(t, "made", 7)
	other := must(sample(t, "made", 9).Tree(t.Context()))
	first, second := dump(t, must(made.Tree(t.Context())), false), dump(t, other, false)
	begin := func(t *testing.T, s *Store, dir string) {
		t.Helper()
		m, err := readMeta(dir)
		if err == nil {
			_, err = s.announce(dir, m, other)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		cut  func(t *testing.T, s *Store, dir string)
		want string
	}{
		{"tree half written", func(t *testing.T, s *Store, dir string) { write(t, dir+"/tree.new", "larder tr") }, first},
		{"meta half written", func(t *testing.T, s *Store, dir string) {
			must(writeTree(dir+"/tree.new", other))
			write(t, dir+"/meta.new", "{")
		}, first},
		{"announced", begin, second},
		{"announced, sync mark still there", func(t *testing.T, s *Store, dir string) {
			begin(t, s, dir)
			write(t, dir+"/synced", "")
		}, second},
		{"half of the files", func(t *testing.T, s *Store, dir string) {
			begin(t, s, dir)
			if err := os.Chtimes(dir+"/fs/f", time.Unix(0, 9), time.Unix(0, 9)); err != nil {
				t.Fatal(err)
			}
		}, second},
		{"all files", func(t *testing.T, s *Store, dir string) {
			begin(t, s, dir)
			if err := layer.Retime(dir+"/fs", nil, other); err != nil {
				t.Fatal(err)
			}
		}, second},
		{"tree in its place", func(t *testing.T, s *Store, dir string) {
			begin(t, s, dir)
			if err := os.Rename(dir+"/tree.new", dir+"/tree"); err != nil {
				t.Fatal(err)
			}
		}, second},
		{"finished", func(t *testing.T, s *Store, dir string) {
			if err := s.Adopt(t.Context(), made.Identity, other); err != nil {
				t.Fatal(err)
			}
		}, second},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			s := openStore(t, root, Options{})
			dir := filepath.Dir(must(s.Dir(t.Context(), made)))
			c.cut(t, s, dir)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			next := openStore(t, root, Options{Warn: func(msg string) { t.Error(msg) }})
			if got := agrees(t, next, made.Identity); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			// And the times can be replaced once more.
			third := must(sample(t, "made", 11).Tree(t.Context()))
			if err := next.Adopt(t.Context(), made.Identity, third); err != nil {
				t.Fatal(err)
			}
			if got := agrees(t, next, made.Identity); got != dump(t, third, false) {
				t.Errorf("got\n%s", got)
			}
			nothingLeft(t, next)
		})
	}
}

// TestAdoptPowerFailure: times that were not synced do not outlive the kernel, whatever was synced before them.
func TestAdoptPowerFailure(t *testing.T) {
	root := t.TempDir()
	made := sample(t, "made", 7)
	for _, synced := range []bool{false, true} {
		s := openStore(t, root, Options{})
		if _, err := s.Dir(t.Context(), made); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Adopt(t.Context(), made.Identity, must(sample(t, "made", 9).Tree(t.Context()))); err != nil {
			t.Fatal(err)
		}
		if synced {
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		next := openStore(t, root, Options{})
		next.boot = "after the power failure"
		if next.Has(made.Identity) != synced {
			t.Errorf("synced: %v, but trusted: %v", synced, !synced)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAdoptKilled kills a process that does nothing but adopt, at any instant, and looks at what it left.
func TestAdoptKilled(t *testing.T) {
	wide := func(mtime int64) *layer.Layer {
		var entries []tree.Entry
		bodies := map[key.Digest][]byte{}
		for i := range 300 {
			body := fmt.Append(nil, i)
			n := &tree.Node{Kind: tree.File, Meta: tree.Meta{MTime: mtime}, Size: int64(len(body)), Content: key.Bytes(body)}
			bodies[n.Content] = body
			entries = append(entries, tree.Entry{Name: fmt.Sprint("f", i), Node: n})
		}
		root := must(tree.NewDir(tree.Meta{Mode: 0o755, MTime: mtime}, false, entries))
		return layer.New(must(root.Identity()), true, root, layer.Literal(bodies))
	}
	const variable = "LARDER_TEST_ADOPT_IN"
	if root := os.Getenv(variable); root != "" {
		s := must(Open(root, Options{}))
		l := wide(1)
		must(s.Dir(t.Context(), l))
		fmt.Println("ready")
		for i := int64(2); ; i++ {
			if err := s.Adopt(t.Context(), l.Identity, must(wide(i).Tree(t.Context()))); err != nil {
				panic(err)
			}
		}
	}
	needRoot(t)
	root, id := t.TempDir(), wide(1).Identity
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	pending := 0
	for range 15 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAdoptKilled$")
		cmd.Env = append(os.Environ(), variable+"="+root)
		out := must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		must(out.Read(make([]byte, 1)))
		time.Sleep(time.Duration(rng.Intn(15_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if metas, _ := filepath.Glob(root + "/layers/*/meta"); len(metas) == 1 {
			if m, err := readMeta(filepath.Dir(metas[0])); err == nil && m.Adopting {
				pending++
			}
		}
		s := openStore(t, root, Options{Warn: func(msg string) { t.Error(msg) }})
		agrees(t, s, id)
		if err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 15 were killed in the middle", pending)
}
