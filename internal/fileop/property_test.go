package fileop

import (
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as buildkitd runs
	fscopy.UmaskIsZero = true
	os.Exit(m.Run())
}

// state makes a state of one layer out of a merged tree.
func state(t testing.TB, root *tree.Node, contents map[key.Digest][]byte) *layer.State {
	t.Helper()
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return layer.Stack(layer.New(id, true, root, layer.Literal(contents)))
}

// TestAgainstBuildKit does random operations here and with BuildKit's own file operation on overlay mounts, and compares
// the layers and the merged file systems. LARDER_FILEOP_CASES says how many that succeed (300).
func TestAgainstBuildKit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: BuildKit's file operations mount, chown and mknod")
	}
	probe := t.TempDir()
	if err := tryOverlay(probe); err != nil {
		t.Skipf("needs overlay mounts: %v", err)
	}
	cases := os.Getenv("LARDER_FILEOP_CASES")
	if cases == "" {
		cases = "300"
	}
	for name, value := range map[string]string{"rapid.checks": cases, "rapid.nofailfile": "true", "rapid.shrinktime": "8s"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	refused := 0
	rapid.Check(t, func(rt *rapid.T) {
		if !compare(t, rt, dir) {
			refused++
			rt.Skip("refused by both") // which they agree on, but it is not one of the cases
		}
	})
	t.Logf("and %d that both refused", refused)
}

func tryOverlay(dir string) error {
	o := &oracle{dir: dir}
	lower := filepath.Join(dir, "lower")
	if err := os.Mkdir(lower, 0o755); err != nil {
		return err
	}
	a, err := o.New(context.Background(), &snap{dirs: []string{lower}}, nil)
	if err != nil {
		return err
	}
	m, err := a.Mount(context.Background(), false, nil)
	if err != nil {
		return err
	}
	mounts, _, err := m.Mount()
	if err != nil {
		return err
	}
	at := filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if err := mounts[0].Mount(at); err != nil {
		return err
	}
	return unix.Unmount(at, 0)
}

// compare does one case. It says whether the operation succeeded.
func compare(t *testing.T, rt *rapid.T, root string) bool {
	dir, err := os.MkdirTemp(root, "case")
	if err != nil {
		rt.Fatal(err)
	}
	defer os.RemoveAll(dir)
	g := newGen(rt)
	base, src := g.fs("base"), g.fs("source")
	if g.one(2, "with archive") {
		src = with(src, "x.tar", g.archive())
	}
	op := g.op()
	dirs := []string{filepath.Join(dir, "base"), filepath.Join(dir, "src")}
	for i, n := range []*tree.Node{base, src} {
		if err := os.Mkdir(dirs[i], 0o755); err != nil {
			rt.Fatal(err)
		}
		write(t, dirs[i], n, g.contents)
	}
	start := time.Now().Add(-time.Second).UnixNano()
	want, wantErr := (&oracle{dir: dir}).solve(t.Context(), op, dirs)
	inputs := []*layer.State{state(t, base, g.contents), state(t, src, g.contents)}
	got, err := Apply(t.Context(), op, inputs)
	if errors.Is(err, errNotRegular) {
		return false // BuildKit writes into devices; larder does not
	}
	if err == nil && wantErr != nil && hasPatterns(op) && strings.Contains(wantErr.Error(), "failed to stat") {
		return false // BuildKit also looks where directories would go of which no pattern leaves anything
	}
	var pe *fs.PathError
	if err == nil && errors.As(wantErr, &pe) && pe.Op == "stat" && errors.Is(pe, fs.ErrNotExist) {
		return false // rm looks for the target of a link; BuildKit looks for an absolute one on the host
	}
	if (err == nil) != (wantErr == nil) {
		rt.Fatalf("%s\nbase\n%s\nsource\n%s\nBuildKit: %v\nlarder: %v", describe(op), dump(t, base, start), dump(t, src, start), wantErr, err)
	}
	if err != nil {
		return false
	}
	check := func(what string, want, got *tree.Node) {
		if a, b := dump(t, want, start), dump(t, got, start); a != b {
			rt.Fatalf("%s\nbase\n%s\nsource\n%s\n%s, - BuildKit, + larder\n%s", describe(op), dump(t, base, start), dump(t, src, start), what, difference(a, b))
		}
	}
	for i, out := range got.Outputs {
		merged, err := out.State.Merged(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		mounted(t, want[i], func(dir string) { check("file system", read(t, dir), merged) })
		top, err := out.Layers[0].Tree(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		if len(want[i]) == out.Base+2 || out.Base < 0 && len(want[i]) == 1 {
			check("layer", read(t, want[i][len(want[i])-1]), top)
		}
		readable(rt, out.Layers[0], top)
	}
	again, err := (&Applier{}).Replay(t.Context(), op, inputs, got.Resolution)
	if errors.Is(err, ErrUnresolved) && readsMade(op) {
		return true // such an operation cannot do without its base
	}
	if err != nil {
		rt.Fatalf("%s\nreplay: %v", describe(op), err)
	}
	if again.Content != got.Content || again.Outputs[0].Layers[0].Identity != got.Outputs[0].Layers[0].Identity {
		rt.Fatalf("%s\na replay has another result", describe(op))
	}
	return true
}

// readsMade says whether an action copies from what another one made.
func readsMade(op *pb.FileOp) bool {
	for _, a := range op.Actions {
		if a.SecondaryInput > 1 {
			return true
		}
	}
	return false
}

func hasPatterns(op *pb.FileOp) bool {
	for _, a := range op.Actions {
		if c := a.GetCopy(); c != nil && len(c.IncludePatterns)+len(c.ExcludePatterns) > 0 {
			return true
		}
	}
	return false
}

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	lines := func(s string) []string { return strings.Split(s, "\n") }
	var out []string
	for _, l := range lines(a) {
		if !slices.Contains(lines(b), l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range lines(b) {
		if !slices.Contains(lines(a), l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

// readable opens every file of a layer.
func readable(rt *rapid.T, l *layer.Layer, root *tree.Node) {
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		if n.Kind != tree.File {
			return nil
		}
		r, err := l.Contents.Open(rt.Context(), n.Content, n.Size)
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err == nil && key.Bytes(b) != n.Content {
			rt.Fatalf("%s has other bytes", path)
		}
		return err
	})
	if err != nil {
		rt.Fatal(err)
	}
}
