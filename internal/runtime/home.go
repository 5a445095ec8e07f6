package runtime

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"
)

// withHome sets HOME as runc does, to what the image's passwd says and to / for a user that it does not know: crun leaves
// it unset for those.
func withHome(spec Spec) []string {
	if slices.ContainsFunc(spec.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return spec.Env
	}
	name := spec.User
	if name == "" {
		name = "0"
	}
	home := "/"
	if f, err := openIn(spec.Root, "/etc/passwd"); err == nil {
		defer f.Close()
		// Only who has no name may be missing there; the executor refuses others.
		if u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, io.LimitReader(f, 10<<20), strings.NewReader("")); err == nil && u.Home != "" {
			home = u.Home
		}
	}
	return append(slices.Clone(spec.Env), "HOME="+home)
}

// openIn opens a regular file of a root file system.
func openIn(root, name string) (*os.File, error) {
	path, err := fs.RootPath(root, name)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
		return nil, os.ErrNotExist
	}
	return os.Open(path)
}
