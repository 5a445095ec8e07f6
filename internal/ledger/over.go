package ledger

import (
	"fmt"

	"larder/internal/tree"
)

// Over gives what of stack, a state's merged tree, has to be laid over it so that a step sees shown's times: files, symlinks and
// directories whose mtime is another, and what leads there with stack's metadata. Of a file with several names it has all, also those
// that shown lacks. shown holds paths of stack only, with the same contents. Nil for nothing.
func Over(shown, stack *tree.Node) (*tree.Node, error) {
	o := &overer{linked: map[uint64]int64{}}
	root, err := o.dir("", shown, stack)
	if err == nil && len(o.linked) > 0 {
		o.all = true
		root, err = o.dir("", shown, stack)
	}
	if err != nil {
		return nil, fmt.Errorf("times to show: %w", err)
	}
	return root, nil
}

type overer struct {
	linked map[uint64]int64 // by Group, the time of files that are laid over
	all    bool             // linked is complete
}

// dir gives the part of a directory that is laid over, nil for none. shown is nil where only names of linked files are looked for.
func (o *overer) dir(path string, shown, stack *tree.Node) (*tree.Node, error) {
	if (shown == nil || shown == stack) && !(o.all && stack.HasGroups()) {
		return nil, nil
	}
	meta := stack.Meta
	if shown != nil && !shown.Implied && path != "" {
		meta.MTime = shown.MTime
	}
	from := shown
	if o.all {
		from = stack // has the other names
	}
	names, err := from.Entries()
	if err != nil {
		return nil, err
	}
	var entries []tree.Entry
	for _, e := range names {
		var s *tree.Node
		if shown != nil {
			if s, err = shown.Lookup(e.Name); err != nil {
				return nil, err
			}
		}
		at := tree.Join(path, e.Name)
		below, err := stack.Lookup(e.Name)
		if err != nil {
			return nil, err
		}
		if below == nil || s != nil && (s.Kind != below.Kind || s.Content != below.Content) {
			return nil, fmt.Errorf("/%s is not what the layers have there", at)
		}
		n, err := o.node(at, s, below)
		if err != nil {
			return nil, err
		}
		if n != nil {
			entries = append(entries, tree.Entry{Name: e.Name, Node: n})
		}
	}
	if len(entries) == 0 && meta.MTime == stack.MTime {
		return nil, nil
	}
	return tree.NewDir(meta, false, entries)
}

func (o *overer) node(path string, shown, stack *tree.Node) (*tree.Node, error) {
	if stack.Kind == tree.Dir {
		return o.dir(path, shown, stack)
	}
	if mtime, ok := o.linked[stack.Group]; ok && stack.Group != 0 {
		return dated(stack, mtime), nil
	}
	if shown == nil || shown.MTime == stack.MTime || stack.Kind != tree.File && stack.Kind != tree.Symlink {
		return nil, nil
	}
	if stack.Group != 0 {
		o.linked[stack.Group] = shown.MTime
	}
	return dated(stack, shown.MTime), nil
}
