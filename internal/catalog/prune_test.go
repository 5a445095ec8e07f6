package catalog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/tree"
)

func TestPrune(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		m.stocked("s", "x", 4)
		c := steps("s", "x", 4)
		mustSave(t, m, mainScope, c, Options{})
		stray := pagePrefix(mainScope.Tag) + "0123456789ab"
		m.docs[stray] = m.docs[mainScope.Tag] // left by a build that was interrupted
		time.Sleep(time.Minute)
		keep := Keep{Record: func(e Entry) bool { return e.Record.Name < "RUN s 2" }}
		p, err := Prune(t.Context(), m, mainScope, keep, Options{})
		if err != nil || p.Records != 2 || len(p.Blobs) != 4 || p.Attempts == 0 {
			t.Fatalf("%+v, %v", p, err)
		}
		for _, want := range []string{"blob s 2xgzip", "tree blob s 3x"} {
			if !slices.ContainsFunc(p.Blobs, func(d ocispecs.Descriptor) bool { return d.Digest == digest.FromString(want) }) {
				t.Errorf("it does not tell of %s", want)
			}
		}
		cat := mustLoad(t, m, mainScope, Options{})
		if n := len(cat.Entries(t.Context())); n != 2 || strings.Contains(string(m.docs[mainScope.Tag]), string(copyOf("s 3x", "gzip").Desc.Digest)) {
			t.Errorf("%d records are left", n)
		}
		if p, err := Prune(t.Context(), m, mainScope, keep, Options{}); err != nil || p.Records != 0 || p.Attempts != 0 {
			t.Errorf("again: %+v, %v", p, err)
		}
		if _, there := m.docs[stray]; !there {
			t.Error("a page that another build may be about to name was removed at once")
		}
		time.Sleep(2 * time.Hour)
		mustSave(t, m, mainScope, step("new", "x").withoutBlobs(), Options{})
		if _, there := m.docs[stray]; there {
			t.Error("a page that nobody names stays for ever")
		}
		if _, err := Prune(t.Context(), m, Name{"none", ScopeTag("none")}, keep, Options{}); !errors.Is(err, ErrAbsent) {
			t.Errorf("%v", err)
		}
		m.fault = func(op, _ string) error {
			if op == "PutManifest" {
				return remote.ErrDenied
			}
			return nil
		}
		if _, err := Prune(t.Context(), m, mainScope, Keep{Record: func(Entry) bool { return false }}, Options{}); !errors.Is(err, remote.ErrDenied) || fault.Of(err) != fault.Registry {
			t.Errorf("%v", err)
		}
	})
}

func TestListAndRemove(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		feature := Name{"feature/ä", ScopeTag("feature/ä")}
		m.stockedAll(steps("s", "x", 300))
		mustSave(t, m, mainScope, steps("s", "x", 300), Options{})
		mustSave(t, m, feature, steps("s", "x", 1), Options{})
		m.docs[ScopeTag("broken")] = []byte("{")
		m.docs["latest"] = []byte("{}") // an image
		m.docs[ScopeTag("moved")] = m.docs[feature.Tag]
		list, err := List(t.Context(), m, Options{})
		if err != nil || len(list) != 4 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, s := range list[:2] {
			if !errors.Is(s.Err, ErrAbsent) || s.Name.Scope != "" || !strings.Contains(s.Err.Error(), s.Name.Tag) {
				t.Errorf("%+v", s)
			}
		}
		if s := list[2]; s.Name != feature || s.Err != nil || s.Records != 1 || s.Blobs != 2 || s.Bytes != int64(len("tree blob s 0xblob s 0xgzip")) || s.Pages != 0 || time.Since(s.Time) > time.Second {
			t.Errorf("%+v", s)
		}
		if s := list[3]; s.Name != mainScope || s.Records != 300 || s.Blobs != 600 || s.Pages == 0 || s.Sequence == 0 {
			t.Errorf("%+v", s)
		}
		if err := Remove(t.Context(), m, mainScope); err != nil {
			t.Fatal(err)
		}
		if names, _ := m.Names(t.Context(), mainScope.Tag); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
		if _, err := Load(t.Context(), m, feature, Options{}); err != nil {
			t.Errorf("another scope went along: %v", err)
		}
		if err := Remove(t.Context(), m, mainScope); err != nil {
			t.Errorf("what is not there: %v", err)
		}
	})
}

