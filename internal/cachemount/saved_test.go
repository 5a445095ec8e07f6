package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cache"
	"larder/internal/catalog"
	"larder/internal/generation"
	"larder/internal/layout"
	"larder/internal/pack"
	"larder/internal/remote"
	remotelocal "larder/internal/remote/local"
)

var (
	// united is a mount that several writers' additions are united in, apart one that is a single writer's.
	united = Key{ID: "/go/pkg/mod", Platform: "linux/amd64"}
	apart  = Key{ID: "/target", Platform: "linux/amd64"}
)

// depot is a remote store that tests look into.
type depot struct {
	remote.Store
	t *testing.T

	mu      sync.Mutex
	before  func(ocispecs.Descriptor) error // is asked before a blob is taken
	changed int                             // manifests that were written
	sent    []ocispecs.Descriptor
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	// In memory where there is some: such a store waits for the disk at each build.
	dir, err := os.MkdirTemp("/dev/shm", "depot-")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
	} else {
		dir = t.TempDir()
	}
	st, err := remotelocal.New(dir)
	must(t, err)
	return &depot{Store: remote.Wrap(st, remote.Options{}), t: t}
}

func (d *depot) Put(ctx context.Context, up remote.Upload) (bool, error) {
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before != nil {
		if err := before(up.Desc); err != nil {
			return false, err
		}
	}
	sent, err := d.Store.Put(ctx, up)
	if sent && err == nil {
		d.mu.Lock()
		d.sent = append(d.sent, up.Desc)
		d.mu.Unlock()
	}
	return sent, err
}

func (d *depot) PutManifest(ctx context.Context, name string, b []byte, old remote.Version) (remote.Version, error) {
	d.mu.Lock()
	d.changed++
	d.mu.Unlock()
	return d.Store.PutManifest(ctx, name, b, old)
}

// interfere sets what is asked before a blob is taken; nil for nothing.
func (d *depot) interfere(before func(ocispecs.Descriptor) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

// traffic gives the bytes of packs that came since the last call, and how many blobs and manifests did.
func (d *depot) traffic() (packs int64, writes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, desc := range d.sent {
		if desc.MediaType == pack.MediaType {
			packs += desc.Size
		}
	}
	writes = len(d.sent) + d.changed
	d.sent, d.changed = nil, 0
	return packs, writes
}

// row is what the catalog says of a mount; nil for nothing.
func (d *depot) row(k Key) *catalog.Mount {
	d.t.Helper()
	c, err := catalog.Load(d.t.Context(), d.Store, catalog.NameOf("main"), catalog.Options{})
	if errors.Is(err, catalog.ErrAbsent) {
		return nil
	}
	must(d.t, err)
	row, ok := c.Mount(d.t.Context(), k.Digest())
	if !ok {
		return nil
	}
	return &row
}

// lose deletes the packs that a mount lies in.
func (d *depot) lose(k Key) {
	d.t.Helper()
	lost := 0
	for _, seg := range d.row(k).Segments {
		for _, p := range seg.Packs {
			must(d.t, d.Delete(d.t.Context(), p.Digest))
			lost++
		}
	}
	if lost == 0 {
		d.t.Fatal("there was no pack to lose")
	}
}

func (d *depot) source() *cache.Source {
	return &cache.Source{Label: d.Name(), ID: d.Name(), Store: d, Load: func(ctx context.Context) (catalog.Reader, error) {
		return catalog.Load(ctx, d, catalog.NameOf("main"), catalog.Options{})
	}}
}

// machine is where builds run: it has a local store, and remote ones that it reads and writes.
type machine struct {
	t        *testing.T
	local    *Local
	from, to []*depot
	temp     string
	trim     generation.Limits
	begin    func(what string) // is called when something begins that takes time
	quiet    bool              // what is not saved is not an error of the test
}

// newMachine is an empty machine that reads and writes one remote store.
func newMachine(t *testing.T, d *depot) *machine {
	t.Helper()
	return &machine{t: t, local: Open(t.TempDir()), from: []*depot{d}, to: []*depot{d}, temp: t.TempDir()}
}

// building is a build on a machine.
type building struct {
	*Saved
	m       *machine
	session *cache.Session
	mu      sync.Mutex
	warned  []string
}

func (m *machine) build() *building {
	m.t.Helper()
	b := &building{m: m}
	sources := map[*depot]*cache.Source{}
	source := func(d *depot) *cache.Source {
		if sources[d] == nil {
			sources[d] = d.source()
		}
		return sources[d]
	}
	cfg := cache.Config{Domain: "test", Warn: b.warn}
	for _, d := range m.from {
		cfg.Sources, cfg.Mounts = append(cfg.Sources, source(d)), append(cfg.Mounts, source(d))
	}
	for _, d := range m.to {
		cfg.Targets = append(cfg.Targets, &cache.Target{Own: source(d), Save: func(ctx context.Context, c catalog.Change) (catalog.Saved, error) {
			return catalog.Save(ctx, d, catalog.NameOf("main"), c, catalog.Options{})
		}})
	}
	b.session = cache.Open(m.t.Context(), cfg)
	none, err := layout.Patterns(nil)
	must(m.t, err)
	b.Saved = NewSaved(m.t.Context(), m.local, b.session, Options{
		Save: true, Exclude: none, Temp: m.temp, Trim: m.trim, Warn: b.warn,
		Begin: func(what string) func(string, error) {
			if m.begin != nil {
				m.begin(what)
			}
			return func(string, error) {}
		},
	})
	return b
}

func (b *building) warn(msg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warned = append(b.warned, msg)
}

// settle waits until what is being saved is written down.
func (b *building) settle() {
	b.m.t.Helper()
	must(b.m.t, wait(b.m.t.Context(), b.going("")))
}

// step is a RUN step by itself, with all that is done afterwards. What is written is new to whoever looks at times.
func (b *building) step(k Key, files map[string]string) {
	b.m.t.Helper()
	m := acquire(b.m.t, b, k, Shared)
	write(b.m.t, m.Dir(), files)
	release(b.m.t, m)
	b.settle()
}

// end saves the build.
func (b *building) end() {
	b.m.t.Helper()
	b.Flush(b.m.t.Context())
	b.session.Save(b.m.t.Context())
	if err := b.session.Err(); err != nil && !b.m.quiet {
		b.m.t.Errorf("not all was saved: %v", err)
	}
	b.kill()
}

// kill ends the build without writing its catalog.
func (b *building) kill() {
	b.Close()
	b.session.Close()
}

// once is a build of one step.
func (m *machine) once(k Key, files map[string]string) {
	m.t.Helper()
	b := m.build()
	b.step(k, files)
	b.end()
}

// restored gives the files that an empty machine gets.
func (d *depot) restored(k Key) map[string]string {
	d.t.Helper()
	m := newMachine(d.t, d)
	b := m.build()
	defer b.kill()
	mount := acquire(d.t, b, k, Shared)
	defer release(d.t, mount)
	if len(b.warned) > 0 {
		d.t.Errorf("restoring: %q", b.warned)
	}
	return filesIn(d.t, mount.Dir())
}

// filesIn reads all files below a directory.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		out[rel] = string(b)
		return err
	}))
	return out
}

