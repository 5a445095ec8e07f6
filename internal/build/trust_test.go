package build

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"larder/internal/catalog"
	"larder/internal/testregistry"
)

// signers makes a key pair.
func signers(t *testing.T) (write, read *catalog.Keys) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &catalog.Keys{Sign: priv, Verify: []ed25519.PublicKey{pub}}, &catalog.Keys{Verify: []ed25519.PublicKey{pub}}
}

// TestAForkCannotPoisonTheDefaultBranch is "must show" 7 of issue 3. The fork's job has the project as it is, so it knows every key,
// and its machine makes what it likes of each step.
func TestAForkCannotPoisonTheDefaultBranch(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	want := reference(t, dir, image, reg.Addr)
	write, read := signers(t)
	_, foreign := signers(t)
	fork := func(m *machine, scope string, keys *catalog.Keys) string {
		t.Helper()
		m.runner.salt = "evil"
		req := request(dir, reg.Ref("app:fork"))
		req.Cache.Scope, req.Cache.Keys = scope, keys
		d, _, err := m.build(req)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	main := func(m *machine, keys *catalog.Keys, how string) *Result {
		t.Helper()
		req := request(dir, image)
		req.Cache.Keys = keys
		got, res := m.must(req)
		if got != want {
			t.Errorf("%s: the default branch made %s, not %s", how, got, want)
		}
		return res
	}

	if evil := fork(newMachine(t, reg.Addr), "fork", nil); evil == want {
		t.Fatal("the fork's machine is as good as any")
	}
	main(newMachine(t, reg.Addr), nil, "a scope of its own")

	// Its machine is the default branch's machine later: what the fork found in its own scope stays with it.
	shared := newMachine(t, reg.Addr)
	req := request(dir, reg.Ref("app:fork"))
	req.Cache.Scope, req.Cache.To = "fork", nil
	if d, res := shared.must(req); res.Ran != 0 || d == want {
		t.Fatalf("the fork's second build ran %d steps and made %s", res.Ran, d)
	}
	main(shared, nil, "a shared local root")

	// It may read only.
	reg.ResetCounts()
	m := newMachine(t, reg.Addr)
	m.runner.salt = "evil"
	write2 := project(t, stages(reg.Ref("base")))
	writeOnly := request(write2, reg.Ref("app:fork"))
	writeOnly.Outputs = []map[string]string{{"type": "image", "store": "false"}}
	writeOnly.Cache.To = nil
	m.must(writeOnly)
	for _, q := range reg.Requests() {
		if q.Method == "PUT" || q.Method == "POST" || q.Method == "PATCH" || q.Method == "DELETE" {
			t.Errorf("a job that may only read sent %+v", q)
		}
	}

	// It has a token that may push, and writes to the default scope; the default branch believes signatures only.
	if err := reg.Forget("app"); err != nil {
		t.Fatal(err)
	}
	fork(newMachine(t, reg.Addr), "", nil)
	if res := main(newMachine(t, reg.Addr), write, "unsigned records"); res.Cached != 0 {
		t.Errorf("%d steps were taken from an unsigned catalog", res.Cached)
	}
	other, _ := signers(t)
	fork(newMachine(t, reg.Addr), "", other)
	if res := main(newMachine(t, reg.Addr), foreign, "records signed by another key"); res.Cached != 0 {
		t.Errorf("%d steps were taken from a catalog that somebody else signed", res.Cached)
	}
	main(newMachine(t, reg.Addr), write, "signed again")
	if res := main(newMachine(t, reg.Addr), read, "its own signature"); res.Ran != 0 {
		t.Errorf("ran %d steps though the catalog is signed", res.Ran)
	}
}

// TestVerifyFindsWhatDiffers runs hits again, on a machine that makes something else of two steps.
func TestVerifyFindsWhatDiffers(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	first, _ := newMachine(t, reg.Addr).must(request(dir, image))
	verify := func(salt string) (*machine, *Result) {
		t.Helper()
		m := newMachine(t, reg.Addr)
		m.runner.salt = salt
		req := request(dir, image)
		req.Cache.Verify = true
		got, res := m.must(req)
		if got != first {
			t.Errorf("image %s, was %s: a verified hit is a hit", got, first)
		}
		return m, res
	}
	m, res := verify("")
	if len(res.Differences) > 0 || res.Cached != 4 || len(m.runner.commands()) != 4 {
		t.Errorf("differences %v, %d cached, ran %q", res.Differences, res.Cached, m.runner.commands())
	}
	m, res = verify("other")
	var steps []string
	for _, d := range res.Differences {
		steps = append(steps, d.Step)
		if len(d.Files) != 1 || !strings.HasPrefix(d.Files[0].Path, "out/") || d.Files[0].What != "content" {
			t.Errorf("%s: %+v", d.Step, d)
		}
	}
	if len(steps) != 4 || !strings.Contains(m.text(), "differs from the cache: /out/left: content") {
		t.Errorf("differences in %q\n%s", steps, m.text())
	}
}

// TestRefresh makes results anew that are too old, for one stage and for all, and the new ones replace the old ones.
func TestRefresh(t *testing.T) {
	reg := newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	image := reg.Ref("app:main")
	newMachine(t, reg.Addr).must(request(dir, image))
	build := func(salt string, refresh ...string) []string {
		t.Helper()
		m := newMachine(t, reg.Addr)
		m.runner.salt = salt
		req := request(dir, image)
		var err error
		if req.Cache.Refresh, err = ParseRefresh(refresh); err != nil {
			t.Fatal(err)
		}
		m.must(req)
		return m.runner.commands()
	}
	for _, c := range []struct {
		refresh []string
		ran     []string
	}{
		{[]string{"1h"}, nil},
		{[]string{"1ns", "right=0", "stage-3=0"}, []string{"compile left"}},
		{[]string{"left=1ns"}, []string{"compile left"}},
		{[]string{"1ns"}, []string{"compile left", "compile right", "finish all", "link right2"}},
	} {
		if ran := build("", c.refresh...); !slices.Equal(ran, c.ran) {
			t.Errorf("--refresh %q: ran %q, want %q", c.refresh, ran, c.ran)
		}
	}
	// Today the network gives something else. What comes out replaces what was there.
	if ran := build("new packages", "left=1ns"); !slices.Equal(ran, []string{"compile left", "finish all"}) {
		t.Errorf("ran %q", ran)
	}
	if ran := build("unused"); len(ran) > 0 {
		t.Errorf("after that ran %q", ran)
	}
}

// TestAnExportGoesBack: everything hits, the image goes to a registry that has nothing, and the cache has lost all its blobs.
func TestAnExportGoesBack(t *testing.T) {
	reg, other := newRegistry(t, testregistry.Options{}), newRegistry(t, testregistry.Options{})
	dir := project(t, stages(reg.Ref("base")))
	with := func(image string) *Request {
		req := request(dir, image)
		req.Cache = Cache{}
		return req.cached(other.Ref("cache"))
	}
	first, _ := newMachine(t, reg.Addr, other.Addr).must(with(reg.Ref("app:main")))
	if _, err := other.DeleteBlobs(1, 1, nil); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, reg.Addr, other.Addr)
	second, res := m.must(with(reg.Ref("elsewhere:main")))
	if second != first || res.Ran == 0 || !strings.Contains(m.text(), "what the cache promised cannot be had") {
		t.Errorf("image %s, was %s; ran %q\n%s", second, first, m.runner.commands(), m.text())
	}
	m = newMachine(t, reg.Addr, other.Addr)
	if third, res := m.must(with(reg.Ref("third:main"))); third != first || res.Ran != 0 {
		t.Errorf("the cache is not healed: ran %q\n%s", m.runner.commands(), m.text())
	}
}
