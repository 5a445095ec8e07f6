package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

// maxEntries bounds a ledger. Files beyond count as changed each time that they are looked at.
const maxEntries = 200_000

// Merge gives the ledger that follows old, which may be nil, once by has been shown seen: a merged tree, or what Show made of one. What
// is at seen's paths is replaced. What seen lacks stays, as others see other parts of the files, but for paths that by saw when he last looked:
// those are deleted, and what comes back there is new to everybody, as one mount holds what all of them made. Where by is zero nothing counts as
// deleted. Of times that are far ahead of this machine's clock only those of what is there count.
func Merge(old, seen *tree.Node, by key.Digest) (*tree.Node, error) {
	return mergeAt(old, seen, by, time.Now())
}

func mergeAt(old, seen *tree.Node, by key.Digest, now time.Time) (*tree.Node, error) {
	if old == nil {
		old = tree.Empty()
	}
	known := bitOf(old, by) != 0
	old, bit, err := enter(old, by)
	if err != nil {
		return nil, err
	}
	m := &merger{bit: bit, known: known, everybody: bitsOf(old), latest: old.MTime, horizon: now.Add(aheadAtMost).UnixNano()}
	root, _, err := m.dir(old, seen)
	if err != nil {
		return nil, err
	}
	if m.entries > maxEntries {
		m.entries, m.seenOnly = 0, true
		if root, _, err = m.dir(old, seen); err != nil {
			return nil, err
		}
	}
	root.Meta = tree.Meta{MTime: m.latest, Xattrs: old.Xattrs}
	return root, nil
}

type merger struct {
	bit       uint32 // of who looks; 0 where nothing names him
	known     bool   // he looked before
	everybody uint32 // the bits of all who looked
	seenOnly  bool   // there is no room for more
	entries   int
	latest    int64
	horizon   int64 // what is later was never raised, and would hide from Show what was
}

// dir merges what is in two directories; either may be nil. What it gives is new. lost tells whether a name of old's was deleted.
func (m *merger) dir(old, seen *tree.Node) (_ *tree.Node, lost bool, err error) {
	was, err := entriesOf(old)
	if err != nil {
		return nil, false, err
	}
	is, err := entriesOf(seen)
	if err != nil {
		return nil, false, err
	}
	var out []tree.Entry
	for len(was) > 0 || len(is) > 0 {
		var e tree.Entry
		var o, s *tree.Node
		if len(is) == 0 || len(was) > 0 && was[0].Name <= is[0].Name {
			e.Name, o = was[0].Name, was[0].Node
		}
		if len(was) == 0 || len(is) > 0 && is[0].Name <= was[0].Name {
			e.Name, s = is[0].Name, is[0].Node
		}
		if o != nil {
			was = was[1:]
		}
		if s != nil {
			is = is[1:]
		}
		if e.Node, err = m.node(o, s); err != nil {
			return nil, false, err
		}
		if e.Node != nil {
			out = append(out, e)
		}
		lost = lost || s == nil && (e.Node == nil || o.GID&m.bit != 0)
	}
	d, err := tree.NewDir(tree.Meta{}, false, out)
	return d, lost, err
}

func entriesOf(n *tree.Node) ([]tree.Entry, error) {
	if n == nil {
		return nil, nil
	}
	return n.Entries()
}

// node gives what a ledger says of one path, nil for nothing.
func (m *merger) node(old, seen *tree.Node) (*tree.Node, error) {
	if seen != nil && seen.Kind != tree.File && seen.Kind != tree.Dir && seen.Kind != tree.Symlink {
		seen = nil // a special file, which has no content that anything could be made of
	}
	if seen == nil {
		return m.unseen(old)
	}
	if m.entries++; m.seenOnly && m.entries > maxEntries {
		return nil, nil
	}
	n := &tree.Node{Kind: seen.Kind, Size: seen.Size, Content: seen.Content, Link: seen.Link}
	n.MTime, n.UID, n.GID = seen.MTime, m.bit, m.bit
	undated := false // an old time of a directory, which by is not shown, is no longer that of its names
	if seen.Kind == tree.Dir {
		inside, lost, err := m.dir(kindOf(old, tree.Dir), seen)
		if err != nil {
			return nil, err
		}
		n = inside
		n.UID, n.GID = m.bit, m.bit
		if !seen.Implied {
			n.MTime = seen.MTime
		}
		undated = lost && seen.Implied
	}
	if old == nil || old.Kind != n.Kind {
		n.UID = m.everybody // what is new to the ledger is newer than all that anybody made
	} else {
		n.GID |= old.GID
		changed := old.Content != n.Content || old.Link != n.Link
		if changed && old.MTime >= n.MTime {
			return nil, nil // two that ran at once were shown different files: nobody knows what was made of which
		}
		n.UID |= old.UID
		if n.Kind != tree.Dir && n.MTime > old.MTime && (changed || m.known && old.UID&m.bit == 0) {
			n.UID = m.everybody
		}
		if !undated {
			n.MTime = max(n.MTime, old.MTime)
		}
	}
	if n.MTime <= m.horizon {
		m.latest = max(m.latest, n.MTime)
	}
	return n, nil
}

