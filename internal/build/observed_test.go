package build

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/catalog"
	"larder/internal/export"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/observation"
	"larder/internal/record"
	"larder/internal/runstep"
	"larder/internal/testregistry"
)

// lookingRunner stands for a container whose inputs are observed: what a command "look NAME PATH..." makes depends on those files of observed layers
// and on nothing else.
type lookingRunner struct{ *fakeRunner }

// Run implements solve.Runner.
func (f lookingRunner) Run(ctx context.Context, step runstep.Step) (*runstep.Result, error) {
	args := step.Op.Meta.Args
	cmd := args[len(args)-1]
	f.mu.Lock()
	f.ran = append(f.ran, cmd)
	f.mu.Unlock()
	inputs, err := runstep.Inputs(ctx, step.Op, step.Inputs)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintln(h, args, f.salt)
	words := strings.Fields(cmd)
	res := &runstep.Result{}
	for _, g := range runstep.Observed(inputs) {
		var looks []observation.Look
		for _, p := range words[2:] {
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				looks = append(looks, observation.Look{Path: dir, Kind: observation.Entry})
			}
			looks = append(looks, observation.Look{Path: p, Kind: observation.Entry | observation.Content})
		}
		values, err := observation.Values(looks, g.Root)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(h, values)
		res.Looks = append(res.Looks, runstep.Looks{Group: g, Looks: looks})
	}
	l, err := f.layer(ctx, words[1], h.Sum(nil))
	if err != nil {
		return nil, err
	}
	res.Outputs = []runstep.Output{{State: step.Inputs[0].Push(l), Base: 0, Layers: []*layer.Layer{l}}}
	return res, nil
}

// newLookingMachine is an empty machine whose steps are observed.
func newLookingMachine(t testing.TB, registries ...string) *machine {
	t.Helper()
	m := newMachine(t, registries...)
	m.engine.runner = lookingRunner{m.runner}
	return m
}

// fromNothing is the digest that a build with observed steps gives without a cache.
func fromNothing(t testing.TB, dir, image string, registries ...string) string {
	t.Helper()
	m := newLookingMachine(t, registries...)
	req := request(dir, image)
	req.Cache = Cache{}
	req.Outputs = []map[string]string{{"type": export.Image, "store": "false"}}
	d, _ := m.must(req)
	m.close()
	return d
}

// copied is a project that copies everything before its steps look at a part of that.
func copied(base string) map[string]string {
	return map[string]string{
		"Dockerfile": "FROM " + base + "\nCOPY . /app\nRUN look one app/a\nWORKDIR /app\nRUN look two app/b app/sub/c\n",
		"a":          "a", "b": "b", "sub/c": "c", "README": "hello",
	}
}

// TestObservedLiesStayWithTheFork: a fork's catalog has path sets and records that say of what main's steps would see that something else came out.
// Its job runs on a machine that main's jobs use too.
func TestObservedLiesStayWithTheFork(t *testing.T) {
	for _, same := range []bool{false, true} {
		t.Run(fmt.Sprintf("main has the fork's files %v", same), func(t *testing.T) {
			s := newSite(t)
			files := copied(s.reg.Ref("base"))
			main, fork := project(t, files), project(t, files)
			as := func(dir, image, scope string) *Request {
				r := request(dir, s.reg.Ref(image))
				r.Cache.Scope = scope
				return r
			}
			evil := newLookingMachine(t, s.reg.Addr)
			evil.runner.salt = "evil"
			evil.must(as(main, "app:fork", "fork"))
			write(t, fork, map[string]string{"README": "of the fork"})
			if same {
				write(t, main, map[string]string{"README": "of the fork"})
			}
			want := fromNothing(t, main, s.reg.Ref("app:main"), s.reg.Addr)

			shared := newLookingMachine(t, s.reg.Addr)
			lied, res := shared.must(as(fork, "app:fork", "fork"))
			if lied == fromNothing(t, fork, s.reg.Ref("app:fork"), s.reg.Addr) || res.Ran > 0 {
				t.Fatalf("the fork's own lies do not reach it: %d steps ran", res.Ran)
			}
			if got, _ := shared.must(as(main, "app:main", "main")); got != want {
				t.Errorf("on the machine of both: image %s, a build from nothing gives %s", got, want)
			}
			if got, _ := newLookingMachine(t, s.reg.Addr).must(as(main, "app:main", "main")); got != want {
				t.Errorf("from what that saved: image %s, a build from nothing gives %s", got, want)
			}
		})
	}
}

