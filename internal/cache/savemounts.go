package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/tree"
)

// maxRow is how many segments a mount may have before they are written anew as one.
const maxRow = 8

// MountChange is a new generation of a cache mount.
type MountChange struct {
	// Slot names the directory that it is of: what is said of it later takes the place of what was said before.
	Slot         string
	Key          key.Digest
	ID, Platform string
	United       bool
	// Base is where Prev is written down, the generation that the directory began with; both are nil where that is not known, or
	// where it began empty.
	Base       *MountBase
	Prev, Next *generation.Generation
	// Again says that the build put the mount before: it counts once.
	Again bool
	// Anew writes Next down as a whole, so that packs which it does not need any more are named no longer.
	Anew bool
	// Files and Size are what Next has, Had what the directory was restored with, Hit how much of that was used.
	Files, Size, Had, Hit int64
}

// mountSave is a change for one target.
type mountSave struct {
	target *Target
	slot   string
	put    catalog.MountPut
	blobs  []*sending // that have to be in the target's store before
}

// PutMount writes a generation down and brings that to the targets, in the background; Save puts it into the catalogs. It gives where the
// first target will have it.
func (s *Session) PutMount(c MountChange) (*MountBase, error) {
	if c.Base != nil {
		s.Know(c.Base, c.Prev)
	}
	var first *MountBase
	for _, t := range s.cfg.Targets {
		save, err := s.mountSave(t, c)
		if err != nil {
			return nil, fmt.Errorf("cache mount %s: %w", c.ID, err)
		}
		if first == nil {
			first = &MountBase{t.Own.Store.Name(), save.put.Mount}
			s.knowPieces(first.Store, c.Next)
		}
		s.mu.Lock()
		s.mounts = slices.DeleteFunc(s.mounts, func(m *mountSave) bool { return m.target == t && m.slot == c.Slot })
		s.mounts = append(s.mounts, save)
		s.mu.Unlock()
	}
	return first, nil
}

func (s *Session) mountSave(t *Target, c MountChange) (*mountSave, error) {
	now := time.Now().UTC().Truncate(time.Second)
	row := catalog.Mount{
		Key: c.Key, ID: c.ID, Platform: c.Platform, United: c.United, Saved: now, Used: now, Builds: 1,
		Files: c.Files, Size: c.Size, Had: c.Had, Hit: c.Hit,
	}
	save := &mountSave{target: t, slot: c.Slot}
	own := s.ownRow(t, c.Key)
	var base []catalog.Segment
	if c.Base != nil {
		row.Builds = c.Base.Row.Builds + 1
		if c.Again {
			row.Builds--
		}
		if c.Base.Store == t.Own.Store.Name() {
			base = c.Base.Row.Segments
		}
	}
	kept, added, err := writeSegments(base, c)
	if err != nil {
		return nil, err
	}
	if len(base) == 0 && c.United && len(own.Segments) > 0 {
		if added, err = s.union(t.Own, own, added); err != nil {
			return nil, err
		}
		base = own.Segments
	}
	row.Segments = slices.Clone(kept)
	s.await(save, row)
	if added != nil {
		if err := s.sendSegment(save, &row, added); err != nil {
			return nil, err
		}
	} else {
		row.Saved = c.Base.Row.Saved
	}
	save.put.Mount = row
	if save.put.Base, err = began(own, base); err != nil {
		return nil, err
	}
	return save, nil
}

// ownRow is what a target's own catalog said of a mount when it was read; empty where it said nothing.
func (s *Session) ownRow(t *Target, k key.Digest) catalog.Mount {
	r := t.Own.get(s.ctx)
	if r == nil {
		return catalog.Mount{}
	}
	row, ok := r.Mount(s.ctx, k)
	if !ok || s.spoilt(t.Own, row) {
		return catalog.Mount{}
	}
	return row
}

