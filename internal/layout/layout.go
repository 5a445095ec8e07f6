// Package layout holds what larder knows of the directories in which tools keep their caches: whether what several builds added to one can
// be united file by file, what may be trimmed by itself, what is not worth keeping, and what may hold secrets. It looks at names only.
//
// The knowledge stands in a table, tools.go, with the reason for each entry.
package layout

import (
	"path"
	"strings"

	"larder/internal/tree"
)

// Layout is what a cache mount is known to be. The zero Layout is that of an unknown one. Paths are relative to the mount's directory, without
// a slash in front.
type Layout struct {
	tool   *tool
	united bool
	target string // clean, with a slash in front
}

// Detect says what a mount is. Its contents decide; a place where a tool has its cache by habit, as id or target, counts where the contents do
// not speak against it, and for some tools it is needed, as their caches do not look like anything. An empty root speaks against nothing,
// one that cannot be listed against everything.
func Detect(id, target string, root *tree.Node) Layout {
	l := Layout{target: path.Join("/", target)}
	top, err := root.Entries()
	if err != nil {
		return l
	}
	for i := range tools {
		t := &tools[i]
		named := t.livesIn(l.target) || t.livesIn(path.Join("/", id))
		if !named && !t.sure {
			continue
		}
		if fits, err := t.fits(root); err != nil || !fits && !(named && len(top) == 0) {
			continue
		}
		apart, err := existsAny(root, t.apart)
		l.tool, l.united = t, t.united && !apart && err == nil
		return l
	}
	return l
}

// United tells whether the mount is content-addressed, or as good as: of what several writers made at once, all files may stand beside each
// other, at one path the file of any of them. Of any other mount only one writer's version is a state that its tool ever saw.
func (l Layout) United() bool { return l.united }

// part finds the tool whose cache a path lies in, and the path in there. In an unknown mount that is one that has its usual place further down
// (/root/.cache is pip's and others'); base is how far down.
func (l Layout) part(name string) (t *tool, base, rest string) {
	if l.tool != nil {
		return l.tool, "", name
	}
	return partAt(l.target, name)
}

// Unit names what path goes or stays with when a mount is trimmed: the same name for paths that are of no use without each other. Mostly that is the
// path itself. It is the path of a directory, or something that is no path, or "." for all there is.
func (l Layout) Unit(name string) string {
	t, base, rest := l.part(name)
	if t != nil {
		if u := t.unitOf(rest); u != "" {
			return path.Join(base, u)
		}
	}
	if whole(l.target) != "" {
		return "."
	}
	if u := whole(name); u != "" {
		return u
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} { // sqlite's
		if s, ok := strings.CutSuffix(name, suffix); ok {
			return s
		}
	}
	return name
}

// Keep tells whether a file is never trimmed: too small to matter and better there, or part of something that only its tool can trim.
func (l Layout) Keep(name string) bool {
	t, _, rest := l.part(name)
	return t != nil && (matchAny(t.keep, rest) || t.restStays && t.unitOf(rest) == "")
}

// Leads tells whether a file names others in the mount by which its tool would miss them: it goes before they do.
func (l Layout) Leads(name string) bool {
	t, _, rest := l.part(name)
	return t != nil && matchAny(t.leads, rest)
}

// Excluded tells whether a path is left out when a mount is saved, and all that is below it: what cannot be united file by file (clones of
// repositories), half-made files, and what is quickly made anew. The step's directory keeps it on this machine.
func (l Layout) Excluded(name string) bool {
	return l.tool != nil && matchAny(l.tool.excluded, name)
}

// whole finds a directory that a path is, or is in, that is not to be torn wherever it is; "" for none.
func whole(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		switch {
		case p == "node_modules", p == "site-packages", p == "dist-packages", strings.HasSuffix(p, ".git"), isModule(p):
			return strings.Join(parts[:i+1], "/")
		case p == "objects" && i+2 < len(parts) && (parts[i+1] == "pack" || parts[i+1] == "info" || len(parts[i+1]) == 2):
			return strings.Join(parts[:i+1], "/") // a bare git repository's
		}
	}
	return ""
}

// isModule tells whether a name is that of a directory in go's module cache.
func isModule(name string) bool {
	_, version, ok := strings.Cut(name, "@v")
	return ok && version != "" && version[0] >= '0' && version[0] <= '9'
}
