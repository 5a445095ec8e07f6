package cachemount

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// TestSecretsAreFound wherever they lie, across the borders of reads too.
func TestSecretsAreFound(t *testing.T) {
	s := secretsOf([][]byte{[]byte("a-token"), []byte("an-other"), []byte(" s3cret\x00t0ken\n")})
	secret := []byte("s3cret\x00t0ken")
	border := s.longest + secretChunk
	data := bytes.Repeat([]byte("."), 3*border)
	var buf []byte
	for _, at := range slices.Concat([]int{0, len(data) - len(secret)}, around(border, 40), around(2*border-s.longest+1, 40)) {
		copy(data[at:], secret)
		for _, r := range []io.Reader{bytes.NewReader(data), iotest.HalfReader(bytes.NewReader(data)), bytes.NewReader(data[:at+len(secret)])} {
			if found, err := s.inReader(r, &buf); err != nil || !found {
				t.Errorf("at %d of %d: %v, %v", at, len(data), found, err)
			}
		}
		data[at+len(secret)/2]++
		if found, err := s.inReader(bytes.NewReader(data), &buf); err != nil || found {
			t.Errorf("found where it is not, at %d: %v", at, err)
		}
		copy(data[at:], bytes.Repeat([]byte("."), len(secret)))
	}
	broken := errors.New("disk gone")
	if _, err := s.inReader(iotest.ErrReader(broken), &buf); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

func around(at, n int) (out []int) {
	for i := -n; i <= n; i++ {
		out = append(out, at+i)
	}
	return out
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
