package solve_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// object is a file of a forest.
type object struct {
	kind     byte // 'f' file, 'd' directory, 'l' link, 'h' another name of the file at text, 'c' device of the number in text
	text     string
	mode     uint32
	uid, gid int
	xattrs   map[string]string
}

func (o *object) String() string {
	return fmt.Sprintf("%c %o %d:%d %q %q", o.kind, o.mode, o.uid, o.gid, o.text, o.xattrs)
}

// forest is a directory as the generator thinks of it: a context, a base image. Its paths are relative; the root has none. What has no
// directory above it is left out when it is written.
type forest map[string]*object

func (f forest) paths() []string { return slices.Sorted(maps.Keys(f)) }

// named lists the paths that an instruction or a script can name.
func (f forest) named() []string {
	return slices.DeleteFunc(f.paths(), func(p string) bool { return !utf8.ValidString(p) })
}

func (f forest) clone() forest {
	out := forest{}
	for p, o := range f {
		c := *o
		c.xattrs = maps.Clone(o.xattrs)
		out[p] = &c
	}
	return out
}

// below lists a path that is there and all under it.
func (f forest) below(p string) []string {
	var out []string
	for _, q := range f.paths() {
		if q == p || strings.HasPrefix(q, p+"/") {
			out = append(out, q)
		}
	}
	return out
}

func (f forest) remove(p string) {
	for _, q := range f.below(p) {
		delete(f, q)
	}
}

// take takes a path and all under it out.
func (f forest) take(p string) forest {
	out := forest{}
	for _, q := range f.below(p) {
		out[strings.TrimPrefix(strings.TrimPrefix(q, p), "/")] = f[q]
		delete(f, q)
	}
	return out
}

// put sets what was taken at another place.
func (f forest) put(p string, sub forest) {
	if len(sub) == 0 {
		return
	}
	f.remove(p)
	for q, o := range sub {
		f[path.Join(p, q)] = o
	}
}

// holds tells whether a path may have something in it.
func (f forest) holds(p string) bool {
	if p == "." || p == "" {
		return true
	}
	o := f[p]
	return o != nil && o.kind == 'd' && f.holds(path.Dir(p))
}

// write makes the forest a directory. Times are of the moment, and differ between two writings.
func (f forest) write(t testing.TB, dir string, rnd *rand.Rand) {
	t.Helper()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(os.MkdirAll(dir, 0o755))
	var made []string
	for _, links := range []bool{false, true} {
		for _, p := range f.paths() {
			o, at := f[p], filepath.Join(dir, p)
			if !f.holds(path.Dir(p)) || (o.kind == 'h') != links {
				continue
			}
			switch o.kind {
			case 'd':
				try(os.Mkdir(at, 0o755))
			case 'f':
				try(os.WriteFile(at, []byte(o.text), 0o644))
			case 'l':
				try(os.Symlink(o.text, at))
			case 'c':
				n, err := strconv.Atoi(o.text)
				try(err)
				try(unix.Mknod(at, unix.S_IFCHR|0o644, n))
			case 'h':
				if to := f[o.text]; to != nil && to.kind == 'f' && f.holds(path.Dir(o.text)) {
					try(os.Link(filepath.Join(dir, o.text), at))
				}
				continue
			}
			for k, v := range o.xattrs {
				if o.kind == 'f' || o.kind == 'd' {
					try(unix.Lsetxattr(at, k, []byte(v), 0))
				}
			}
			try(os.Lchown(at, o.uid, o.gid))
			if o.kind != 'l' {
				try(unix.Chmod(at, o.mode))
			}
			made = append(made, at)
		}
	}
	for _, at := range slices.Backward(made) {
		when := unix.NsecToTimespec(time.Now().Add(-time.Duration(rnd.IntN(1e9))).UnixNano())
		try(unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func (f forest) String() string {
	var b strings.Builder
	for _, p := range f.paths() {
		fmt.Fprintf(&b, "      %-20q %s\n", p, f[p])
	}
	return b.String()
}

// The pools are small, so that names, contents and modes of different layers collide.
var (
	dirNames  = []string{"d", "e", "lib"}
	fileNames = []string{"a", "b", "c", "a.sh", ".h", "s p", "n\nl", "\xc3\xa9"}
	texts     = []string{"", "one\n", "two\n", "one\n", "longer than the others\n", "x=1\necho sourced\n", "#!/bin/sh\necho run\n", "#!/bin/sh\ncat a\n"}
	fileModes = []uint32{0o644, 0o644, 0o644, 0o755, 0o600, 0o4755, 0o444, 0o2711, 0}
	dirModes  = []uint32{0o755, 0o755, 0o755, 0o700, 0o1777, 0o2775, 0o555}
	owners    = []int{0, 0, 0, 1000, 7}
)

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// chance is true once in n.
func chance(rnd *rand.Rand, n int) bool { return rnd.IntN(n) == 0 }

// grow makes a random forest of about n objects. Links lead to names of the pools, or to where: absolute paths.
func grow(rnd *rand.Rand, n int, where []string) forest {
	f := forest{}
	for range n {
		dirs := []string{""}
		for _, p := range f.paths() {
			if f[p].kind == 'd' && strings.Count(p, "/") < 2 {
				dirs = append(dirs, p)
			}
		}
		f.plant(rnd, pick(rnd, dirs), where)
	}
	return f
}

// plant puts something random into a directory, and gives its path.
func (f forest) plant(rnd *rand.Rand, dir string, where []string) string {
	name := pick(rnd, fileNames[:3])
	switch rnd.IntN(4) {
	case 0:
		name = pick(rnd, dirNames)
	case 1:
		name = pick(rnd, fileNames)
	}
	if chance(rnd, 30) {
		name = "\xff\xfe" // no text: no instruction can name it
	}
	p := path.Join(dir, name)
	f.remove(p)
	f[p] = sprout(rnd, slices.Contains(dirNames, name), f, where)
	return p
}

// sprout makes a random object.
func sprout(rnd *rand.Rand, dir bool, f forest, where []string) *object {
	o := &object{kind: 'f', mode: pick(rnd, fileModes), uid: pick(rnd, owners), gid: pick(rnd, owners), text: pick(rnd, texts)}
	if chance(rnd, 8) {
		o.xattrs = map[string]string{pick(rnd, []string{"user.x", "user.y"}): pick(rnd, []string{"", "1", "22"})}
	}
	if chance(rnd, 30) {
		dir = !dir
	}
	n := rnd.IntN(12)
	switch {
	case n >= 10:
		o.kind, o.mode, o.xattrs = 'l', 0o777, nil
		o.text = pick(rnd, []string{"a", "../a", "../d/b", "nowhere", pick(rnd, where)})
		if dir {
			o.text = pick(rnd, []string{"../e", ".", "/x/d", "/y/lib"})
		}
	case dir:
		o.kind, o.text, o.mode = 'd', "", pick(rnd, dirModes)
	case n == 9:
		if files := f.files(); len(files) > 0 {
			return &object{kind: 'h', text: pick(rnd, files)}
		}
	case n == 8 && chance(rnd, 3):
		o.kind, o.text = 'c', pick(rnd, []string{"259", "51201"}) // null, and one that has no driver
	}
	return o
}

func (f forest) files() []string {
	return slices.DeleteFunc(f.paths(), func(p string) bool { return f[p].kind != 'f' })
}
