package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
	"larder/internal/remote"
)

func testNothing(t *testing.T, s remote.Store) {
	if s.Name() == "" || strings.Contains(s.Name(), "@") {
		t.Errorf("name %q", s.Name())
	}
	_, err := s.Manifest(t.Context(), "nothing")
	want(t, err, remote.ErrNotFound, "a document of an empty store")
	_, err = s.Manifest(t.Context(), digest.FromString("nothing").String())
	want(t, err, remote.ErrNotFound, "a document of an empty store, by digest")
	if names, err := s.Names(t.Context(), ""); err != nil || len(names) != 0 {
		t.Errorf("names of an empty store: %v, %v", names, err)
	}
	if err := s.DeleteManifest(t.Context(), "nothing"); err != nil && !errors.Is(err, remote.ErrUnsupported) {
		t.Errorf("delete a document of an empty store: %v", err)
	}
}

func testDocuments(t *testing.T, s remote.Store) {
	ctx := t.Context()
	config, layer := Put(t, s, []byte("config")), Put(t, s, Bytes(1, 5000))
	doc := Document("one", config, layer)
	v, err := s.PutManifest(ctx, "larder-main.x_1", doc, remote.Absent)
	if err != nil || v == remote.Absent || v == remote.Any {
		t.Fatalf("version %q, %v", v, err)
	}
	got, err := s.Manifest(ctx, "larder-main.x_1")
	if err != nil || !bytes.Equal(got.Bytes, doc) || got.Version != v {
		t.Errorf("%q instead of %q, %v", got.Version, v, err)
	}
	byDigest, err := s.Manifest(ctx, digest.FromBytes(doc).String())
	if err != nil || !bytes.Equal(byDigest.Bytes, doc) {
		t.Errorf("by digest: %v", err)
	}
	// One blob may be named twice, and by two documents.
	if _, err := s.PutManifest(ctx, "twice", Document("two", config, layer, layer), remote.Absent); err != nil {
		t.Error(err)
	}
	if got, err := s.Manifest(ctx, "larder-main.x_1"); err != nil || Note(t, got) != "one" {
		t.Error(err)
	}
	// The blobs can be read by who read the document.
	if got, err := Read(ctx, s, layer); err != nil || !bytes.Equal(got, Bytes(1, 5000)) {
		t.Error(err)
	}
}

func testVersions(t *testing.T, s remote.Store) {
	ctx := t.Context()
	config := Put(t, s, []byte("{}"))
	put := func(note string, old remote.Version) (remote.Version, error) {
		return s.PutManifest(ctx, "tag", Document(note, config), old)
	}
	now := func() string {
		t.Helper()
		doc, err := s.Manifest(ctx, "tag")
		if err != nil {
			t.Fatal(err)
		}
		return Note(t, doc)
	}
	_, err := put("zero", remote.Version(digest.FromString("never")))
	want(t, err, remote.ErrConflict, "replace what is not there")
	one, err := put("one", remote.Absent)
	if err != nil {
		t.Fatal(err)
	}
	_, err = put("again", remote.Absent)
	want(t, err, remote.ErrConflict, "create what is there")
	two, err := put("two", one)
	if err != nil || two == one {
		t.Fatal(two, err)
	}
	_, err = put("three", one)
	want(t, err, remote.ErrConflict, "replace an older version")
	if got := now(); got != "two" {
		t.Errorf("%q after refused writes", got)
	}
	any, err := put("any", remote.Any)
	if err != nil || now() != "any" {
		t.Errorf("any: %v", err)
	}
	if doc, err := s.Manifest(ctx, "tag"); err != nil || doc.Version != any {
		t.Errorf("version %q instead of %q, %v", doc.Version, any, err)
	}
	back, err := put("two", any)
	if err != nil || now() != "two" {
		t.Errorf("back: %v", err)
	}
	if _, err := put("two", back); err != nil {
		t.Errorf("the same bytes again: %v", err)
	}
	if _, err := s.PutManifest(ctx, "fresh", Document("f", config), remote.Any); err != nil {
		t.Errorf("any where nothing is: %v", err)
	}
}

func testMissingBlobs(t *testing.T, s remote.Store) {
	ctx := t.Context()
	config := Put(t, s, []byte("{}"))
	var there, lost []ocispecs.Descriptor
	for i := range 5 {
		there = append(there, Put(t, s, Bytes(uint64(100+i), 100)))
		lost = append(lost, Describe(Bytes(uint64(200+i), 100)))
	}
	doc := Document("lost", slices.Concat([]ocispecs.Descriptor{config}, there, lost)...)
	for _, old := range []remote.Version{remote.Absent, remote.Any} {
		_, err := s.PutManifest(ctx, "tag", doc, old)
		var missing *remote.MissingError
		if !errors.As(err, &missing) {
			t.Fatalf("a document whose blobs are missing: %v", err)
		}
		for _, d := range missing.Digests {
			if !slices.ContainsFunc(lost, func(l ocispecs.Descriptor) bool { return l.Digest == d }) {
				t.Errorf("%s is said to be missing", d)
			}
		}
	}
	_, err := s.PutManifest(ctx, "tag", Document("no config", lost[0]), remote.Absent)
	if !errors.As(err, new(*remote.MissingError)) {
		t.Errorf("a document whose config is missing: %v", err)
	}
	_, err = s.Manifest(ctx, "tag")
	want(t, err, remote.ErrNotFound, "what was refused")
	for i := range lost {
		Put(t, s, Bytes(uint64(200+i), 100))
	}
	if _, err := s.PutManifest(ctx, "tag", doc, remote.Absent); err != nil {
		t.Errorf("with all blobs: %v", err)
	}
	for _, b := range []string{"", "{}", "[]", "null", `{"schemaVersion":2,"config":{"digest":"x"}}`} {
		if _, err := s.PutManifest(ctx, "rubbish", []byte(b), remote.Any); err == nil {
			t.Errorf("%q was stored as a document", b)
		}
	}
}