// began lists the segments of base that the target's own catalog had when the build began. Others are the build's to bring, whatever catalog, or
// earlier build that could not save, they come from.
func began(own catalog.Mount, base []catalog.Segment) ([]key.Digest, error) {
	var out []key.Digest
	for _, seg := range base {
		if !slices.ContainsFunc(own.Segments, func(o catalog.Segment) bool { return o.Blob.Digest == seg.Blob.Digest }) {
			continue
		}
		d, err := key.FromOCI(seg.Blob.Digest)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// union gives one segment that says what a target's own row and a full segment say, for a build that did not begin with that row: appended to it,
// a full segment of each build would make it grow for ever.
func (s *Session) union(src *Source, own catalog.Mount, full []byte) ([]byte, error) {
	segments, err := s.segments(s.ctx, src, own)
	if err != nil {
		return full, nil // which the next save heals
	}
	g, err := generation.Read(append(segments, full))
	if err != nil {
		return full, nil
	}
	s.knowPacks(src.Store.Name(), own)
	return generation.Full(g)
}

// writeSegments gives the segments of a new generation that are stored already, and the one that is to follow them; nil for none.
func writeSegments(base []catalog.Segment, c MountChange) (kept []catalog.Segment, next []byte, err error) {
	if len(base) > 0 && len(base) < maxRow && !c.Anew && c.Base.Row.United == c.United {
		if same, err := unchanged(c); same || err != nil {
			return base, nil, err
		}
		delta, err := generation.Delta(c.Prev, c.Next)
		if err != nil {
			return nil, nil, err
		}
		size := int64(len(delta))
		for _, seg := range base[1:] {
			size += seg.Blob.Size
		}
		if size < base[0].Blob.Size {
			return base, delta, err
		}
	}
	full, err := generation.Full(c.Next)
	return nil, full, err
}

// unchanged tells whether a generation has nothing to say that the one before it does not, but for which files were used: that waits
// until there is more to say.
func unchanged(c MountChange) (bool, error) {
	same, err := tree.Equal(c.Prev.Tree, c.Next.Tree)
	if !same || err != nil {
		return false, err
	}
	if c.Prev.Ledger == nil || c.Next.Ledger == nil {
		return c.Prev.Ledger == c.Next.Ledger, nil
	}
	return tree.Equal(c.Prev.Ledger, c.Next.Ledger)
}

// sendSegment brings a segment to a target, with the packs that it needs and the target's store does not have.
func (s *Session) sendSegment(save *mountSave, row *catalog.Mount, seg []byte) error {
	desc := ocispecs.Descriptor{MediaType: generation.MediaType, Digest: key.Bytes(seg).OCI(), Size: int64(len(seg))}
	entry := catalog.Segment{Blob: desc}
	packs, err := generation.SegmentPacks(seg)
	if err != nil {
		return err
	}
	for _, p := range packs {
		sg, err := s.packFor(save.target, p)
		if err != nil {
			return err
		}
		entry.Packs = append(entry.Packs, sg.desc)
		if !s.isIn(sg.stores, save.target.Own.Store) {
			save.blobs = append(save.blobs, sg)
		}
	}
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(seg)), nil }
	save.blobs = append(save.blobs, s.send(desc, open, []*Target{save.target}, nil))
	row.Segments = append(slices.Clone(row.Segments), entry)
	return nil
}

// mountPuts collects the cache mounts that a target's catalog is to learn of: those whose blobs are all stored.
func (s *Session) mountPuts(ctx context.Context, t *Target) []catalog.MountPut {
	s.mu.Lock()
	saves := slices.Clone(s.mounts)
	s.mu.Unlock()
	var puts []catalog.MountPut
next:
	for _, m := range saves {
		if m.target != t {
			continue
		}
		for _, sg := range m.blobs {
			select {
			case <-sg.done:
			case <-ctx.Done():
				return nil
			}
			if !s.isIn(sg.stores, t.Own.Store) {
				if ctx.Err() == nil && !s.isDown(t.Own.Store) {
					s.Lose(fmt.Errorf("cache mount %s is not saved: not all of it could be stored", m.put.Mount.ID))
				}
				continue next
			}
		}
		puts = append(puts, m.put)
	}
	return puts
}
