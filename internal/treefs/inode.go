package treefs

import (
	"sort"
	"strconv"
	"sync"
	"sync/atomic"

	"larder/internal/layer"
	"larder/internal/observation"
	"larder/internal/tree"
)

// part is a Part that is shown.
type part struct {
	root     *inode
	contents layer.Source
	groups   map[uint64]*group // of hard links that have several names here
	near     atomic.Bool       // contents came at once the last time
	noPass   atomic.Bool       // the kernel does not take the files that this part's contents are in
}

// group is the names of one file.
type group struct {
	number uint64 // of its inode
	names  uint32
	inode  *inode // nil until one of the names is looked up; inodes.mu guards it
}

// inode is an object that the kernel knows of. They stay until the end: what was looked at is in them.
type inode struct {
	node   *tree.Node
	part   *part  // nil for the directory that holds the parts
	number uint64 // what stat shows, and by which the kernel asks
	names  uint32
	looks  atomic.Uint32 // kinds of observation besides Entry, which it has for being known
	dir    *directory    // of a Dir
	file   *file         // of a File that has contents
}

func (n *inode) note(k observation.Kind) {
	if n.looks.Load()&uint32(k) == 0 {
		n.looks.Or(uint32(k))
	}
}

// directory is a Dir's listing and which names of it were looked up.
type directory struct {
	parent uint64 // inode number

	mu      sync.Mutex
	loaded  bool
	entries []tree.Entry
	first   uint64              // the number of the first entry's inode; the others' follow, but for hard links
	known   []*inode            // of entries, nil for what was not looked up; nil as long as that is nothing
	absent  map[string]struct{} // names that were looked up and are not there
}

// mostAbsent bounds the names of one directory that are noted as absent. Beyond, its listing says the same.
const mostAbsent = 20_000

// inodes finds what the kernel asks by number. Numbers are small and never used again.
type inodes struct {
	mu    sync.RWMutex
	known []*inode // by number; nil for numbers that are kept for entries nobody has looked up
}

func (t *inodes) get(number uint64) *inode {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if number >= uint64(len(t.known)) {
		return nil
	}
	return t.known[number]
}

// reserve gives the first of n numbers. mu is held.
func (t *inodes) reserve(n int) uint64 {
	first := len(t.known)
	t.known = append(t.known, make([]*inode, n)...)
	return uint64(first)
}

// plant makes the directory that holds the parts, and learns what has to be known of all of them at once: which files have
// several names, and whether files are to be handed to the kernel.
func (fs *FS) plant(parts []Part) (hand bool, err error) {
	fs.inodes.known = make([]*inode, 1) // 0 is no number
	own := tree.Empty()
	fs.own = fs.add(&inode{node: own, number: fs.inodes.reserve(1), dir: &directory{parent: 1, loaded: true}})
	fs.passSize = fs.opt.Passthrough
	if fs.passSize == 0 {
		fs.passSize = passthroughSize
	}
	files, large := int64(0), int64(0)
	d := fs.own.dir
	for i, p := range parts {
		pt := &part{contents: p.Contents, groups: map[uint64]*group{}}
		if pt.contents == nil {
			pt.contents = layer.Union()
		}
		s := survey{fs: fs, part: pt}
		if err := s.walk(p.Root); err != nil {
			return false, err
		}
		files, large = files+s.files, large+s.large
		for g, names := range pt.groups {
			if names.names < 2 {
				delete(pt.groups, g)
				continue
			}
			names.number = fs.inodes.reserve(1)
		}
		pt.root = fs.add(&inode{node: p.Root, part: pt, number: fs.inodes.reserve(1), names: 1, dir: &directory{parent: fs.own.number}})
		fs.parts = append(fs.parts, pt)
		d.entries = append(d.entries, tree.Entry{Name: strconv.Itoa(i), Node: p.Root})
	}
	sort.Slice(d.entries, func(i, j int) bool { return d.entries[i].Name < d.entries[j].Name })
	for _, e := range d.entries {
		i, err := strconv.Atoi(e.Name)
		if err != nil {
			return false, err
		}
		d.known = append(d.known, fs.parts[i].root)
	}
	return large > 0 && (fs.opt.Passthrough != 0 || large/payingShare >= files), nil
}

// survey goes once through a tree.
type survey struct {
	fs    *FS
	part  *part
	files int64
	large int64 // bytes of files that may be handed to the kernel
}

func (s *survey) walk(n *tree.Node) error {
	if n.Kind != tree.Dir {
		if n.Kind == tree.File {
			s.files++
			if n.Size >= s.fs.passSize {
				s.large += n.Size
			}
		}
		if n.Group != 0 {
			g := s.part.groups[n.Group]
			if g == nil {
				g = &group{}
				s.part.groups[n.Group] = g
			}
			g.names++
		}
		return nil
	}
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.walk(e.Node); err != nil {
			return err
		}
	}
	return nil
}

// add makes an inode known. Its number was reserved.
func (fs *FS) add(n *inode) *inode {
	fs.inodes.known[n.number] = n
	return n
}

// load fetches a directory's listing. mu is held.
func (d *directory) load(fs *FS, n *tree.Node) error {
	if d.loaded {
		return nil
	}
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	fs.inodes.mu.Lock()
	d.first = fs.inodes.reserve(len(entries))
	fs.inodes.mu.Unlock()
	d.entries, d.loaded = entries, true
	return nil
}

// number gives the inode number of an entry, known or not. mu is held.
func (d *directory) number(p *part, i int) uint64 {
	if p == nil {
		return d.known[i].number
	}
	if g := p.groups[d.entries[i].Node.Group]; g != nil {
		return g.number
	}
	return d.first + uint64(i)
}

// lookup finds a name in a directory and notes that it was looked for; nil where it is absent.
func (fs *FS) lookup(dir *inode, name string) (*inode, error) {
	d := dir.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(fs, dir.node); err != nil {
		return nil, err
	}
	i := sort.Search(len(d.entries), func(i int) bool { return d.entries[i].Name >= name })
	if i == len(d.entries) || d.entries[i].Name != name || d.entries[i].Node.Kind == tree.Socket {
		if dir.part != nil {
			d.noteAbsent(dir, name)
		}
		return nil, nil
	}
	if d.known == nil {
		d.known = make([]*inode, len(d.entries))
	}
	if d.known[i] == nil {
		d.known[i] = fs.meet(dir, i)
	}
	return d.known[i], nil
}

func (d *directory) noteAbsent(dir *inode, name string) {
	if len(d.absent) >= mostAbsent {
		dir.note(observation.List)
		return
	}
	if d.absent == nil {
		d.absent = map[string]struct{}{}
	}
	d.absent[name] = struct{}{}
}

// meet makes the inode of an entry that is looked up for the first time. The directory's mu is held.
func (fs *FS) meet(dir *inode, i int) *inode {
	node := dir.dir.entries[i].Node
	n := &inode{node: node, part: dir.part, number: dir.dir.number(dir.part, i), names: 1}
	switch {
	case node.Kind == tree.Dir:
		n.dir = &directory{parent: dir.number}
	case node.Kind == tree.File && node.Size > 0:
		n.file = &file{}
	}
	fs.inodes.mu.Lock()
	defer fs.inodes.mu.Unlock()
	if g := dir.part.groups[node.Group]; g != nil {
		if g.inode != nil {
			return g.inode
		}
		n.names, g.inode = g.names, n
	}
	return fs.add(n)
}