// TestObservedRecordsAreVerified: --cache-verify names a step whose record, found by what the step looks at, is wrong.
func TestObservedRecordsAreVerified(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, copied(reg.Ref("base")))
	image := reg.Ref("app:main")
	first := newLookingMachine(t, reg.Addr)
	first.must(request(dir, image))
	verify := func(salt string) *Result {
		t.Helper()
		req := request(dir, image)
		req.Cache.Verify = true
		m := newLookingMachine(t, reg.Addr)
		m.runner.salt = salt
		_, res := m.must(req)
		return res
	}
	for _, edit := range []string{"README", "new"} {
		write(t, dir, map[string]string{edit: "edited"})
		if res := verify(""); res.Ran > 0 || len(res.Differences) > 0 {
			t.Errorf("%s edited: %d ran, differences %+v", edit, res.Ran, res.Differences)
		}
		write(t, dir, map[string]string{edit: "edited again"})
		res := verify("as if the record were another's")
		var names []string
		for _, d := range res.Differences {
			names = append(names, d.Step)
			if len(d.Files) != 1 || !strings.HasPrefix(d.Files[0].Path, "out/") {
				t.Errorf("%s differs in %+v", d.Step, d.Files)
			}
		}
		slices.Sort(names)
		if len(names) != 2 || !strings.HasSuffix(names[0], "RUN look one app/a") || !strings.HasSuffix(names[1], "RUN look two app/b app/sub/c") {
			t.Errorf("%s edited: the steps that differ are %q", edit, names)
		}
	}
}

// TestDamagedHintsAreMisses spoils, in a local root and in a catalog, lists and path sets in ways that no digest of a record tells: steps run, and the
// image is right.
func TestDamagedHintsAreMisses(t *testing.T) {
	none, err := (&observation.Set{Parts: [][]observation.Look{}}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	nothing, err := (&observation.Set{Parts: [][]observation.Look{{}}}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	long := make([]key.Digest, 1000)
	for i := range long {
		long[i] = key.Bytes(fmt.Append(nil, i))
	}
	for name, spoil := range map[string]func(hint []byte) []byte{
		"cut off":                     func(b []byte) []byte { return b[:len(b)/2] },
		"rubbish":                     func([]byte) []byte { return []byte("rubbish") },
		"a bit":                       func(b []byte) []byte { b = slices.Clone(b); b[len(b)/2] ^= 4; return b },
		"more behind":                 func(b []byte) []byte { return append(slices.Clone(b), b...) },
		"no parts":                    func([]byte) []byte { return none },
		"a set that looks at nothing": func([]byte) []byte { return nothing },
		"a list of others":            func([]byte) []byte { return observation.MarshalList(long) },
		"nothing":                     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			dir := project(t, copied(s.reg.Ref("base")))
			image := s.reg.Ref("app:main")
			m := newLookingMachine(t, s.reg.Addr)
			m.must(request(dir, image))
			var put []catalog.Put
			for _, e := range s.load("app", DefaultScope).Entries(t.Context()) {
				if e.Record.OnlyHint() {
					r := *e.Record
					r.Hint = spoil(r.Hint)
					put = append(put, catalog.Put{Record: &r, Replaces: e.Record.Digest()})
				}
			}
			if len(put) < 4 {
				t.Fatalf("the catalog has %d hints", len(put))
			}
			s.save("app", DefaultScope, catalog.Change{Put: put})
			spoiled := 0
			err := m.engine.records.Walk(func(r *record.Record, _ int64, _ time.Time) error {
				if !r.OnlyHint() {
					return nil
				}
				spoiled++
				c := *r
				c.Hint = spoil(c.Hint)
				_, err := m.engine.records.Replace(&c)
				return err
			})
			if err != nil || spoiled < 4 {
				t.Fatalf("the local root has %d hints, %v", spoiled, err)
			}
			write(t, dir, map[string]string{"README": "edited"})
			want := fromNothing(t, dir, image, s.reg.Addr)
			for _, at := range []struct {
				name string
				m    *machine
			}{{"there", m}, {"on an empty machine", newLookingMachine(t, s.reg.Addr)}} {
				ran := len(at.m.runner.commands())
				req := request(dir, image)
				req.Cache.To = nil
				if got, _ := at.m.must(req); got != want {
					t.Errorf("%s: image %s, a build from nothing gives %s", at.name, got, want)
				}
				if ran = len(at.m.runner.commands()) - ran; ran != 2 {
					t.Errorf("%s: %d steps ran, want 2", at.name, ran)
				}
			}
		})
	}
}
