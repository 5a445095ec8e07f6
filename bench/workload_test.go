package main

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestEditsAreAllDifferent applies every edit that a bench may apply, on top of each other as it does, and insists
// that no state of a working copy comes twice: a builder would find it in its cache.
func TestEditsAreAllDifferent(t *testing.T) {
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			if w.name == "files" {
				// The directories that three edits touch, not all 50,000 files.
				w.maxDeps = 3
				w.generate = func(dir string) error {
					for _, d := range []int{1, 2, 3, fileDirs - 3, fileDirs - 2, fileDirs - 1} {
						if err := writeFileDir(dir, d, 0); err != nil {
							return err
						}
					}
					return nil
				}
			}
			dir := filepath.Join(t.TempDir(), "work")
			if err := w.copyTo("workloads", dir); err != nil {
				t.Fatal(err)
			}
			seen := map[[sha256.Size]byte]string{hashDir(t, dir): "start"}
			check := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				h := hashDir(t, dir)
				if before, ok := seen[h]; ok {
					t.Fatalf("%s gives the state of %s again", what, before)
				}
				seen[h] = what
			}
			for n := 1; n <= 3; n++ {
				check("a line", w.oneLine(filepath.Join(dir, w.lineFile(n)), n))
			}
			for n := 1; n <= w.maxDeps; n++ {
				check("a dependency", w.oneDep(dir, n))
			}
			for n := 1; n <= 3 && w.readme != ""; n++ {
				check("the README", addLine(filepath.Join(dir, w.readme), n))
			}
		})
	}
}

func TestGeneratedFilesAreTheSameEveryTime(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := writeFileDir(dir, 7, 0); err != nil {
			t.Fatal(err)
		}
	}
	if hashDir(t, a) != hashDir(t, b) {
		t.Error("two runs generate different files")
	}
}

// hashDir hashes names and contents.
func hashDir(t *testing.T, dir string) (sum [sha256.Size]byte) {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		content := sha256.Sum256(b)
		h.Write([]byte(rel))
		h.Write(content[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// TestOrderEditsTouchOneFile: what the scenarios of the workload say that no other step reads is all that changes.
func TestOrderEditsTouchOneFile(t *testing.T) {
	w, err := workloadByName("order")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "work")
	if err := w.copyTo("workloads", dir); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func() error{
		"src/main.jsx":      func() error { return w.oneLine(filepath.Join(dir, w.lineFile(1)), 1) },
		"README.md":         func() error { return addLine(filepath.Join(dir, w.readme), 1) },
		"package-lock.json": func() error { return w.oneDep(dir, 1) },
	} {
		aside := filepath.Join(t.TempDir(), "aside")
		if err := os.CopyFS(aside, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := edit(); err != nil {
			t.Fatal(err)
		}
		if hashDir(t, aside) == hashDir(t, dir) {
			t.Errorf("%s: nothing changed", name)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(aside, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if hashDir(t, aside) != hashDir(t, dir) {
			t.Errorf("%s is not all that changed", name)
		}
	}
}
