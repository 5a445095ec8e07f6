package cachemount

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestSecretsAreFound wherever they lie, across the borders of reads too.
func TestSecretsAreFound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		secret := noise(1, rapid.IntRange(minSecret, 300).Draw(rt, "length"))
		s := secretsOf([][]byte{[]byte("another-token"), secret})
		secret = bytes.TrimSpace(secret)
		if len(secret) < minSecret {
			rt.Skip("white space")
		}
		chunk := s.longest + secretChunk
		size := rapid.IntRange(len(secret), 3*chunk).Draw(rt, "size")
		data := bytes.Repeat([]byte("."), size)
		at := rapid.OneOf(rapid.IntRange(0, size-len(secret)), rapid.Custom(func(t *rapid.T) int {
			return min(size-len(secret), max(0, chunk-rapid.IntRange(0, 2*len(secret)).Draw(t, "before the border")))
		})).Draw(rt, "at")
		copy(data[at:], secret)
		var buf []byte
		for _, r := range []io.Reader{bytes.NewReader(data), iotest.HalfReader(bytes.NewReader(data))} {
			if found, err := s.inReader(r, &buf); err != nil || !found {
				rt.Fatalf("at %d of %d: %v, %v", at, size, found, err)
			}
		}
		data[at+len(secret)/2]++
		if found, err := s.inReader(bytes.NewReader(data), &buf); err != nil || found {
			rt.Fatalf("found where it is not: %v", err)
		}
	})
}

func TestSecretsAreNotSaved(t *testing.T) {
	const secret = "hunter2-hunter2"
	w := newWorld(t)
	dir := t.TempDir()
	big := noise(1, 3<<20)
	copy(big[2<<20:], secret)
	write(t, dir, map[string]string{
		"fine": "nothing to see", "auth.json": `{"token":"` + secret + `"}`, "d/big": string(big), "d/other": "o", "short": "pin 1234",
		"https:" + secret + "@host/index": "x", "attr": "a", "linked": secret, "clean/" + secret + ".lock": "",
	})
	must(t, os.Link(filepath.Join(dir, "linked"), filepath.Join(dir, "d/linked too")))
	must(t, os.Symlink("/login?"+secret, filepath.Join(dir, "link")))
	must(t, unix.Setxattr(filepath.Join(dir, "attr"), "user.token", []byte(secret), 0))
	must(t, os.Mkdir(filepath.Join(dir, "marked"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "marked/in"), nil, 0o644))
	must(t, unix.Setxattr(filepath.Join(dir, "marked"), "user.token", []byte(secret), 0))
	opt := CaptureOptions{Secrets: [][]byte{[]byte("1234"), []byte(secret + "\n"), nil}}
	wantOut := []string{"attr", "auth.json", "clean/***.lock", "d/big", "d/linked too", "https:***@host", "link", "linked", "marked"}
	wantIn := []string{"d/other", "fine", "short"}
	first, err := w.capture(dir, nil, nil, opt)
	must(t, err)
	got := first
	for range 2 {
		if !slices.Equal(got.LeftOut, wantOut) {
			t.Errorf("left out %q, want %q", got.LeftOut, wantOut)
		}
		var in []string
		for path := range filesOf(t, got.Next) {
			in = append(in, path)
		}
		if slices.Sort(in); !slices.Equal(in, wantIn) {
			t.Errorf("saved %q, want %q", in, wantIn)
		}
		if strings.Contains(tell(t, got.Next), secret) || len(got.Next.Pieces) != 3 || len(w.stored) != 3 || got.Files != 3 {
			t.Errorf("%+v\n%s", got, tell(t, got.Next))
		}
		// The second time, with stamps: they are still left out.
		got, err = w.capture(dir, first.Next, aged(got.Stamps), opt)
		must(t, err)
	}
	if _, err := w.capture(filepath.Join(dir, "marked"), nil, nil, opt); err == nil {
		t.Error("an attribute of the mount's own directory was saved")
	}
}

func TestExclude(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "keep/a": "2", "drop/a/b": "3", "keep/lock": "4"})
	first := w.captured(dir, nil, nil)
	opt := CaptureOptions{Exclude: func(path string, dir bool) bool {
		return dir && path == "drop" || !dir && filepath.Base(path) == "lock"
	}}
	got, err := w.capture(dir, first.Next, first.Stamps, opt)
	must(t, err)
	if files := filesOf(t, got.Next); len(files) != 2 || files["a"] == nil || files["keep/a"] == nil || got.Files != 2 || got.Had != 4 || len(got.LeftOut) != 0 || len(got.Next.Pieces) != 2 {
		t.Errorf("%+v\n%s", got, tell(t, got.Next))
	}
	if n, err := got.Next.Tree.Lookup("drop"); n != nil || err != nil {
		t.Error("the directory is still there", err)
	}
}
