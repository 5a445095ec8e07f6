package report

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"larder/internal/tree"
)

// change is what happened to a path between two builds.
type change struct {
	path string // as the step has it, without a slash in front
	verb verb
	how  string // "644 to 755", where it says more
	dir  bool
}

type verb int

const (
	changed verb = iota
	added
	removed
	mode
	owner
	target
	kind
	xattrs
)

// compare gives the changes from one tree to another of the same place, in the order of paths; none where one of them is not at
// hand. at is where a step has them. A directory that only one has is one change.
func compare(at, place string, was, is *tree.Node) []change {
	if was == nil || is == nil {
		return nil
	}
	d := &trees{place: place}
	d.nodes(at, was, is)
	return d.out
}

type trees struct {
	place string
	out   []change
}

func (d *trees) add(p string, v verb, how string, dir bool) {
	d.out = append(d.out, change{under(d.place, p), v, how, dir})
}

// under gives a path in an input as the step has it.
func under(place, p string) string { return strings.TrimPrefix(path.Clean(place+"/"+p), "/") }

func (d *trees) nodes(p string, was, is *tree.Node) {
	if was == is {
		return
	}
	a, err := was.Identity()
	b, err2 := is.Identity()
	if err != nil || err2 != nil || a == b { // what cannot be loaded is not told
		return
	}
	d.self(p, was, is)
	if was.Kind == tree.Dir && is.Kind == tree.Dir {
		d.names(p, was, is, d.nodes)
	}
}

// self compares two nodes alone.
func (d *trees) self(p string, was, is *tree.Node) {
	switch {
	case absent(was) && absent(is):
		return
	case absent(was):
		d.add(p, added, "", is.Kind == tree.Dir)
		return
	case absent(is):
		d.add(p, removed, "", was.Kind == tree.Dir)
		return
	case was.Kind != is.Kind:
		d.add(p, kind, fmt.Sprintf("%s to %s", was.Kind, is.Kind), is.Kind == tree.Dir)
		return
	}
	dir := is.Kind == tree.Dir
	switch {
	case was.Content != is.Content || was.Size != is.Size || was.Rdev != is.Rdev:
		d.add(p, changed, "", dir)
	case was.Link != is.Link:
		d.add(p, target, fmt.Sprintf("%s to %s", Quoted(was.Link), Quoted(is.Link)), dir)
	case was.Mode != is.Mode && is.Kind != tree.Symlink:
		d.add(p, mode, fmt.Sprintf("%o to %o", was.Mode, is.Mode), dir)
	case was.UID != is.UID || was.GID != is.GID:
		d.add(p, owner, fmt.Sprintf("%d:%d to %d:%d", was.UID, was.GID, is.UID, is.GID), dir)
	case !slices.EqualFunc(was.Xattrs, is.Xattrs, func(a, b tree.Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }):
		d.add(p, xattrs, "", dir)
	}
}

func absent(n *tree.Node) bool { return n == nil || n.Kind == tree.Whiteout }

// names compares what two directories list; both is called for a name that both have.
func (d *trees) names(p string, was, is *tree.Node, both func(p string, was, is *tree.Node)) {
	a, err := was.Entries()
	b, err2 := is.Entries()
	if err != nil || err2 != nil {
		return
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			d.self(tree.Join(p, a[0].Name), a[0].Node, nil)
			a = a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			d.self(tree.Join(p, b[0].Name), nil, b[0].Node)
			b = b[1:]
		default:
			both(tree.Join(p, b[0].Name), a[0].Node, b[0].Node)
			a, b = a[1:], b[1:]
		}
	}
}

// find gives what is at a path of a tree, nil for nothing.
func find(n *tree.Node, p string) *tree.Node {
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		if n == nil {
			return nil
		}
		n, _ = n.Lookup(name)
	}
	return n
}

// cause makes a sentence of changes: who brought them and, after a semicolon, what the step has to do with them. Both may be empty.
func cause(kind CauseKind, who string, changes []change, step string) Cause {
	out := Cause{Kind: kind}
	first := changes[:min(len(changes), most)]
	for _, ch := range first {
		out.Paths = append(out.Paths, ch.path)
	}
	out.More = len(changes) - len(first)
	var parts []string
	for i := 0; i < len(first); {
		j := i + 1
		for j < len(first) && first[j].verb == first[i].verb && first[j].how == first[i].how {
			j++
		}
		parts = append(parts, first[i].verb.phrase(who != "", first[i:j]))
		i = j
	}
	text := strings.Join(parts, ", ")
	if out.More > 0 {
		text += fmt.Sprintf(", and %d more", out.More)
	}
	if who != "" {
		text = who + " " + text
	}
	if step != "" {
		text += "; " + step
	}
	out.Text = text
	return out
}

// phrase says what happened to paths: of what somebody did ("changed a and b"), or by itself ("a and b changed").
func (v verb) phrase(active bool, changes []change) string {
	var names []string
	for _, ch := range changes {
		names = append(names, ch.name())
	}
	one, what, how := len(names) == 1, list(names), changes[0].how
	is := "are"
	if one {
		is = "is"
	}
	if how != "" {
		how = " (" + how + ")"
	}
	active2 := map[verb]string{
		changed: "changed " + what, added: "added " + what, removed: "no longer has " + what,
		mode: "changed the mode of " + what + how, owner: "changed the owner of " + what + how, target: "changed where " + what + " points" + how,
		kind: "made something else of " + what + how, xattrs: "changed the attributes of " + what,
	}
	passive := map[verb]string{
		changed: what + " changed", added: what + " " + is + " there now", removed: what + " " + is + " gone",
		mode: "the mode of " + what + " changed" + how, owner: "the owner of " + what + " changed" + how,
		target: what + " points elsewhere" + how, kind: what + " " + is + " something else" + how, xattrs: "the attributes of " + what + " changed",
	}
	if active {
		return active2[v]
	}
	return passive[v]
}

// name writes the path for people.
func (c change) name() string {
	p := "/" + c.path
	if c.dir && c.path != "" {
		p += "/"
	}
	return Quoted(p)
}
