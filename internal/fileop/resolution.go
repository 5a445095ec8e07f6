package fileop

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"larder/internal/key"
	"larder/internal/tree"
)

// ErrUnresolved is wrapped by Replay's error when the operation looks at something of which the resolution holds
// nothing: the base's tree is needed.
var ErrUnresolved = errors.New("not in the destination resolution")

// Resolution is what an operation saw of the file systems that it writes to, and the users that it asked for: the
// destination resolution of DESIGN section 3. It is a value; MarshalBinary makes it storable.
type Resolution struct {
	Probes []Probe // sorted by input and path
	Owners []Owner // sorted by input, kind and name
}

// Probe is one look at a base.
type Probe struct {
	Input int    // index of the operation's input
	Path  string // relative to its root, "" is the root
	// Node is what is there, without what is in a directory; nil for nothing. Of a regular file Size and Content are
	// only set if HasContent.
	Node       *tree.Node
	HasContent bool
	// Names is what a directory holds, where Listed.
	Listed bool
	Names  []string
}

// Owner is the answer to a user's or group's name, from /etc/passwd or /etc/group of an input. As for BuildKit, a user that is
// not found is root, and a group that is not found is the user's.
type Owner struct {
	Input    int
	Group    bool
	Name     string
	Found    bool
	UID, GID uint32 // GID alone for a group
}

// Digest names the resolution; mtimes do not count.
func (r *Resolution) Digest() key.Digest {
	h := key.New("larder.file.resolution.v1").Uint(uint64(len(r.Probes)))
	for _, p := range r.Probes {
		h.Int(int64(p.Input)).Str(p.Path).Bool(p.Node != nil).Bool(p.HasContent).Bool(p.Listed)
		if p.Node != nil {
			h.Digest(p.Node.Self())
		}
		if p.Listed {
			h.Strs(p.Names)
		}
	}
	h.Uint(uint64(len(r.Owners)))
	for _, o := range r.Owners {
		h.Int(int64(o.Input)).Bool(o.Group).Str(o.Name).Bool(o.Found).Uint(uint64(o.UID)).Uint(uint64(o.GID))
	}
	return h.Sum()
}

// Union is what two resolutions of one operation on the same inputs say together.
func (r *Resolution) Union(o *Resolution) *Resolution {
	rec := &recorder{probes: map[at]*Probe{}, owners: slices.Concat(r.Owners, o.Owners)}
	for _, p := range slices.Concat(r.Probes, o.Probes) {
		k := at{p.Input, p.Path}
		have := rec.probes[k]
		if have == nil {
			rec.probes[k] = &p
			continue
		}
		if p.HasContent {
			have.HasContent, have.Node = true, p.Node
		}
		if p.Listed {
			have.Listed, have.Names = true, p.Names
		}
	}
	return rec.resolution()
}

// at names what a Probe is about.
type at struct {
	input int
	path  string
}

// recorder collects the probes of one operation.
type recorder struct {
	probes map[at]*Probe
	owners []Owner
}

func (r *recorder) probe(input int, path string, n *tree.Node) *Probe {
	k := at{input, path}
	p, ok := r.probes[k]
	if !ok {
		p = &Probe{Input: input, Path: path, Node: shell(n)}
		r.probes[k] = p
	}
	return p
}

// shell is a node as an answer: without what a directory holds and a file says.
func shell(n *tree.Node) *tree.Node {
	if n == nil {
		return nil
	}
	return &tree.Node{Kind: n.Kind, Meta: n.Meta, Link: n.Link, Rdev: n.Rdev}
}

func (r *recorder) resolution() *Resolution {
	res := &Resolution{Owners: slices.Clone(r.owners)}
	for _, p := range r.probes {
		res.Probes = append(res.Probes, *p)
	}
	res.sort()
	return res
}

func (r *Resolution) sort() {
	slices.SortFunc(r.Probes, func(a, b Probe) int {
		return cmp.Or(cmp.Compare(a.Input, b.Input), cmp.Compare(a.Path, b.Path))
	})
	slices.SortFunc(r.Owners, compareOwners)
	r.Owners = slices.CompactFunc(r.Owners, func(a, b Owner) bool { return compareOwners(a, b) == 0 })
}

func compareOwners(a, b Owner) int {
	kind := func(o Owner) int {
		if o.Group {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.Input, b.Input), cmp.Compare(kind(a), kind(b)), cmp.Compare(a.Name, b.Name))
}

// base is how a work looks at what lies below it. Every answer is recorded.
type base interface {
	lookup(dir *tree.Node, name, path string) (*tree.Node, error) // nil: not there
	list(dir *tree.Node, path string) ([]string, error)
	content(n *tree.Node, path string) error // makes n's Size and Content known
}

// treeBase answers from a tree.
type treeBase struct {
	rec   *recorder
	input int
}

func (b treeBase) lookup(dir *tree.Node, name, path string) (*tree.Node, error) {
	n, err := dir.Lookup(name)
	if err == nil {
		b.rec.probe(b.input, path, n)
	}
	return n, err
}

func (b treeBase) list(dir *tree.Node, path string) ([]string, error) {
	entries, err := dir.Entries()
	if err != nil {
		return nil, err
	}
	p := b.rec.probe(b.input, path, dir)
	if !p.Listed {
		p.Listed = true
		for _, e := range entries {
			p.Names = append(p.Names, e.Name)
		}
	}
	return p.Names, nil
}

func (b treeBase) content(n *tree.Node, path string) error {
	p := b.rec.probe(b.input, path, n)
	p.HasContent, p.Node.Size, p.Node.Content = true, n.Size, n.Content
	return nil
}

// answers answers from an earlier operation's resolution.
type answers struct {
	rec   *recorder
	input int
	known map[at]*Probe
}

func (b answers) find(path string) (*Probe, error) {
	p := b.known[at{b.input, path}]
	if p == nil {
		return nil, fmt.Errorf("/%s of input %d is %w", path, b.input, ErrUnresolved)
	}
	return p, nil
}

func (b answers) lookup(_ *tree.Node, _, path string) (*tree.Node, error) {
	p, err := b.find(path)
	if err != nil {
		return nil, err
	}
	b.rec.probe(b.input, path, p.Node)
	return p.Node, nil
}

func (b answers) list(_ *tree.Node, path string) ([]string, error) {
	p, err := b.find(path)
	if err == nil && !p.Listed {
		err = fmt.Errorf("what /%s of input %d holds is %w", path, b.input, ErrUnresolved)
	}
	if err != nil {
		return nil, err
	}
	mine := b.rec.probe(b.input, path, p.Node)
	mine.Listed, mine.Names = true, p.Names
	return p.Names, nil
}

func (b answers) content(n *tree.Node, path string) error {
	p, err := b.find(path)
	if err == nil && !p.HasContent {
		err = fmt.Errorf("the content of /%s of input %d is %w", path, b.input, ErrUnresolved)
	}
	if err != nil {
		return err
	}
	n.Size, n.Content = p.Node.Size, p.Node.Content
	mine := b.rec.probe(b.input, path, p.Node)
	mine.HasContent, mine.Node.Size, mine.Node.Content = true, n.Size, n.Content
	return nil
}
