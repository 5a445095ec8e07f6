package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/catalog"
	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/remote"
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

// sending is a blob on its way to stores.
type sending struct {
	done   chan struct{}
	desc   ocispecs.Descriptor
	stores map[string]bool // where it is, by name; guarded by Session.mu
}

// mountSave is a change for one target.
type mountSave struct {
	target *Target
	slot   string
	put    catalog.MountPut
	blobs  []*sending // that have to be in the target's store before
}

// send brings a blob to the stores of all targets, in the background. done, which may be nil, is called when that has ended.
func (s *Session) send(desc ocispecs.Descriptor, open func(context.Context) (io.ReadCloser, error), targets []*Target, done func()) *sending {
	sg := &sending{done: make(chan struct{}), desc: desc, stores: map[string]bool{}}
	s.mu.Lock()
	s.sendings[desc.Digest] = sg
	s.mu.Unlock()
	s.work.Go(func() {
		defer close(sg.done)
		if done != nil {
			defer done()
		}
		for _, t := range targets {
			if s.isStored(sg, t.Own.Store.Name()) || s.isDown(t.Own.Store) {
				continue
			}
			if s.put(t, remote.Upload{Desc: desc, Open: open, New: true}) == nil {
				s.mu.Lock()
				sg.stores[t.Own.Store.Name()] = true
				s.mu.Unlock()
			}
		}
	})
	return sg
}

// SendPack takes over a pack's file and brings it to the targets.
func (s *Session) SendPack(p pack.Pack) error {
	desc := ocispecs.Descriptor{MediaType: pack.MediaType, Digest: p.Digest.OCI(), Size: p.Size}
	open := func(context.Context) (io.ReadCloser, error) { return os.Open(p.Path) }
	sg := s.send(desc, open, s.cfg.Targets, func() { os.Remove(p.Path) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs[p.Digest] = sg
	return nil
}

// knowPacks remembers the packs of a mount that is in a store.
func (s *Session) knowPacks(store string, row catalog.Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, desc := range packsOf(row) {
		if s.packs[d] == nil {
			sg := &sending{done: make(chan struct{}), desc: desc, stores: map[string]bool{store: true}}
			close(sg.done)
			s.packs[d] = sg
		}
	}
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
	s.await(save, kept)
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

// await has a save wait for what this build is still sending of segments that it builds on.
func (s *Session) await(save *mountSave, row []catalog.Segment) {
	store := save.target.Own.Store.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range row {
		for _, desc := range append([]ocispecs.Descriptor{seg.Blob}, seg.Packs...) {
			if sg := s.sendings[desc.Digest]; sg != nil && !sg.stores[store] {
				save.blobs = append(save.blobs, sg)
			}
		}
	}
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
	same, err := equal(c.Prev.Tree, c.Next.Tree)
	if !same || err != nil {
		return false, err
	}
	if c.Prev.Ledger == nil || c.Next.Ledger == nil {
		return c.Prev.Ledger == c.Next.Ledger, nil
	}
	return equal(c.Prev.Ledger, c.Next.Ledger)
}

// equal tells whether two trees are the same, times included.
func equal(a, b *tree.Node) (bool, error) {
	diff, err := tree.Diff(a, b)
	if err != nil {
		return false, err
	}
	entries, err := diff.Entries()
	return len(entries) == 0 && a.Self() == b.Self() && a.MTime == b.MTime, err
}

// sendSegment brings a segment to a target, with the packs that it needs and the target's store does not have.
func (s *Session) sendSegment(save *mountSave, row *catalog.Mount, seg []byte) error {
	store := save.target.Own.Store.Name()
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
		if !s.isStored(sg, store) {
			save.blobs = append(save.blobs, sg)
		}
	}
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(seg)), nil }
	save.blobs = append(save.blobs, s.send(desc, open, []*Target{save.target}, nil))
	row.Segments = append(slices.Clone(row.Segments), entry)
	return nil
}

