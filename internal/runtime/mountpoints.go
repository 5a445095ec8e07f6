package runtime

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/continuity/fs"
)

// makeMountPoints makes the directories that stay in the root file system after the container is gone: those of the
// file systems that every container has, and the parents of others. The runtime would make them too, but crun before
// 1.9 gives some the sticky bit, and a layer shall not depend on the runtime. The mount points themselves are left to
// the runtime, because the executor removes again what was not there before.
func makeMountPoints(spec Spec) error {
	dests := map[string]bool{"/proc": true, "/dev": true, "/sys": true}
	own := []string{"/etc/resolv.conf", "/etc/hosts"}
	for _, m := range spec.Mounts {
		dest := path.Clean("/" + m.Dest)
		dests[dest] = true
		own = append(own, dest)
	}
	dirs := []string{"/proc", "/dev", "/sys"}
	if !spec.RemoveStubs {
		for _, dest := range own {
			if dir := outermost(path.Dir(dest), dests); dir != "/" {
				dirs = append(dirs, dir)
			}
		}
	}
	for _, dir := range dirs {
		real, err := fs.RootPath(spec.Root, dir)
		if err == nil {
			err = os.MkdirAll(real, 0o755)
		}
		if err != nil {
			return fmt.Errorf("mount point %s: %w", dir, err)
		}
	}
	return nil
}

// outermost cuts a directory at the first of its components that something is mounted on: what lies below is made
// there, not in the root.
func outermost(dir string, dests map[string]bool) string {
	at := "/"
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		next := path.Join(at, name)
		if name == "" || dests[next] {
			break
		}
		at = next
	}
	return at
}
