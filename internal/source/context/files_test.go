package context

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
)

// read opens a file's contents as a layer's writer does.
func read(t testing.TB, src layer.Source, text string) (string, error) {
	t.Helper()
	d := key.Bytes([]byte(text))
	r, err := src.Open(t.Context(), d, int64(len(text)))
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(layer.Verified(r, d, int64(len(text)), "file"))
	return string(data), err
}

func TestContentsOfAnEditedContext(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("text"), 0o600))
	for name, c := range map[string]struct {
		edit func(p string) error
		same bool // the bytes can still be had
	}{
		"untouched":   {func(string) error { return nil }, true},
		"same size":   {func(p string) error { return os.WriteFile(p, []byte("TEXT"), 0o644) }, false},
		"shorter":     {func(p string) error { return os.Truncate(p, 2) }, false},
		"appended":    {func(p string) error { return os.WriteFile(p, []byte("text and more"), 0o644) }, true},
		"removed":     {os.Remove, false},
		"a directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, false},
		"a fifo":      {func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o644)) }, false},
		"a link":      {func(p string) error { return errors.Join(os.Remove(p), os.Symlink(secret, p)) }, false},
		"below a link": {func(p string) error {
			d := filepath.Dir(p)
			return errors.Join(os.RemoveAll(d), os.Symlink(filepath.Dir(secret), d), os.Rename(secret, filepath.Join(filepath.Dir(secret), "f")))
		}, false},
	} {
		for _, stepwise := range []bool{false, true} {
			must(t, os.WriteFile(secret, []byte("text"), 0o600))
			dir := t.TempDir()
			write(t, dir, map[string]string{"d/e/f": "text", "other": "other"})
			l, _, err := Scan(t.Context(), dir, Options{})
			must(t, err)
			must(t, c.edit(filepath.Join(dir, "d/e/f")))
			noOpenat2.Store(stepwise)
			got, err := read(t, l.Contents, "text")
			noOpenat2.Store(false)
			var changed *layer.ChangedError
			if c.same && (got != "text" || err != nil) || !c.same && !errors.As(err, &changed) {
				t.Errorf("%s (stepwise %v): %q, %v", name, stepwise, got, err)
			}
		}
	}
}

func TestContentsByAnotherName(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "text", "b/c": "text", "d": ""})
	l, _, err := Scan(t.Context(), dir, Options{})
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, "a")))
	if got, err := read(t, l.Contents, "text"); got != "text" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := read(t, l.Contents, ""); got != "" || err != nil {
		t.Errorf("empty: %q, %v", got, err)
	}
	if _, err := read(t, l.Contents, "absent"); !errors.Is(err, layer.ErrNoContent) {
		t.Errorf("absent: %v", err)
	}
}

// asNobody runs the calling test again in a process without privileges, because root may read everything. It tells
// whether that was necessary.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return false
	}
	tmp, err := os.MkdirTemp("", "larder-nobody-")
	must(t, err)
	defer os.RemoveAll(tmp)
	must(t, os.Chmod(tmp, 0o777))
	self, err := os.Open("/proc/self/exe") // its directory is root's
	must(t, err)
	defer self.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.ExtraFiles = []*os.File{self}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

func TestUnreadableFileIsNamed(t *testing.T) {
	if asNobody(t) {
		return
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"d/a": "text"})
	must(t, os.Chmod(filepath.Join(dir, "d/a"), 0))
	if _, _, err := Scan(t.Context(), dir, Options{}); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "d/a: ") {
		t.Fatal(err)
	}
	must(t, os.Chmod(filepath.Join(dir, "d"), 0))
	defer os.Chmod(filepath.Join(dir, "d"), 0o755)
	if _, _, err := Scan(t.Context(), dir, Options{}); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "d: ") {
		t.Fatal(err)
	}
	// Nobody asks for the directory itself here, so that it cannot be looked into does not matter.
	if _, _, err := Scan(t.Context(), dir, Options{Exclude: []string{"d", "!d/b"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Scan(t.Context(), dir, Options{Exclude: []string{"d"}}); err != nil {
		t.Fatal(err)
	}
}

// A file that somebody writes to all the time: appending is put up with, anything else is an error.
func TestFileThatChangesWhileItIsRead(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "log")
	body := make([]byte, 3<<20)
	must(t, os.WriteFile(p, body, 0o644))
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
		for err == nil {
			select {
			case <-stop:
				done <- f.Close()
				return
			default:
				_, err = f.Write([]byte("line\n"))
			}
		}
		done <- err
	}()
	l, _, err := Scan(t.Context(), dir, Options{Cache: later(t)})
	close(stop)
	must(t, <-done)
	must(t, err)
	root, err := l.Tree(t.Context())
	must(t, err)
	n, err := root.Lookup("log")
	must(t, err)
	if n.Size < int64(len(body)) {
		t.Fatalf("%d bytes", n.Size)
	}
	r, err := l.Contents.Open(t.Context(), n.Content, n.Size)
	must(t, err)
	defer r.Close()
	if _, err := io.Copy(io.Discard, layer.Verified(r, n.Content, n.Size, "log")); err != nil {
		t.Error(err)
	}
}
