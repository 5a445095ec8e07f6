package runstep

import (
	"fmt"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// sources makes a layer as a file operation does: /src with files that have a time.
func sources(t *testing.T, at time.Time, files map[string]string) *layer.Layer {
	t.Helper()
	var entries []tree.Entry
	contents := map[key.Digest][]byte{}
	for name, body := range files {
		d := key.Bytes([]byte(body))
		contents[d] = []byte(body)
		entries = append(entries, tree.Entry{Name: name, Node: &tree.Node{
			Kind: tree.File, Meta: tree.Meta{Mode: 0o644, MTime: at.UnixNano()}, Size: int64(len(body)), Content: d,
		}})
	}
	for _, name := range []string{"src", ""} {
		dir, err := tree.NewDir(tree.Meta{Mode: 0o755, MTime: at.UnixNano()}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		entries = []tree.Entry{{Name: name, Node: dir}}
	}
	root := entries[0].Node
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return layer.New(id, false, root, layer.Literal(contents))
}

// makeLib makes a file of all sources again when one of them is newer, in whole seconds.
const makeLib = `for f in /src/*; do
	if [ ! -e /out/lib ] || [ $f -nt /out/lib ]; then cat /src/* > /out/lib; fi
done; cat /out/lib`

func outMount() *pb.Mount {
	return &pb.Mount{Dest: "/out", Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "out"}}
}

func srcBind() *pb.Mount {
	return &pb.Mount{Dest: "/src", Selector: "/src", Input: 1, Output: -1, Readonly: true}
}

// TestBackAndForth changes a source and changes it back. The directory of what it was is there already, with the times of another operation
// that made the same.
func TestBackAndForth(t *testing.T) {
	for name, run := range map[string]func(p *place, base *layer.State, src *layer.Layer) error{
		"bind": func(p *place, base *layer.State, src *layer.Layer) error {
			_, err := p.run(op(makeLib, outMount(), srcBind()), base, layer.Stack(src))
			return err
		},
		"copy": func(p *place, base *layer.State, src *layer.Layer) error {
			_, err := p.run(op(makeLib, outMount()), base.Push(src))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, Options{})
			base := p.busybox()
			if name == "bind" { // a COPY of the same, which nobody held against a ledger
				p.mustRun(op("cat /src/f"), base.Push(sources(t, time.Now().Add(-time.Hour), map[string]string{"f": "one"})))
			}
			for i, body := range []string{"one", "two", "one"} {
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // what is checked out now is newer than the mount
				src := sources(t, time.Now(), map[string]string{"f": body})
				if err := run(p, base, src); err != nil || p.out.String() != body {
					t.Fatalf("build %d: got %q, %v, want %q", i, &p.out, err, body)
				}
			}
		})
	}
}

// TestBackWithArguments deletes a source and puts it back in builds that have another argument each.
func TestBackWithArguments(t *testing.T) {
	p := newPlace(t, Options{})
	base := p.busybox()
	old := time.Now().Add(-time.Hour)
	for i, files := range []map[string]string{{"a": "1", "b": "1"}, {"a": "2"}, {"a": "2", "b": "1"}} {
		o := op(makeLib, outMount(), srcBind())
		o.Meta.Env = append(o.Meta.Env, fmt.Sprint("SHA=", i))
		p.mustRun(o, base, layer.Stack(sources(t, old, files)))
		if want := files["a"] + files["b"]; p.out.String() != want {
			t.Errorf("build %d: got %q, want %q", i, &p.out, want)
		}
	}
}

func TestLooker(t *testing.T) {
	was := looker(op("make", outMount()))
	for name, c := range map[string]struct {
		edit func(*pb.ExecOp)
		same bool
	}{
		"variable":    {func(o *pb.ExecOp) { o.Meta.Env = []string{"SHA=1"} }, true},
		"proxy":       {func(o *pb.ExecOp) { o.Meta.ProxyEnv = &pb.ProxyEnv{HttpProxy: "http://proxy"} }, true},
		"host":        {func(o *pb.ExecOp) { o.Meta.ExtraHosts = []*pb.HostIP{{Host: "a", IP: "1.2.3.4"}} }, true},
		"arguments":   {func(o *pb.ExecOp) { o.Meta.Args = []string{"make", "all"} }, false},
		"directory":   {func(o *pb.ExecOp) { o.Meta.Cwd = "/src" }, false},
		"mount point": {func(o *pb.ExecOp) { o.Mounts[1].Dest = "/in" }, false},
		"more mounts": {func(o *pb.ExecOp) { o.Mounts = append(o.Mounts, srcBind()) }, false},
	} {
		o := op("make", outMount())
		c.edit(o)
		if got := looker(o); (got == was) != c.same {
			t.Errorf("%s: %s after %s", name, got, was)
		}
	}
}

// TestAwait waits for what is a little ahead, beside what never comes.
func TestAwait(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		files map[string]time.Duration
		wait  time.Duration
	}{
		{map[string]time.Duration{"a": -time.Minute}, 0},
		{map[string]time.Duration{"a": -time.Minute, "b": 100_000 * time.Hour}, 0},
		{map[string]time.Duration{"a": 200 * time.Millisecond, "b": 100_000 * time.Hour}, 200 * time.Millisecond},
	} {
		var entries []tree.Entry
		for name, ahead := range c.files {
			n := &tree.Node{Kind: tree.File, Meta: tree.Meta{MTime: now.Add(ahead).UnixNano()}}
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
		root, err := tree.NewDir(tree.Meta{}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		if err := new(prepared).await(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		if ended := time.Now(); ended.Before(now.Add(c.wait)) {
			t.Errorf("%v: %v passed", c.files, ended.Sub(now))
		}
	}
}