func testNames(t *testing.T, s remote.Store) {
	ctx := t.Context()
	config := Put(t, s, []byte("{}"))
	all := []string{"0", "A", "larder", "larder-", "larder-a", "larder-a.p-1", "larder-b", "larder-z", "larder.x", "larder_x", "lardes", "latest", "z"}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(all)) {
		if _, err := s.PutManifest(ctx, all[i], Document(all[i], config), remote.Absent); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"", "l", "larder", "larder-", "larder-a", "larder-a.p-", "z", "zz", "nothing-", "larder-a.p-12"} {
		var expect []string
		for _, n := range all {
			if strings.HasPrefix(n, prefix) {
				expect = append(expect, n)
			}
		}
		slices.Sort(expect)
		if got, err := s.Names(ctx, prefix); err != nil || !slices.Equal(got, expect) {
			t.Errorf("%q: %q instead of %q, %v", prefix, got, expect, err)
		}
	}
}

func testBadNames(t *testing.T, s remote.Store) {
	config := Put(t, s, []byte("{}"))
	for _, name := range []string{"", ".", "..", "a/b", "../x", "-a", ".a", "a b", "a\x00", "ä", strings.Repeat("a", 129), "sha256:12"} {
		if _, err := s.PutManifest(t.Context(), name, Document("x", config), remote.Any); err == nil {
			t.Errorf("a document was stored as %q", name)
		}
	}
	long := strings.Repeat("a", 128)
	if _, err := s.PutManifest(t.Context(), long, Document("x", config), remote.Absent); err != nil {
		t.Errorf("128 letters: %v", err)
	}
	if _, err := s.Manifest(t.Context(), long); err != nil {
		t.Errorf("128 letters: %v", err)
	}
}

func testDeleteDocument(t *testing.T, s remote.Store) {
	ctx := t.Context()
	config := Put(t, s, []byte("{}"))
	layer := Put(t, s, Bytes(2, 2000))
	var versions []remote.Version
	for _, name := range []string{"keep", "drop"} {
		v, err := s.PutManifest(ctx, name, Document(name, config, layer), remote.Absent)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, v)
	}
	if err := s.DeleteManifest(ctx, "drop"); errors.Is(err, remote.ErrUnsupported) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	_, err := s.Manifest(ctx, "drop")
	want(t, err, remote.ErrNotFound, "a deleted document")
	if names, err := s.Names(ctx, ""); err != nil || !slices.Equal(names, []string{"keep"}) {
		t.Errorf("names %q, %v", names, err)
	}
	if err := s.DeleteManifest(ctx, "drop"); err != nil {
		t.Errorf("delete again: %v", err)
	}
	if _, err := s.Manifest(ctx, "keep"); err != nil {
		t.Error(err)
	}
	if _, err := Read(ctx, s, layer); err != nil {
		t.Errorf("a blob that another document names: %v", err)
	}
	_, err = s.PutManifest(ctx, "drop", Document("more", config), versions[1])
	want(t, err, remote.ErrConflict, "replace what was deleted")
	if _, err := s.PutManifest(ctx, "drop", Document("drop", config), remote.Absent); err != nil {
		t.Errorf("create again: %v", err)
	}
}

// testLargeDocument: what is over the limit is not stored, what is just below it is.
func testLargeDocument(t *testing.T, s remote.Store) {
	config := Put(t, s, []byte("{}"))
	empty := len(Document("", config))
	over := Document(strings.Repeat("x", registry.MaxManifest+1-empty), config)
	if len(over) != registry.MaxManifest+1 {
		t.Fatal(len(over))
	}
	if _, err := s.PutManifest(t.Context(), "tag", over, remote.Absent); err == nil {
		t.Errorf("a document of %d bytes was stored", len(over))
	}
	below := Document(strings.Repeat("x", registry.MaxManifest-100_000), config)
	if _, err := s.PutManifest(t.Context(), "tag", below, remote.Absent); err != nil {
		t.Fatal(err)
	}
	if doc, err := s.Manifest(t.Context(), "tag"); err != nil || !bytes.Equal(doc.Bytes, below) {
		t.Errorf("%d of %d bytes, %v", len(doc.Bytes), len(below), err)
	}
}

// testCompareAndSwap counts up one document from many goroutines. A conditional store loses none; others answer ErrConflict or
// success, and nothing else.
func testCompareAndSwap(t *testing.T, s remote.Store) {
	const writers, each = 32, 3
	ctx := t.Context()
	config := Put(t, s, []byte("{}"))
	var wrote atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				doc, err := s.Manifest(ctx, "counter")
				n := 0
				if err == nil {
					n, err = strconv.Atoi(strings.Split(Note(t, doc), " ")[0])
				} else if errors.Is(err, remote.ErrNotFound) {
					doc.Version, err = remote.Absent, nil
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				_, err = s.PutManifest(ctx, "counter", Document(fmt.Sprint(n+1, w), config), doc.Version)
				switch {
				case err == nil:
					wrote.Add(1)
					done++
				case !errors.Is(err, remote.ErrConflict):
					t.Errorf("writer %d: %v", w, err)
					return
				case !s.Conditional():
					done++
				default:
					time.Sleep(rand.N(5 * time.Millisecond))
				}
			}
		})
	}
	wg.Wait()
	doc, err := s.Manifest(ctx, "counter")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := strconv.ParseInt(strings.Split(Note(t, doc), " ")[0], 10, 64)
	if got > wrote.Load() || s.Conditional() && got != writers*each {
		t.Errorf("the count is %d after %d writes", got, wrote.Load())
	}
}
