package catalog

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"larder/internal/key"
	"larder/internal/remote"
)

// texts are the contents of the segments and packs that a test made, by digest. A segment is a text: "full a b" says that a mount holds a
// and b, "delta c" that c came to that. Each of those lies in a pack of its own.
type texts map[digest.Digest]string

// segment makes a segment.
func (x texts) segment(kind string, things ...string) Segment {
	things = slices.Compact(slices.Sorted(slices.Values(things)))
	blob := func(text string) ocispecs.Descriptor {
		d := descOf(text, "application/octet-stream")
		x[d.Digest] = text
		return d
	}
	s := Segment{Blob: blob(strings.Join(append([]string{kind}, things...), " "))}
	for _, thing := range things {
		s.Packs = append(s.Packs, blob("pack "+thing))
	}
	return s
}

// holds reads a row as package generation does: the first segment has to say everything, others add. Each brings the packs of what it
// names.
func (x texts) holds(row []Segment) (map[string]bool, error) {
	all := map[string]bool{}
	for i, seg := range row {
		words := strings.Fields(x[seg.Blob.Digest])
		if len(words) == 0 || i == 0 && words[0] != "full" {
			return nil, fmt.Errorf("segment %d is %q", i, x[seg.Blob.Digest])
		}
		if len(seg.Packs) != len(words)-1 {
			return nil, fmt.Errorf("%q has %d packs", words, len(seg.Packs))
		}
		for _, thing := range words[1:] {
			all[thing] = true
		}
	}
	return all, nil
}

// how a build changes a mount.
type how int

const (
	appends     how = iota // a segment behind those that there were
	compacts               // one segment for all
	shortens               // one for the first ones, and another behind all
	moves                  // the row comes from another catalog
	uses                   // nothing
	shortensEnd            // one for the last ones
	hows
)

// build makes what a build that began with a row, which may be empty, puts when it has added a thing.
func (x texts) build(name string, united bool, begun []Segment, how how, thing string) MountPut {
	p := MountPut{Mount: Mount{Key: keyOf("mount " + name), ID: "/" + name, Platform: "linux/amd64", United: united, Saved: epoch, Builds: 1, Files: 1, Size: 1}}
	for _, s := range begun {
		d, err := key.FromOCI(s.Blob.Digest)
		if err != nil {
			panic(err)
		}
		p.Base = append(p.Base, d)
	}
	had := func(row []Segment) []string {
		all, err := x.holds(row)
		if err != nil {
			panic(err)
		}
		var list []string
		for thing := range all {
			list = append(list, thing)
		}
		return list
	}
	half := (len(begun) + 1) / 2
	switch {
	case len(begun) == 0:
		p.Mount.Segments = []Segment{x.segment("full", thing)}
	case how == compacts:
		p.Mount.Segments = []Segment{x.segment("full", append(had(begun), thing)...)}
	case how == shortens:
		p.Mount.Segments = slices.Concat([]Segment{x.segment("full", had(begun[:half])...)}, begun[half:], []Segment{x.segment("delta", thing)})
	case how == shortensEnd && len(begun) > 1:
		rest := slices.Clone(begun[half:])
		rest[0] = x.segment("full", append(had(begun), thing)...)
		p.Mount.Segments = slices.Concat(begun[:half], rest[:1])
	case how == uses:
		p.Mount.Segments = begun
	default:
		p.Mount.Segments = slices.Concat(begun, []Segment{x.segment("delta", thing)})
	}
	if how == moves {
		p.Base = nil
	}
	return p
}

func drawHow(t *rapid.T) how { return how(rapid.IntRange(0, int(hows)-1).Draw(t, "how")) }

// stock puts the blobs of a put into a store.
func (x texts) stock(ctx context.Context, store remote.Store, p MountPut) error {
	for d := range p.Mount.Blobs() {
		text := x[d.Digest]
		up := remote.Upload{Desc: d, New: true, Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
		if _, err := store.Put(ctx, up); err != nil {
			return err
		}
	}
	return nil
}

// bigMount makes a mount of n segments with packs of their own.
func bigMount(name string, n, packs int, used time.Time) Mount {
	m := Mount{Key: keyOf("mount " + name), ID: "/root/.cache/" + name, Platform: "linux/amd64", Saved: used, Used: used, Builds: 1}
	for i := range n {
		s := Segment{Blob: descOf(fmt.Sprint("segment ", name, i), "application/vnd.larder.mount.v1+zstd")}
		for j := range packs {
			s.Packs = append(s.Packs, descOf(fmt.Sprint("pack ", name, i, j), "application/vnd.larder.pack.v1+zstd"))
		}
		m.Segments = append(m.Segments, s)
	}
	return m
}
