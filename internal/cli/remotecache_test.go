package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/remote"
	"larder/internal/remote/local"
)

// A remoteWorld is a cache in a directory, with larder's commands for it.
type remoteWorld struct {
	t     *testing.T
	dir   string
	store remote.Store
	warns string // what the last command said on standard error
}

func newRemoteWorld(t *testing.T) *remoteWorld {
	t.Helper()
	w := &remoteWorld{t: t, dir: filepath.Join(t.TempDir(), "cache")}
	store, err := local.New(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w.store = store
	return w
}

// save records steps in a scope, each with a layer of so many bytes, used at the given time.
func (w *remoteWorld) save(scope string, used time.Time, steps ...string) {
	w.t.Helper()
	change := catalog.Change{Layers: map[key.Digest][]catalog.Blob{}}
	for i, step := range steps {
		content := []byte("layer of " + step + strings.Repeat("x", 1000))
		desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: int64(len(content))}
		_, err := w.store.Put(w.t.Context(), remote.Upload{Desc: desc, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}})
		if err != nil {
			w.t.Fatal(err)
		}
		identity := key.Bytes(content)
		r := &record.Record{
			Key: key.Bytes([]byte(scope + step)), Name: step, Created: used, Duration: time.Duration(i+1) * time.Second,
			Outputs: []record.Output{{Layers: []record.Layer{{Identity: identity, Pinned: true}}}},
		}
		change.Put = append(change.Put, catalog.Put{Record: r})
		change.Layers[identity] = []catalog.Blob{{Key: key.Bytes([]byte("as tar")), Desc: desc, DiffID: desc.Digest}}
	}
	data := &record.Record{Key: key.Bytes([]byte("data of " + scope)), Created: used, Data: []byte("x")}
	change.Put = append(change.Put, catalog.Put{Record: data})
	opt := catalog.Options{Now: func() time.Time { return used }}
	if _, err := catalog.Save(w.t.Context(), w.store, catalog.NameOf(scope), change, opt); err != nil {
		w.t.Fatal(err)
	}
}

