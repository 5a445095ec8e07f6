package ledger

import (
	"encoding/binary"
	"slices"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

// Look is who looks at files, when, and at what he may have looked before.
type Look struct {
	// By names who looks, the same each time: for cache mounts a step's command, where it runs and what is mounted there, but not its variables,
	// which a build argument changes with each build; for a context which parts of it are wanted.
	// Only who is known to have seen a directory without a file can be shown that the file is there again. Zero where nothing
	// lasting names him.
	By key.Digest
	// Now is the time of this machine. A file's own time that lies beyond is not believed.
	Now time.Time
	// Ledgers are those of everything that remembers files: of each of a step's cache mounts that has content, or the scope's for a
	// context. Nil stands for one that knows nothing: all files count as changed.
	Ledgers []*tree.Node
	// Newest is the latest mtime in the cache mounts; 0 without mounts. One from the future stands for Now: it says nothing of when the mounts were
	// written to last.
	Newest int64
}

// Show gives root with the times that its files are to be shown with. root is a merged tree or a layer's, and shows the files' own
// times. Without ledgers that is what is shown.
//
// A regular file whose digest is in all ledgers keeps their time, the latest where they differ, as do symlinks with the same target
// and directories with the same names in them. Everything else is newer than what the ledgers and Newest know of, and in
// whole seconds newer than what stood at its path: a Python cache knows no more of its source. Own times that are new enough stay as
// they are. Others are raised by as little as can be, into a later whole second than all of that, as some tools compare no more. A part comes
// from the digest: two machines that raise different contents from the same time, or have a clock of whole seconds, do not both show the same time.
//
// Directories that only lead to what is shown (Implied) and special files keep their own times. All names of a file with several show
// the same. The result shares with root what does not differ from it.
func Show(root *tree.Node, look Look) (*tree.Node, error) {
	if len(look.Ledgers) == 0 {
		return root, nil
	}
	s := &shower{now: look.Now.UnixNano(), floor: look.Newest, known: make([]uint32, len(look.Ledgers)), named: make([]bool, len(look.Ledgers))}
	horizon := s.now + int64(aheadAtMost)
	if s.floor > horizon {
		s.floor = s.now
	}
	for i, l := range look.Ledgers {
		if l == nil {
			continue
		}
		s.known[i], s.named[i] = bitOf(l, look.By), bitsOf(l) != 0
		newest, err := latest(l, horizon)
		if err != nil {
			return nil, err
		}
		if l.MTime <= horizon {
			newest = max(newest, l.MTime) // which what it no longer holds was shown with
		}
		s.floor = max(s.floor, newest)
	}
	if root.HasGroups() {
		// A file is dated by all of its names, which are known after the first time.
		s.linked = map[uint64]int64{}
		if _, err := s.dir(root, look.Ledgers); err != nil {
			return nil, err
		}
	}
	return s.dir(root, look.Ledgers)
}

// aheadAtMost is by how much machines' clocks may differ. A time in a ledger that is further ahead is a file's that came from the future,
// and would take all that changes there, where tools make it anew each time.
const aheadAtMost = time.Hour

type shower struct {
	now, floor int64
	known      []uint32         // per ledger the bit of who looks; 0 where the ledger does not know him
	named      []bool           // per ledger whether it knows anybody
	linked     map[uint64]int64 // by Group, the latest time of its names so far
}

// dir shows what is in a directory, but not the directory itself. was has what each ledger knows at its path, nil for nothing.
func (s *shower) dir(n *tree.Node, was []*tree.Node) (*tree.Node, error) {
	entries, err := n.Entries()
	if err != nil {
		return nil, err
	}
	var out []tree.Entry // set once it differs from entries
	below := make([]*tree.Node, len(was))
	for i, e := range entries {
		for j, w := range was {
			below[j] = nil
			if w != nil {
				if below[j], err = w.Lookup(e.Name); err != nil {
					return nil, err
				}
			}
		}
		shown, err := s.node(e.Node, below)
		if err != nil {
			return nil, err
		}
		if shown != e.Node {
			if out == nil {
				out = slices.Clone(entries)
			}
			out[i].Node = shown
		}
	}
	if out == nil {
		return n, nil
	}
	return withEntries(n, out)
}

func (s *shower) node(n *tree.Node, was []*tree.Node) (*tree.Node, error) {
	var mtime int64
	switch {
	case n.Kind == tree.File:
		mtime = s.time(n.MTime, n.Content, was, s.all(was, func(w *tree.Node) bool { return w.Kind == tree.File && w.Content == n.Content }))
	case n.Kind == tree.Symlink:
		same := s.all(was, func(w *tree.Node) bool { return w.Kind == tree.Symlink && w.Link == n.Link })
		mtime = s.time(n.MTime, key.Bytes([]byte(n.Link)), was, same)
	case n.Kind == tree.Dir:
		inside, err := s.dir(n, was)
		if err != nil || n.Implied {
			return inside, err
		}
		listing, same, err := s.listing(n, was)
		if err != nil {
			return nil, err
		}
		return dated(inside, s.time(n.MTime, listing, was, same)), nil
	default:
		return n, nil
	}
	if n.Group != 0 {
		mtime = max(mtime, s.linked[n.Group])
		s.linked[n.Group] = mtime
	}
	return dated(n, mtime), nil
}

// all tells whether every ledger has a node at a path that is as wanted and believed.
func (s *shower) all(was []*tree.Node, wanted func(*tree.Node) bool) bool {
	for i, w := range was {
		if w == nil || !s.believed(w, i) || !wanted(w) {
			return false
		}
	}
	return true
}

// believed tells whether what a ledger says of a path holds for who looks: he saw it when he looked last, and nobody deleted it since.
func (s *shower) believed(w *tree.Node, ledger int) bool {
	known := s.known[ledger]
	return w.UID&known == known && (w.UID != 0 || !s.named[ledger])
}

// listing gives a digest of a directory's names, and whether all ledgers have the same and a time for the directory.
func (s *shower) listing(n *tree.Node, was []*tree.Node) (names key.Digest, same bool, err error) {
	entries, err := n.Entries()
	if err != nil {
		return names, false, err
	}
	h := key.New("larder.ledger.listing.v1").Uint(uint64(len(entries)))
	for _, e := range entries {
		h.Str(e.Name).Uint(uint64(e.Node.Kind))
	}
	names = h.Sum()
	if !s.all(was, func(w *tree.Node) bool { return w.Kind == tree.Dir && w.MTime != 0 }) {
		return names, false, nil
	}
	for i, w := range was {
		old, err := w.Entries()
		if err != nil {
			return names, false, err
		}
		rest := entries
		for _, o := range old {
			if !s.believed(o.Node, i) {
				continue // seen by others only, or deleted
			}
			if len(rest) == 0 || rest[0].Name != o.Name || rest[0].Node.Kind != o.Node.Kind {
				return names, false, nil
			}
			rest = rest[1:]
		}
		if len(rest) > 0 {
			return names, false, nil
		}
	}
	return names, true, nil
}

const (
	milli  = int64(time.Millisecond)
	second = int64(time.Second)
)

// time is what a node is shown with that has a time of its own and a digest. was is what the ledgers have at its path; same says
// that it is what they know.
func (s *shower) time(own int64, digest key.Digest, was []*tree.Node, same bool) int64 {
	if same {
		kept := was[0].MTime
		for _, w := range was[1:] {
			kept = max(kept, w.MTime)
		}
		return kept
	}
	below := s.floor // the latest time that it may not be shown with
	for _, w := range was {
		if w == nil {
			below = max(below, endOfSecond(s.floor)) // who knows what stood there before
		} else {
			below = max(below, endOfSecond(w.MTime))
		}
	}
	salt := int64(binary.LittleEndian.Uint64(digest[:]) >> 1)
	if own = min(own, s.now); own > below {
		if own%milli == 0 {
			own += salt % milli // a clock too coarse to tell two writers apart
		}
		return own
	}
	below = max(below, endOfSecond(s.floor))
	room := min(max(s.now-below-1, milli), second) // a time that is still to come would make tools do things twice
	return below + 1 + salt%room
}

// endOfSecond gives the last nanosecond of the second that t lies in.
func endOfSecond(t int64) int64 {
	into := t % second
	if into < 0 {
		into += second
	}
	return t - into + second - 1
}

// Latest gives the latest mtime of anything in a tree that is not after end, whatever its kind; 0 where there is nothing. The root itself does
// not count.
func Latest(root *tree.Node, end time.Time) (int64, error) { return latest(root, end.UnixNano()) }

func latest(root *tree.Node, end int64) (int64, error) {
	var newest int64
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		if n.MTime <= end && path != "" && n.Kind != tree.Whiteout {
			newest = max(newest, n.MTime)
		}
		return nil
	})
	return newest, err
}

func dated(n *tree.Node, mtime int64) *tree.Node {
	if n.MTime == mtime {
		return n
	}
	meta := n.Meta
	meta.MTime = mtime
	return n.WithMeta(meta)
}

// withEntries gives a directory with others of its entries' nodes.
func withEntries(n *tree.Node, entries []tree.Entry) (*tree.Node, error) {
	d, err := tree.NewDir(n.Meta, n.Opaque, entries)
	if err != nil {
		return nil, err
	}
	d.Implied = n.Implied
	return d, nil
}
