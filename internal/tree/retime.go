package tree

// Retime gives root with the mtimes of times wherever both have the same path and kind. Where a file gets another time, its other
// names in root get it too: of hard links only one can be. What does not change is shared, root itself where nothing does, and
// directories keep their remembered digests.
func Retime(root, times *Node) (*Node, error) {
	r := &retimer{linked: map[uint64]int64{}}
	root, err := r.node(root, times)
	if err != nil || len(r.linked) == 0 {
		return root, err
	}
	return r.links(root)
}

type retimer struct {
	linked map[uint64]int64 // by Group, the latest time that one of its names got
}

func (r *retimer) node(n, times *Node) (*Node, error) {
	if n.Kind != times.Kind {
		return n, nil
	}
	if n.Group != 0 && n.MTime != times.MTime {
		if t, ok := r.linked[n.Group]; !ok || t < times.MTime {
			r.linked[n.Group] = times.MTime
		}
	}
	d, err := r.dir(n, times)
	if err != nil {
		return nil, err
	}
	return n.dated(times.MTime, d), nil
}

// dir gives the listing of a directory as it is to be; nil for what is none.
func (r *retimer) dir(n, times *Node) (*dirData, error) {
	if n.dir == times.dir {
		return n.dir, nil
	}
	dated, err := times.Entries()
	if err != nil || len(dated) == 0 {
		return n.dir, err
	}
	return n.dir.mapped(n, func(e Entry) (*Node, error) {
		for len(dated) > 0 && dated[0].Name < e.Name {
			dated = dated[1:]
		}
		if len(dated) == 0 || dated[0].Name != e.Name {
			return e.Node, nil
		}
		return r.node(e.Node, dated[0].Node)
	})
}

// links gives the time of each set of hard links to all of its names.
func (r *retimer) links(n *Node) (*Node, error) {
	if !n.HasGroups() {
		return n, nil
	}
	if t, ok := r.linked[n.Group]; ok && n.Group != 0 {
		return n.dated(t, n.dir), nil
	}
	if n.dir == nil {
		return n, nil
	}
	d, err := n.dir.mapped(n, func(e Entry) (*Node, error) { return r.links(e.Node) })
	if err != nil {
		return nil, err
	}
	return n.dated(n.MTime, d), nil
}

// dated gives a node with another time and listing, itself where it has them.
func (n *Node) dated(mtime int64, d *dirData) *Node {
	if n.MTime == mtime && n.dir == d {
		return n
	}
	c := *n
	c.MTime, c.dir = mtime, d
	return &c
}

// mapped gives the listing of directory n with other nodes, which differ from those that they stand for in times only; itself where
// all stay. The digest of a listing has no times in it.
func (d *dirData) mapped(n *Node, node func(Entry) (*Node, error)) (*dirData, error) {
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	var out []Entry
	for i, e := range entries {
		c, err := node(e)
		if err != nil {
			return nil, err
		}
		if c == e.Node {
			continue
		}
		if out == nil {
			out = append(make([]Entry, 0, len(entries)), entries...)
		}
		out[i].Node = c
	}
	if out == nil {
		return d, nil
	}
	c := &dirData{entries: out, marks: d.marks}
	c.digest.Store(d.digest.Load())
	return c, nil
}
