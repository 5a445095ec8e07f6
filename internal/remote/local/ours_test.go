package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"larder/internal/fault"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

// write puts a file into a directory, and makes the directories above it.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// list gives the files below a directory with what is in them.
func list(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		out.WriteString(d.Type().String() + " " + rel)
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out.WriteString(" " + string(b))
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// refused expects that neither New nor a write to a Store that was made before takes the directory, and that nothing in it changes.
func refused(t *testing.T, dir string, make func(), words ...string) {
	t.Helper()
	before, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	make()
	was := list(t, dir)
	_, err = New(dir)
	_, put := before.Put(t.Context(), storetest.Upload([]byte("new")))
	for what, err := range map[string]error{"New": err, "Put": put, "Delete": before.Delete(t.Context(), storetest.Describe([]byte("new")).Digest)} {
		if fault.Of(err) != fault.Usage || !errors.Is(err, remote.ErrFinal) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		for _, w := range append(words, dir) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not said: %v", what, w, err)
			}
		}
	}
	if now := list(t, dir); now != was {
		t.Errorf("was:\n%s\nis:\n%s", was, now)
	}
}

// TestSomebodyElsesDirectory: a project of its own is no cache, whatever its files are called.
func TestSomebodyElsesDirectory(t *testing.T) {
	for name, files := range map[string][]string{
		"a project":             {"package.json", "index.json"},
		"blobs alone":           {"blobs/mine"},
		"something beside ours": {".larder/tmp/x", "blobs/sha256/x", "notes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			refused(t, dir, func() {
				for _, f := range files {
					write(t, filepath.Join(dir, f), `{"pages":["my own data"]}`)
				}
			}, "not empty", "oci-layout", "need not exist")
		})
	}
	// What is left of a first write that was interrupted, and what a new file system has.
	dir := t.TempDir()
	for _, d := range []string{"lost+found", ".larder/tmp", "blobs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	store(t, s, "tag")
	if _, err := s.Manifest(t.Context(), "tag"); err != nil {
		t.Error(err)
	}
}

// TestLinks: what a checkout has in the cache's place may point anywhere.
func TestLinks(t *testing.T) {
	for _, name := range []string{".larder", ".larder/tmp", ".larder/lock", ".larder/swept", "blobs", "blobs/sha256", "index.json", "oci-layout"} {
		t.Run(name, func(t *testing.T) {
			dir, elsewhere := filepath.Join(t.TempDir(), "cache"), t.TempDir()
			write(t, filepath.Join(elsewhere, "victim"), "important")
			was := list(t, elsewhere)
			path := filepath.Join(dir, name)
			refused(t, dir, func() {
				write(t, filepath.Join(dir, "oci-layout"), "{}")
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				target := filepath.Join(elsewhere, "victim")
				if strings.HasPrefix(name, "blobs") || name == ".larder" || name == ".larder/tmp" {
					target = elsewhere
				}
				os.Remove(path)
				if err := os.Symlink(target, path); err != nil {
					t.Fatal(err)
				}
			}, path+" is a link", "remove it")
			if now := list(t, elsewhere); now != was {
				t.Errorf("was:\n%s\nis:\n%s", was, now)
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "cache")
	refused(t, dir, func() { write(t, filepath.Join(dir, ".larder"), "") }, ".larder is no directory")
	dir = filepath.Join(t.TempDir(), "cache")
	refused(t, dir, func() { write(t, filepath.Join(dir, "index.json", "x"), "") }, "index.json is no file")
}

// TestLinksBesideBlobs: a link in a blob's place is no blob, and stays what it is until the blob comes. A pipe does not hold anybody up.
func TestLinksBesideBlobs(t *testing.T) {
	s := open(t)
	store(t, s, "tag")
	old := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "hello")
	desc, pipe := storetest.Describe([]byte("hello")), storetest.Describe([]byte("HELLO"))
	path, _ := s.blob(desc.Digest)
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	fifo, _ := s.blob(pipe.Digest)
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"link", "dangling"} {
		target := victim
		if link == "dangling" {
			target = filepath.Join(filepath.Dir(victim), "new")
		}
		if err := os.Symlink(target, s.path(".larder", "tmp", link)); err != nil {
			t.Fatal(err)
		}
	}
	age(t, s)
	if err := os.Chtimes(victim, old, old); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispecs.Descriptor{desc, pipe} {
		if ok, err := s.Has(t.Context(), d); ok || err != nil {
			t.Error(ok, err)
		}
		if _, err := storetest.Read(t.Context(), s, d); !errors.Is(err, remote.ErrDamaged) {
			t.Error(err)
		}
	}
	if err := s.DeleteManifest(t.Context(), "tag"); err != nil { // sweeps
		t.Error(err)
	}
	if sent, err := s.Put(t.Context(), storetest.Upload([]byte("hello"))); !sent || err != nil {
		t.Error(sent, err)
	}
	if _, err := storetest.Read(t.Context(), s, desc); err != nil {
		t.Error(err)
	}
	st, err := os.Stat(victim)
	if err != nil || !st.ModTime().Equal(old) {
		t.Error(st, err)
	}
	if got := list(t, filepath.Dir(victim)); strings.Contains(got, "new") || !strings.Contains(got, "victim hello") {
		t.Error(got)
	}
}

// TestDamagedIndex: what nobody could read is kept, along with all blobs, for a time.
func TestDamagedIndex(t *testing.T) {
	for name, rubbish := range map[string]string{"torn": `{"schemaVersion":2,"mani`, "another document": `{"pages":["my own data"]}`} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			_, layer := store(t, s, "lost")
			write(t, s.path("index.json"), rubbish)
			age(t, s)
			if _, err := s.Manifest(t.Context(), "lost"); !errors.Is(err, remote.ErrDamaged) || !strings.Contains(err.Error(), "index.json.damaged-") {
				t.Error(err)
			}
			store(t, s, "new")
			aside, err := filepath.Glob(s.path("index.json.damaged-*"))
			if err != nil || len(aside) != 1 {
				t.Fatal(aside, err)
			}
			if b, err := os.ReadFile(aside[0]); err != nil || string(b) != rubbish {
				t.Errorf("%q, %v", b, err)
			}
			// The next sweeps as well leave the blobs.
			age(t, s)
			store(t, s, "new")
			age(t, s)
			if err := s.DeleteManifest(t.Context(), "new"); err != nil {
				t.Error(err)
			}
			if _, err := storetest.Read(t.Context(), s, layer); err != nil {
				t.Error(err)
			}
			// Until it was long ago.
			old := time.Now().Add(-spared - time.Minute)
			if err := os.Chtimes(aside[0], old, old); err != nil {
				t.Fatal(err)
			}
			store(t, s, "new")
			age(t, s)
			if err := s.DeleteManifest(t.Context(), "new"); err != nil {
				t.Error(err)
			}
			if _, err := storetest.Read(t.Context(), s, layer); !errors.Is(err, remote.ErrNotFound) {
				t.Error(err)
			}
		})
	}
}