func kindOf(n *tree.Node, kind tree.Kind) *tree.Node {
	if n == nil || n.Kind != kind {
		return nil
	}
	return n
}

// unseen gives what stays of what seen lacks. Of what is deleted that is who else saw it, until he looks as well: nobody believes it.
func (m *merger) unseen(old *tree.Node) (*tree.Node, error) {
	if old == nil || m.seenOnly {
		return nil, nil
	}
	left := without(old, m.bit).Meta
	deleted := old.GID&m.bit != 0
	if deleted {
		left.UID = 0
	}
	gone := deleted && left.GID == 0
	if old.Kind != tree.Dir {
		if gone {
			return nil, nil
		}
		m.entries++
		return old.WithMeta(left), nil
	}
	m.entries++
	inside, lost, err := m.dir(old, nil)
	if err != nil {
		return nil, err
	}
	entries, err := inside.Entries()
	if err != nil || gone && len(entries) == 0 {
		return nil, err
	}
	if lost {
		left.MTime = 0 // it is dated anew for who still sees it
	}
	return inside.WithMeta(left), nil
}

func without(n *tree.Node, bit uint32) *tree.Node {
	if (n.UID|n.GID)&bit == 0 {
		return n
	}
	meta := n.Meta
	meta.UID &^= bit
	meta.GID &^= bit
	return n.WithMeta(meta)
}

// Who looked stands in extended attributes of a ledger's root, one per bit.
const (
	stepBits = 32
	stepName = 16 // bytes kept of a digest
)

// bitOf gives the bit by which a ledger knows somebody, 0 for none.
func bitOf(ledger *tree.Node, by key.Digest) uint32 {
	for i := range stepBits {
		if v := step(ledger, i); !by.IsZero() && v == string(by[:stepName]) {
			return 1 << i
		}
	}
	return 0
}

func bitsOf(ledger *tree.Node) (bits uint32) {
	for i := range stepBits {
		if step(ledger, i) != "" {
			bits |= 1 << i
		}
	}
	return bits
}

// step gives what a ledger keeps of the name of who has a bit, empty for nobody.
func step(ledger *tree.Node, bit int) string {
	for _, x := range ledger.Xattrs {
		if x.Name == stepXattr(bit) {
			return string(x.Value)
		}
	}
	return ""
}

func stepXattr(bit int) string { return fmt.Sprintf("step.%02d", bit) }

// enter gives the ledger in which by has a bit: the one that he has, or a free one that his name chooses, as ledgers that were written
// at once and are united should rarely give a bit to two. Where there is none, somebody else loses his.
func enter(ledger *tree.Node, by key.Digest) (*tree.Node, uint32, error) {
	if bit := bitOf(ledger, by); bit != 0 || by.IsZero() {
		return ledger, bit, nil
	}
	at := -1
	for i := range stepBits {
		if c := (int(by[0]) + i) % stepBits; step(ledger, c) == "" {
			at = c
			break
		}
	}
	if at < 0 {
		at = int(by[0]) % stepBits
		var err error
		if ledger, err = forget(ledger, 1<<at); err != nil {
			return nil, 0, err
		}
	}
	name := stepXattr(at)
	meta := ledger.Meta
	meta.Xattrs = slices.DeleteFunc(slices.Clone(meta.Xattrs), func(x tree.Xattr) bool { return x.Name == name })
	meta.Xattrs = append(meta.Xattrs, tree.Xattr{Name: name, Value: slices.Clone(by[:stepName])})
	slices.SortFunc(meta.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return ledger.WithMeta(meta), 1 << at, nil
}

// forget takes a bit from everything. Nothing counts as deleted for that.
func forget(n *tree.Node, bit uint32) (*tree.Node, error) {
	entries, err := n.Entries()
	if err != nil || n.Kind != tree.Dir {
		return without(n, bit), err
	}
	out := make([]tree.Entry, len(entries))
	for i, e := range entries {
		inside, err := forget(e.Node, bit)
		if err != nil {
			return nil, err
		}
		out[i] = tree.Entry{Name: e.Name, Node: inside}
	}
	d, err := tree.NewDir(n.Meta, false, out)
	if err != nil {
		return nil, err
	}
	d.UID &^= bit
	d.GID &^= bit
	return d, nil
}