// run runs a command below "larder cache" and gives what it printed.
func (w *remoteWorld) run(args ...string) (string, error) {
	w.t.Helper()
	var out bytes.Buffer
	stderr, err := os.CreateTemp(w.t.TempDir(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer stderr.Close()
	e := &env{out: &out, err: stderr, settings: &settings{}}
	stores := func(cmd *cobra.Command, _ []string, do func(context.Context, openStore, func(*catalog.Keys) catalog.Options) error) error {
		open := func(_ context.Context, ref cacheref.Ref) (remote.Store, error) {
			if ref.Dir != w.dir {
				return nil, fmt.Errorf("opened %s", ref.Text)
			}
			return w.store, nil
		}
		return do(cmd.Context(), open, func(keys *catalog.Keys) catalog.Options { return catalog.Options{Keys: keys} })
	}
	root := &cobra.Command{Use: "cache", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(pruneCommand(e, stores))
	root.AddCommand(remoteCommands(e, stores)...)
	root.SetArgs(args)
	err = root.ExecuteContext(w.t.Context())
	said, rerr := os.ReadFile(stderr.Name())
	if rerr != nil {
		w.t.Fatal(rerr)
	}
	w.warns = string(said)
	return out.String(), err
}

func (w *remoteWorld) must(args ...string) string {
	w.t.Helper()
	out, err := w.run(args...)
	if err != nil {
		w.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// drop deletes a blob behind the catalogs' back; spoil flips a byte in it.
func (w *remoteWorld) path(step string) string {
	return filepath.Join(w.dir, "blobs", "sha256", digest.FromBytes([]byte("layer of "+step+strings.Repeat("x", 1000))).Encoded())
}

func (w *remoteWorld) drop(step string) {
	w.t.Helper()
	if err := os.Remove(w.path(step)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *remoteWorld) spoil(step string) {
	w.t.Helper()
	b, err := os.ReadFile(w.path(step))
	if err != nil {
		w.t.Fatal(err)
	}
	b[5] ^= 1
	if err := os.WriteFile(w.path(step), b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func has(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}

func TestRemoteList(t *testing.T) {
	w := newRemoteWorld(t)
	has(t, w.must("ls", "--cache", w.dir), "Nothing has been written")
	if out := w.must("ls", "--cache", w.dir, "--json"); out != "[]\n" {
		t.Errorf("%q", out)
	}
	now := time.Now()
	w.save("main", now.Add(-3*time.Hour), "RUN a", "RUN b")
	w.save("feature/x", now, "RUN c")
	out := w.must("ls", "--cache", w.dir)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "feature/x ") || !strings.HasPrefix(lines[2], "main ") {
		t.Errorf("%s", out)
	}
	has(t, lines[0], "SCOPE", "RECORDS", "BLOBS", "SIZE", "LAST WRITTEN", "SIGNED BY")
	has(t, lines[2], " 3 ", " 2 ", "2.03 kB", "3 hours ago")
	var got []listed
	if err := json.Unmarshal([]byte(w.must("ls", "--cache", w.dir, "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1].Scope != "main" || got[1].Records != 3 || got[1].Blobs != 2 || got[1].Size != 2*1014 || got[1].Written == nil || got[1].Problem != "" {
		t.Errorf("%+v", got)
	}

	// A catalog that does not count: another scope's, copied here.
	doc, err := w.store.Manifest(t.Context(), catalog.ScopeTag("main"))
	if err != nil {
		t.Fatal(err)
	}
	odd := catalog.ScopeTag("odd")
	if _, err := w.store.PutManifest(t.Context(), odd, doc.Bytes, remote.Absent); err != nil {
		t.Fatal(err)
	}
	has(t, w.must("ls", "--cache", w.dir), "main", catalog.TagScope+odd)
	has(t, w.warns, "WARNING", odd)
	has(t, w.must("ls", "--cache", w.dir, "--json"), `"problem": "`)
	has(t, w.must("inspect", "--cache", w.dir), "RUN a")
	has(t, w.warns, "WARNING: left out")
	w.must("prune", "--cache", w.dir, "--all")
	has(t, w.must("ls", "--cache", w.dir), "Nothing has been written")
}

// TestImagesAreNotPruned: a repository has images beside its catalogs, some under tags that begin as those do.
func TestImagesAreNotPruned(t *testing.T) {
	w := newRemoteWorld(t)
	w.save("main", time.Now(), "RUN a")
	config := []byte("{}")
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	if _, err := w.store.Put(t.Context(), remote.Upload{Desc: desc, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(config)), nil
	}}); err != nil {
		t.Fatal(err)
	}
	image, err := json.Marshal(ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: desc, Layers: []ocispecs.Descriptor{desc}})
	if err != nil {
		t.Fatal(err)
	}
	tags := []string{"latest", "larder-2.0"}
	for _, tag := range tags {
		if _, err := w.store.PutManifest(t.Context(), tag, image, remote.Absent); err != nil {
			t.Fatal(err)
		}
	}
	if out := w.must("ls", "--cache", w.dir); strings.Contains(out+w.warns, "larder-2.0") {
		t.Errorf("an image is listed: %s%s", out, w.warns)
	}
	_, err = w.run("prune", "--cache", w.dir, "--all", "--cache-scope", "tag:latest")
	if fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "tag latest") {
		t.Error(err)
	}
	has(t, w.must("prune", "--cache", w.dir, "--all"), "Removed 2 records of 1 scope")
	for _, tag := range tags {
		if doc, err := w.store.Manifest(t.Context(), tag); err != nil || !bytes.Equal(doc.Bytes, image) {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

func TestRemoteInspect(t *testing.T) {
	w := newRemoteWorld(t)
	now := time.Now()
	w.save("main", now.Add(-48*time.Hour), "RUN echo \x1b[31mred\n  && true", "RUN "+strings.Repeat("long ", 40))
	w.save("other", now, "RUN other")
	out := w.must("inspect", "--cache", w.dir, "--cache-scope", "main")
	has(t, out, "RUN echo [31mred && true", "2 days ago", "long...", "1.04 kB", "1s", "2s", "and 1 record about")
	if strings.ContainsAny(out, "\x1b") || strings.Contains(out, "other") || len(strings.Split(strings.TrimSpace(out), "\n")) != 4 {
		t.Errorf("%s", out)
	}
	has(t, w.must("inspect", "--cache", w.dir, "-v", "--cache-scope", "main"), "(a destination) "+key.Bytes([]byte("data of main")).Hex()[:12])
	has(t, w.must("inspect", "--cache", w.dir), "RUN other", "RUN echo")
	var got []inspected
	if err := json.Unmarshal([]byte(w.must("inspect", "--cache", w.dir, "--json")), &got); err != nil {
		t.Fatal(err)
	}
	layers, data := 0, 0
	for _, g := range got {
		layers += len(g.Layers)
		data += g.Data
		if g.Scope == "" || g.Key.IsZero() || g.Made == nil || len(g.Layers) == 1 && (g.Size < 1000 || len(g.Layers[0].Copies) != 1) {
			t.Errorf("%+v", g)
		}
	}
	if len(got) != 5 || layers != 3 || data != 2 {
		t.Errorf("%+v", got)
	}
	if _, err := w.run("inspect", "--cache", w.dir, "--cache-scope", "nobody"); fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "larder cache ls") {
		t.Error(err)
	}
}

func TestRemoteVerify(t *testing.T) {
	w := newRemoteWorld(t)
	w.save("main", time.Now(), "RUN a", "RUN b", "RUN c")
	has(t, w.must("verify", "--cache", w.dir), "main: 4 records, 3 blobs, all there\n")
	has(t, w.must("verify", "--cache", w.dir, "--full"), "all there and undamaged")
	w.spoil("RUN b")
	has(t, w.must("verify", "--cache", w.dir), "all there")
	out, err := w.run("verify", "--cache", w.dir, "--full")
	if fault.Of(err) != fault.Build || !strings.Contains(err.Error(), "1 blob;") {
		t.Error(err)
	}
	has(t, out, "damaged, needed by RUN b")
	w.drop("RUN a")
	out, err = w.run("verify", "--cache", w.dir)
	if fault.Of(err) != fault.Build {
		t.Error(err)
	}
	has(t, out, "missing, needed by RUN a")
	if strings.Contains(out, "RUN b") || strings.Contains(out, "RUN c") {
		t.Error(out)
	}
	out, err = w.run("verify", "--cache", w.dir, "--full")
	if err == nil || strings.Count(out, "\n") != 2 || !strings.Contains(err.Error(), "2 blobs") {
		t.Error(out, err)
	}
}

func TestRemotePrune(t *testing.T) {
	w := newRemoteWorld(t)
	now := time.Now()
	w.save("main", now.Add(-20*24*time.Hour), "RUN old")
	w.save("main", now, "RUN new")
	w.save("feature", now.Add(-10*24*time.Hour), "RUN branch")
	has(t, w.must("prune", "--cache", w.dir), "Removed 0 records of 2 scopes\n")
	has(t, w.must("prune", "--cache", w.dir, "--cache-scope", "main", "--unused", "360h"), "Removed 1 record of 1 scope; 1 blob, 1.02 kB, no longer needed: the directory")
	out := w.must("inspect", "--cache", w.dir)
	has(t, out, "RUN new", "RUN branch")
	if strings.Contains(out, "RUN old") {
		t.Error(out)
	}
	has(t, w.must("prune", "--cache", w.dir, "--all", "--cache-scope", "feature"), "Removed 2 records of 1 scope; 1 blob")
	if out := w.must("ls", "--cache", w.dir); strings.Contains(out, "feature") || !strings.Contains(out, "main") {
		t.Error(out)
	}
	has(t, w.must("prune", "--cache", w.dir, "--all"), "Removed 2 records of 1 scope")
	has(t, w.must("ls", "--cache", w.dir), "Nothing has been written")
	if _, err := w.run("prune", "--cache", w.dir, "--cache-scope", "nobody"); fault.Of(err) != fault.Usage {
		t.Error(err)
	}
}

// TestRemoteTagScope: what --cache-to wrote under a tag of the user's choice is a scope as well.
func TestRemoteTagScope(t *testing.T) {
	w := newRemoteWorld(t)
	w.save("tag:buildcache", time.Now(), "RUN a")
	if strings.Contains(w.must("ls", "--cache", w.dir), "buildcache") {
		t.Error("a tag that larder did not make")
	}
	has(t, w.must("inspect", "--cache", w.dir, "--cache-scope", "tag:buildcache"), "RUN a")
	has(t, w.must("verify", "--cache", w.dir, "--cache-scope", "tag:buildcache"), "all there")
	has(t, w.must("prune", "--cache", w.dir, "--cache-scope", "tag:buildcache", "--all"), "Removed 2 records")
}

func TestRemoteUsage(t *testing.T) {
	w := newRemoteWorld(t)
	t.Setenv("LARDER_CACHE", w.dir)
	w.save("main", time.Now().Add(-time.Hour), "RUN a")
	has(t, w.must("ls"), "main") // the variable serves
	for _, args := range []string{
		"prune --cache-scope main", "prune --insecure-registry x", "prune --cache " + w.dir + " --max-size 1GB",
		"prune --cache " + w.dir + " --unused -1h", "prune --unused -1h",
		"inspect x", "ls --cache registry.example/app:tag", "verify --cache type=gha", "ls --cache-verify-key missing",
	} {
		if _, err := w.run(strings.Fields(args)...); fault.Of(err) != fault.Usage {
			t.Errorf("%s: %v", args, err)
		}
	}
	t.Setenv("LARDER_CACHE", "")
	if _, err := w.run("ls"); fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "--cache is missing") {
		t.Error(err)
	}
}

// TestDeleteUnnamed: of the blobs that a catalog gave up, only those go that no other document needs.
func TestDeleteUnnamed(t *testing.T) {
	w := newRemoteWorld(t)
	w.save("main", time.Now(), "RUN a", "RUN b")
	w.save("other", time.Now(), "RUN b")
	c, err := catalog.Load(t.Context(), w.store, catalog.NameOf("main"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dropped := c.Blobs(t.Context())
	if err := catalog.Remove(t.Context(), w.store, catalog.NameOf("main")); err != nil {
		t.Fatal(err)
	}
	deleted := &deletions{Store: w.store}
	gone, err := deleteUnnamed(t.Context(), deleted, dropped)
	if err != nil || len(gone) != 1 || len(deleted.digests) != 1 || deleted.digests[0].Encoded() != filepath.Base(w.path("RUN a")) {
		t.Errorf("%v, deleted %v, %v", gone, deleted.digests, err)
	}
	if _, err := deleteUnnamed(t.Context(), &deletions{Store: w.store, unreadable: true}, dropped); err == nil {
		t.Error("blobs are deleted though nobody knows what a document names")
	}
}

// deletions notes what is deleted instead of deleting it.
type deletions struct {
	remote.Store
	unreadable bool
	digests    []digest.Digest
}

func (d *deletions) Delete(_ context.Context, dg digest.Digest) error {
	d.digests = append(d.digests, dg)
	return nil
}

func (d *deletions) Manifest(ctx context.Context, name string) (remote.Document, error) {
	if d.unreadable {
		return remote.Document{}, remote.ErrDamaged
	}
	return d.Store.Manifest(ctx, name)
}
