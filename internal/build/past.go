package build

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/internal/disk"
	"larder/internal/fault"
	"larder/internal/report"
)

// Bounds of what a local root keeps of builds: how many of one project and of all, and how large one may be, in bytes. The last build of a
// project stays beside many of another one, so that the next is compared with it.
const (
	maxBuilds   = 50
	maxProjects = 200
	maxBuild    = 4 << 20
)

// buildSuffix ends the name of a file that explains a build.
const buildSuffix = ".json.zst"

// Past is what a local root knows of earlier builds.
type Past struct{ dir string }

// OpenPast gives what is known of earlier builds in a local root, which need not be there; empty for the default. Nothing is locked: files are
// written as wholes.
func OpenPast(root string) (Past, error) {
	if root == "" {
		var err error
		if root, err = DefaultRoot(); err != nil {
			return Past{}, err
		}
	}
	return pastOf(root), nil
}

func pastOf(root string) Past { return Past{filepath.Join(root, "builds")} }

// kept is a build that is kept.
type kept struct {
	id string
	at time.Time // when it was written
}

// list gives what is kept in the order in which it was written, which the clock that IDs have need not have followed.
func (p Past) list() ([]kept, error) {
	files, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	var out []kept
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), buildSuffix)
		if !ok || strings.HasPrefix(id, disk.Temporary) || !f.Type().IsRegular() {
			continue
		}
		if st, err := f.Info(); err == nil { // else another build has just removed it
			out = append(out, kept{id, st.ModTime()})
		}
	}
	slices.SortFunc(out, func(a, b kept) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.id, b.id)) })
	return out, nil
}

// Builds lists the IDs of the builds that can be explained, in the order in which they were written.
func (p Past) Builds() ([]string, error) {
	list, err := p.list()
	var ids []string
	for _, k := range list {
		ids = append(ids, k.id)
	}
	return ids, err
}

// Explanation gives what became of the steps of a build that Builds lists.
func (p Past) Explanation(id string) (*report.Build, error) {
	data, err := disk.ReadFile(p.path(id), maxBuild)
	if err != nil {
		return nil, err
	}
	return report.Unmarshal(data)
}

func (p Past) path(id string) string { return filepath.Join(p.dir, id+buildSuffix) }

// last gives the last build of a project that can be read; nil for none.
func (p Past) last(project string) *report.Build {
	list, _ := p.list()
	for _, k := range slices.Backward(list) {
		if projectOf(k.id) == project {
			if b, err := p.Explanation(k.id); err == nil {
				return b
			}
		}
	}
	return nil
}

// put keeps a build, and forgets the oldest where there are many.
func (p Past) put(id string, data []byte) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	// What was written while the clock was ahead is older than what is written now.
	now := time.Now()
	before := now.Add(-time.Second)
	list, err := p.list()
	if err != nil {
		return err
	}
	for i, k := range list {
		if !k.at.Before(now) {
			os.Chtimes(p.path(k.id), before, before)
			list[i].at = before
		}
	}
	err = disk.Replace(p.path(id), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	p.forget(id, list)
	return nil
}

// forget removes the oldest builds of a list beside one that was just written.
func (p Past) forget(id string, list []kept) {
	list = slices.DeleteFunc(list, func(k kept) bool { return k.id == id })
	later := map[string]bool{projectOf(id): true}
	n := 1
	for _, k := range slices.Backward(list) {
		project := projectOf(k.id)
		n++
		if n > maxProjects || n > maxBuilds && later[project] {
			os.Remove(p.path(k.id))
		}
		later[project] = true
	}
}