// packedTree makes a tree's own digest, its blob and the blob's descriptor.
func packedTree(t *testing.T) (key.Digest, []byte, ocispecs.Descriptor) {
	t.Helper()
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "f", Node: &tree.Node{Kind: tree.File, Size: 1, Content: keyOf("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tree.Encode(&b, root); err != nil {
		t.Fatal(err)
	}
	blob, err := PackTree(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return key.Bytes(b.Bytes()), blob, ocispecs.Descriptor{MediaType: MediaTypeTree, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
}

func TestCheck(t *testing.T) {
	name, blob, desc := packedTree(t)
	m := newMemory("registry.example/app")
	m.stocked("s", "x", 3)
	m.blobs[desc.Digest] = blob
	identity := keyOf("layer")
	change := Change{
		Put: []Put{{Record: &record.Record{Key: keyOf("k"), Name: "COPY", Outputs: []record.Output{{Layers: []record.Layer{
			{Identity: identity, Tree: name}, {Identity: keyOf("other"), Tree: keyOf("other tree")}}}}}}},
		Trees:  map[key.Digest]ocispecs.Descriptor{name: desc},
		Layers: map[key.Digest][]Blob{identity: {copyOf("s 0x", "gzip")}},
	}
	mustSave(t, m, mainScope, change, Options{})
	check := func(full bool) []Problem {
		t.Helper()
		p, err := Check(t.Context(), m, mustLoad(t, m, mainScope, Options{}), full)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := append(check(false), check(true)...); len(p) != 0 {
		t.Fatalf("%+v", p)
	}
	layer := copyOf("s 0x", "gzip").Desc.Digest
	m.blobs[layer] = []byte(strings.ToUpper(string(m.blobs[layer])))
	m.blobs[desc.Digest] = append(slices.Clone(blob), 0)
	if p := check(false); len(p) != 0 {
		t.Errorf("%+v", p)
	}
	if p := check(true); len(p) != 2 || !errors.Is(p[0].Err, remote.ErrDamaged) || !slices.Equal(p[0].Records, []string{"COPY"}) {
		t.Errorf("%+v", p)
	}
	delete(m.blobs, layer)
	p := check(false)
	if len(p) != 1 || p[0].Blob.Digest != layer || !errors.Is(p[0].Err, remote.ErrNotFound) {
		t.Fatalf("%+v", p)
	}
	m.blobs[desc.Digest] = blob
	mustSave(t, m, mainScope, Change{Gone: []digest.Digest{layer}}, Options{})
	if p := check(true); len(p) != 0 {
		t.Errorf("after healing: %+v", p)
	}
	// A blob that is what its descriptor says, but not the tree that it stands for.
	wrong := change
	wrong.Trees = map[key.Digest]ocispecs.Descriptor{keyOf("other tree"): descOf("tree blob s 1x", "")}
	mustSave(t, m, mainScope, wrong, Options{})
	if p := check(true); len(p) != 1 || !errors.Is(p[0].Err, remote.ErrDamaged) {
		t.Errorf("%+v", p)
	}
	m.fault = func(op, _ string) error {
		if op == "Has" {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	if _, err := Check(t.Context(), m, mustLoad(t, m, mainScope, Options{}), false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

// TestEndedContext: a look-up that its caller gave up is not remembered as a miss, and a save ends.
func TestEndedContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMemory("registry.example/app")
		c := steps("s", "x", 300)
		m.stockedAll(c)
		mustSave(t, m, mainScope, c, Options{})
		cat := mustLoad(t, m, mainScope, Options{})
		ended, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("given up"))
		count := func(ctx context.Context) (n int) {
			for _, p := range c.Put {
				if _, ok := cat.Record(ctx, p.Record.Key); ok {
					n++
				}
			}
			return n
		}
		if n := count(ended); n == 0 || n == 300 {
			t.Errorf("found %d records in the first page", n)
		}
		if n := count(t.Context()); n != 300 {
			t.Errorf("found %d of 300 records", n)
		}
		if _, err := Save(ended, m, mainScope, step("t", "x"), Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		// A further page that does not answer is a miss.
		cat = mustLoad(t, m, mainScope, Options{})
		m.fault = func(op, _ string) error {
			if op == "Open" {
				return errors.New("no route")
			}
			return nil
		}
		if n := count(t.Context()); n == 0 || n == 300 {
			t.Errorf("found %d records in the first page", n)
		}
		if _, err := Save(t.Context(), m, mainScope, step("t", "x").withoutBlobs(), Options{}); err == nil || !strings.Contains(err.Error(), "no route") {
			t.Errorf("a page that cannot be read now must not be given up: %v", err)
		}
	})
}

func TestScopeTag(t *testing.T) {
	seen := map[string]string{}
	for _, scope := range []string{"main", "Main", "feature/x", "feature-x", "feature_x", "feature.x", "", "-", "ä", "\xff", "main.p-0123456789ab",
		strings.Repeat("a", 500), strings.Repeat("a", 501), "larder-main"} {
		tag := ScopeTag(scope)
		if len(tag) > 128 || !strings.HasPrefix(tag, "larder-") || remote.CheckName(tag) != nil || isPageTag(tag) {
			t.Errorf("%q: %q", scope, tag)
		}
		if other, have := seen[tag]; have {
			t.Errorf("%q and %q share a tag", scope, other)
		}
		seen[tag] = scope
		if got := NameOf(scope); got != (Name{scope, tag}) {
			t.Errorf("%q: %+v", scope, got)
		}
		if page := pagePrefix(tag) + "0123456789ab"; remote.CheckName(page) != nil || !isPageTag(page) {
			t.Errorf("%q: %q", scope, page)
		}
	}
	if got := ScopeTag("feature/x"); !strings.HasPrefix(got, "larder-feature-x-") {
		t.Error(got)
	}
	if got := NameOf("tag:cache"); got != (Name{"tag:cache", "cache"}) {
		t.Errorf("%+v", got)
	}
	long := pagePrefix(strings.Repeat("t", 127) + "a")
	if long == pagePrefix(strings.Repeat("t", 127)+"b") || len(long)+pageDigits > 128 {
		t.Errorf("%q", long)
	}
}