// isStored tells whether a blob is in a store as far as is known now.
func (s *Session) isStored(sg *sending, store string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sg.stores[store]
}

// packFor gives a pack that is in a target's store, or on its way there; one that only another store has is copied.
func (s *Session) packFor(t *Target, d key.Digest) (*sending, error) {
	store := t.Own.Store.Name()
	s.mu.Lock()
	sg := s.packs[d]
	s.mu.Unlock()
	if sg == nil {
		return nil, fmt.Errorf("nobody knows where pack %s is", d)
	}
	select {
	case <-sg.done:
	default:
		return sg, nil // a new one, which all targets get
	}
	if s.isStored(sg, store) {
		return sg, nil
	}
	others := slices.Clone(s.cfg.Mounts)
	for _, other := range s.cfg.Targets {
		others = append(others, other.Own)
	}
	for _, src := range others {
		if s.isStored(sg, src.Store.Name()) {
			open := func(ctx context.Context) (io.ReadCloser, error) { return src.Store.Open(ctx, sg.desc) }
			return s.send(sg.desc, open, []*Target{t}, nil), nil
		}
	}
	return sg, nil // it could not be stored, which mountPuts finds out
}

// Missing lists the packs of a row that the first target's store does not have any more; whole tells whether it has all of the row. The catalogs
// that were read at the beginning answer for what they name; what they do not is asked for.
func (s *Session) Missing(ctx context.Context, base *MountBase) (packs map[key.Digest]bool, whole bool) {
	t := s.cfg.Targets[0]
	if base.Store != t.Own.Store.Name() {
		return nil, true // what it names is copied
	}
	named := s.named(ctx, t, base.Row.Key)
	packs, whole = map[key.Digest]bool{}, true
	for _, seg := range base.Row.Segments {
		whole = s.isThere(ctx, t, named, seg.Blob) && whole
		for _, p := range seg.Packs {
			if d, err := key.FromOCI(p.Digest); err == nil && !s.isThere(ctx, t, named, p) {
				packs[d], whole = true, false
			}
		}
	}
	return packs, whole
}

// named lists the blobs that catalogs of a target's store name for a mount.
func (s *Session) named(ctx context.Context, t *Target, k key.Digest) map[digest.Digest]bool {
	out := map[digest.Digest]bool{}
	for _, src := range append([]*Source{t.Own}, s.cfg.Mounts...) {
		r := src.get(ctx)
		if r == nil || src.Store.Name() != t.Own.Store.Name() {
			continue
		}
		row, _ := r.Mount(ctx, k)
		for _, seg := range row.Segments {
			out[seg.Blob.Digest] = true
			for _, p := range seg.Packs {
				out[p.Digest] = true
			}
		}
	}
	return out
}

// isThere tells whether a target's store has a blob; the answer goes into named. That the store does not answer counts as a yes: saving will fail
// for that reason, and not because of this blob.
func (s *Session) isThere(ctx context.Context, t *Target, named map[digest.Digest]bool, desc ocispecs.Descriptor) bool {
	if s.isBad(t.Own.Store, desc.Digest) {
		return false
	}
	s.mu.Lock()
	sg := s.sendings[desc.Digest]
	s.mu.Unlock()
	if sg != nil { // this build's own, which is just on its way, or is known to have got there or not
		select {
		case <-sg.done:
			if !s.isStored(sg, t.Own.Store.Name()) {
				return false
			}
		default:
		}
		return true
	}
	if named[desc.Digest] || s.isDown(t.Own.Store) {
		return true
	}
	ok, err := t.Own.Store.Has(ctx, desc)
	if err == nil && !ok {
		s.lostMount(t.Own, desc, fmt.Errorf("blob %s: %w", desc.Digest, remote.ErrNotFound))
		return false
	}
	named[desc.Digest] = true
	return true
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
			if !s.isStored(sg, t.Own.Store.Name()) {
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
