package fileop

import (
	"context"
	"os"

	mode "github.com/tonistiigi/dchapes-mode"

	"larder/internal/tree"
)

// owner is a user and group to give something to; not set leaves them as they are.
type owner struct {
	set      bool
	uid, gid uint32
}

// style is what a copy changes in what it copies.
type style struct {
	owner   owner
	mode    *uint32
	modeSet *mode.Set // a symbolic mode, instead of mode
	mtime   *int64
}

func timestamp(ts int64) *int64 {
	if ts == -1 {
		return nil
	}
	return &ts
}

// dirMode is the mode of directories that a copy makes on the way to its target.
func (s *style) dirMode() uint32 {
	if s.mode != nil {
		return *s.mode & 0o777
	}
	return 0o755
}

// apply gives the metadata that a copy of n has.
func (s *style) apply(n *tree.Node) tree.Meta {
	m := n.Meta
	if s.owner.set {
		m.UID, m.GID = s.owner.uid, s.owner.gid
	}
	if n.Kind != tree.Symlink {
		if s.modeSet != nil {
			m.Mode = fromFileMode(s.modeSet.Apply(toFileMode(n)))
		} else if s.mode != nil {
			m.Mode = *s.mode & 0o7777
		}
	}
	if s.mtime != nil {
		m.MTime = *s.mtime
	}
	return m
}

// restyle gives a tree with every node in the style: n itself where that changes nothing.
func (s *style) restyle(ctx context.Context, n *tree.Node) (*tree.Node, error) {
	if !s.owner.set && s.mode == nil && s.modeSet == nil && s.mtime == nil {
		return n, nil
	}
	if n.Kind != tree.Dir {
		return n.WithMeta(s.apply(n)), nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	out := make([]tree.Entry, len(entries))
	for i, e := range entries {
		c, err := s.restyle(ctx, e.Node)
		if err != nil {
			return nil, err
		}
		out[i] = tree.Entry{Name: e.Name, Node: c}
	}
	return tree.NewDir(s.apply(n), false, out)
}

var fileTypes = map[tree.Kind]os.FileMode{
	tree.Dir: os.ModeDir, tree.Symlink: os.ModeSymlink, tree.Char: os.ModeDevice | os.ModeCharDevice,
	tree.Block: os.ModeDevice, tree.Fifo: os.ModeNamedPipe, tree.Socket: os.ModeSocket,
}

func toFileMode(n *tree.Node) os.FileMode {
	m := os.FileMode(n.Mode&0o777) | fileTypes[n.Kind]
	for bit, flag := range specialBits {
		if n.Mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

func fromFileMode(m os.FileMode) uint32 {
	out := uint32(m.Perm())
	for bit, flag := range specialBits {
		if m&flag != 0 {
			out |= bit
		}
	}
	return out
}

var specialBits = map[uint32]os.FileMode{modeSetuid: os.ModeSetuid, modeSetgid: os.ModeSetgid, 0o1000: os.ModeSticky}
