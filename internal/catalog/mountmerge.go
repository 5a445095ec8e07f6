package catalog

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// putMount merges what a build did to a cache mount.
func (s state) putMount(p MountPut, now time.Time) {
	next := p.Mount
	have, there := s.mounts[next.Key]
	if !there {
		next.Used = now
		s.mounts[next.Key] = next
		return
	}
	row, whole := p.onto(have)
	switch {
	case whole:
		next.Builds = counted(have, next)
	case sameRow(row, have.Segments):
		next = have
		next.Builds, next.Hit, next.Had = max(have.Builds, p.Mount.Builds), p.Mount.Hit, p.Mount.Had
	default:
		next.Segments = row
		next.Builds, next.Saved = counted(have, next), later(have.Saved, next.Saved)
		if !p.knew(have) { // how much of it is the same file in both nobody knows
			next.Files, next.Size = max(have.Files, next.Files), max(have.Size, next.Size)
		}
	}
	next.Used = later(have.Used, now)
	s.mounts[next.Key] = next
}

// counted counts a build that was not counted yet. It counted itself to what it began with.
func counted(have, next Mount) int64 { return min(max(have.Builds, next.Builds-1)+1, maxCount) }

// onto gives the row that a mount has after a put. whole says that it is the writer's, whatever was there.
func (p MountPut) onto(have Mount) (row []Segment, whole bool) {
	switch {
	case p.unchanged():
		return have.Segments, false
	case p.Mount.United != have.United:
		return p.Mount.Segments, true
	case sameRow(p.Mount.Segments, have.Segments):
		return have.Segments, false
	case p.Mount.United:
		if row := p.unite(have.Segments); bounded(row) {
			return row, false
		}
	}
	return p.Mount.Segments, true
}

// unchanged tells whether the build added nothing to what it began with.
func (p MountPut) unchanged() bool {
	return slices.EqualFunc(p.Mount.Segments, p.base(), func(s Segment, d digest.Digest) bool { return s.Blob.Digest == d })
}

// knew tells whether the build began with all that a catalog has.
func (p MountPut) knew(have Mount) bool { return len(names(have.Segments).without(set(p.base()))) == 0 }

func (p MountPut) base() []digest.Digest {
	base := make([]digest.Digest, len(p.Base))
	for i, d := range p.Base {
		base[i] = d.OCI()
	}
	return base
}

// unite adds the segments that the build added to a row that others may have changed since. Segments that its own stand for go, if all
// of them are still there and at the moment when its own come: who looks later and finds its own there takes nothing away, so that no two writers
// can go on undoing what the other did. The first segment of the result is the first of one of the two rows: it says everything.
func (p MountPut) unite(have []Segment) []Segment {
	mine := p.Mount.Segments
	base, there := set(p.base()), names(have)
	var instead, behind []Segment // of what they stand for; of everything
	kept := false
	for _, seg := range mine {
		switch d := seg.Blob.Digest; {
		case base[d]:
			kept = true
		case there[d]:
		case kept:
			behind = append(behind, seg)
		default:
			instead = append(instead, seg)
		}
	}
	if len(instead)+len(behind) == 0 {
		return have
	}
	replaced := base.without(names(mine))
	if len(replaced) > 0 && len(replaced.without(there)) == 0 {
		at := slices.IndexFunc(have, func(s Segment) bool { return replaced[s.Blob.Digest] })
		left := func(row []Segment) []Segment {
			return slices.DeleteFunc(slices.Clone(row), func(s Segment) bool { return replaced[s.Blob.Digest] })
		}
		row := slices.Concat(have[:at], instead, left(have[at:]), behind)
		if first := row[0].Blob.Digest; first == have[0].Blob.Digest || first == mine[0].Blob.Digest {
			return row
		}
	}
	return slices.Concat(have, instead, behind)
}

// digests is a set.
type digests map[digest.Digest]bool

func set(list []digest.Digest) digests {
	s := make(digests, len(list))
	for _, d := range list {
		s[d] = true
	}
	return s
}

func names(row []Segment) digests {
	s := make(digests, len(row))
	for _, seg := range row {
		s[seg.Blob.Digest] = true
	}
	return s
}

func (s digests) without(o digests) digests {
	left := digests{}
	for d := range s {
		if !o[d] {
			left[d] = true
		}
	}
	return left
}

// torn tells whether a put lacks blobs: what the store turned out not to have, or what the build found gone and did not bring back, as
// a part of what it began with.
func (p MountPut) torn(gone, missing map[digest.Digest]bool) bool {
	base := set(p.base())
	begun := slices.DeleteFunc(slices.Clone(p.Mount.Segments), func(s Segment) bool { return !base[s.Blob.Digest] })
	return p.Mount.names(missing) || Mount{Segments: begun}.names(gone)
}

// lasting gives the puts that are still to be made. Those of a writer whose row counts whole are made once: when another's row is there
// afterwards, that one came later. The row that it replaced is no other's: somebody wrote without having seen either.
func (w *writer) lasting(s state, puts []MountPut) []MountPut {
	if w.writes == 0 {
		w.replaced = s.mounts
		return puts
	}
	var left []MountPut
	for _, p := range puts {
		have, there := s.mounts[p.Mount.Key]
		_, whole := p.onto(have)
		old, had := w.replaced[p.Mount.Key]
		if !there || !whole || had && sameMount(have, old) {
			left = append(left, p)
		}
	}
	return left
}

// admitMounts gives the puts that a catalog can keep, and how many it cannot: those out of bounds.
func admitMounts(puts []MountPut) (kept []MountPut, refused int) {
	for _, p := range puts {
		m := p.Mount
		m.ID, m.Platform = strings.ToValidUTF8(m.ID, "\uFFFD"), strings.ToValidUTF8(m.Platform, "\uFFFD") // as JSON keeps them
		m.Saved = m.Saved.UTC().Truncate(time.Second)
		m.Segments = make([]Segment, len(p.Mount.Segments))
		for i, seg := range p.Mount.Segments {
			packs := make([]ocispecs.Descriptor, len(seg.Packs))
			for j, d := range seg.Packs {
				packs[j] = plain(d)
			}
			m.Segments[i] = Segment{plain(seg.Blob), packs}
		}
		if m.check() != nil {
			refused++
			continue
		}
		kept = append(kept, MountPut{m, p.Base})
	}
	return kept, refused
}