// wants checks that there are the files of all maps, and no others.
func wants(t *testing.T, what string, got map[string]string, want ...map[string]string) {
	t.Helper()
	all := map[string]string{}
	for _, w := range want {
		maps.Copy(all, w)
	}
	var wrong []string
	for name := range all {
		if data, ok := got[name]; !ok {
			wrong = append(wrong, "no "+name)
		} else if data != all[name] {
			wrong = append(wrong, "other "+name)
		}
	}
	for name := range got {
		if _, ok := all[name]; !ok {
			wrong = append(wrong, "there is "+name)
		}
	}
	if slices.Sort(wrong); len(wrong) > 0 {
		t.Errorf("%s: %s", what, strings.Join(wrong[:min(5, len(wrong))], ", "))
	}
}

// at is where a file lies that does not change what kind of mount it is.
func at(k Key, name string) string {
	if k.ID == united.ID {
		return "cache/download/" + name
	}
	return "lib/" + name
}

// files are n files for a mount. Those of the same name always have the same contents.
func files(k Key, prefix string, n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		name := fmt.Sprint(prefix, i)
		out[at(k, name)] = strings.Repeat("contents of "+name+"\n", 100)
	}
	return out
}

// both runs a test with a mount of either kind.
func both(t *testing.T, test func(t *testing.T, k Key)) {
	for name, k := range map[string]Key{"united": united, "apart": apart} {
		t.Run(name, func(t *testing.T) { test(t, k) })
	}
}

// TestSavedRoundTrip: what a build leaves an empty machine has, and one that changes nothing writes nothing.
func TestSavedRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, k Key) {
		d := newDepot(t)
		m := newMachine(t, d)
		m.once(k, files(k, "a", 30))
		wants(t, "an empty machine", d.restored(k), files(k, "a", 30))
		if row := d.row(k); row == nil || row.United != (k.ID == united.ID) || row.Files != 30 || len(row.Segments) != 1 {
			t.Errorf("the catalog says %+v", row)
		}
		d.traffic()
		m.once(k, nil)
		if packs, writes := d.traffic(); packs != 0 || writes != 0 {
			t.Errorf("a build without changes sent %d bytes of packs, %d blobs and documents in all", packs, writes)
		}
		wants(t, "an empty machine", d.restored(k), files(k, "a", 30))
	})
}
