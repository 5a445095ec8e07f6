package observation

import (
	"errors"
	"fmt"
	"strings"

	"larder/internal/key"
	"larder/internal/tree"
)

// Domains of what this file hashes. Whoever changes what goes in changes the number.
const (
	setDomain = "larder.observation.set.v1"
	keyDomain = "larder.observation.key.v1"
)

// Bounds of a set. What goes beyond one is not stored.
const (
	// MaxParts is how many parts a set has at most.
	MaxParts = 1024
	// MaxLooks is how many looks a set has at most, in all parts.
	MaxLooks = 1 << 17

	maxPath  = 4096     // bytes of one path
	maxPaths = 32 << 20 // bytes of all paths
)

// Digest names the set.
func (s Set) Digest() key.Digest { return key.New(setDomain).Raw(s.appendBody(nil)).Sum() }

// Key names what a step with the recipe and pinned layers of base sees through this set: what the record of an observed hit is
// found by. parts are the trees that the step would be served today, in the set's order and number. The error is that of fetching
// a directory.
func (s Set) Key(base key.Digest, parts []*tree.Node) (key.Digest, error) {
	if len(parts) != len(s.Parts) {
		return key.Digest{}, fmt.Errorf("a path set of %d parts does not fit a step that is served %d", len(s.Parts), len(parts))
	}
	h := key.New(keyDomain).Digest(base).Digest(s.Digest()).Uint(uint64(len(parts)))
	for i, looks := range s.Parts {
		values, err := Values(looks, parts[i])
		if err != nil {
			return key.Digest{}, err
		}
		h.Digests(values)
	}
	return h.Sum(), nil
}

// check reports what is wrong with a set: every set that it passes has one stored form.
func (s Set) check() error {
	if len(s.Parts) > MaxParts {
		return fmt.Errorf("a path set of %d parts, more than %d", len(s.Parts), MaxParts)
	}
	looks, bytes := 0, 0
	for _, part := range s.Parts {
		if looks += len(part); looks > MaxLooks {
			return fmt.Errorf("a path set of more than %d looks", MaxLooks)
		}
		for i, l := range part {
			if err := l.check(); err != nil {
				return err
			}
			if i > 0 && part[i-1].Path >= l.Path {
				return fmt.Errorf("%.200q does not come behind %.200q", l.Path, part[i-1].Path)
			}
			if bytes += len(l.Path); bytes > maxPaths {
				return fmt.Errorf("a path set of more than %d bytes", maxPaths)
			}
		}
	}
	return nil
}

var errNoPath = errors.New("no path in a tree")

func (l Look) check() error {
	switch {
	case l.Kind == 0 || l.Kind&^known != 0:
		return fmt.Errorf("%.200q is looked at in an unknown way: %#x", l.Path, uint8(l.Kind))
	case l.Path == "":
		return nil
	case len(l.Path) > maxPath || strings.IndexByte(l.Path, 0) >= 0:
		return fmt.Errorf("%.200q: %w", l.Path, errNoPath)
	}
	for name := range strings.SplitSeq(l.Path, "/") {
		if name == "" || name == "." || name == ".." {
			return fmt.Errorf("%.200q: %w", l.Path, errNoPath)
		}
	}
	return nil
}

// Differ lists those looks of which two trees give different values, each with the kinds that differ only, in the order of looks:
// what an explanation names. The error is that of fetching a directory.
func Differ(looks []Look, was, is *tree.Node) ([]Look, error) {
	changed, err := differ(looks, was, is)
	if err != nil {
		return nil, err
	}
	var each []Look
	for _, l := range changed {
		if l.Kind&Whole != 0 {
			each = append(each, Look{l.Path, Whole})
			continue
		}
		for k := Entry; k <= Content; k <<= 1 {
			if l.Kind&k != 0 {
				each = append(each, Look{l.Path, k})
			}
		}
	}
	if each, err = differ(each, was, is); err != nil {
		return nil, err
	}
	var out []Look
	for _, l := range each {
		if last := len(out) - 1; last >= 0 && out[last].Path == l.Path {
			out[last].Kind |= l.Kind
		} else {
			out = append(out, l)
		}
	}
	return out, nil
}

func differ(looks []Look, was, is *tree.Node) ([]Look, error) {
	before, err := Values(looks, was)
	if err != nil {
		return nil, err
	}
	after, err := Values(looks, is)
	if err != nil {
		return nil, err
	}
	var out []Look
	for i, l := range looks {
		if before[i] != after[i] {
			out = append(out, l)
		}
	}
	return out, nil
}
