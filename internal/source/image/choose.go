package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
)

const (
	maxIndexDepth = 3   // indexes within indexes
	maxEntries    = 500 // manifests in an index
	maxUnnamed    = 20  // entries without a platform whose config is looked at
)

// matcher gives containerd's rules for platforms: amd64/v2 does on an amd64/v3 machine, arm/v7 on arm64 ...
func matcher(platform *ocispecs.Platform) platforms.MatchComparer {
	if platform == nil {
		return platforms.Only(platforms.DefaultSpec())
	}
	return platforms.Only(*platform)
}

// chooser finds the manifest of a platform below a root document.
type chooser struct {
	src   source
	name  string
	match platforms.MatchComparer
	root  ocispecs.Descriptor
	seen  []string // platforms that an index offers, for the message
}

// chosen is a manifest that fits.
type chosen struct {
	desc   ocispecs.Descriptor
	doc    ocispecs.Manifest
	config []byte // where it had to be read already
}

// document is what a manifest and an index have.
type document struct {
	MediaType string                `json:"mediaType"`
	Config    *ocispecs.Descriptor  `json:"config"`
	Layers    []ocispecs.Descriptor `json:"layers"`
	Manifests []ocispecs.Descriptor `json:"manifests"`
}

func (c *chooser) choose(ctx context.Context, desc ocispecs.Descriptor, depth int) (*chosen, error) {
	m, err := c.find(ctx, desc, depth)
	if err != nil {
		return nil, err
	}
	if m == nil {
		offer := "none that is named"
		if len(c.seen) > 0 {
			slices.Sort(c.seen)
			offer = strings.Join(slices.Compact(c.seen), ", ")
		}
		return nil, fault.Errorf(fault.Build, "image %s is not made for the platform that is wanted; it is made for %s", c.name, offer)
	}
	return m, nil
}

// find gives the best manifest below desc, nil if there is none.
func (c *chooser) find(ctx context.Context, desc ocispecs.Descriptor, depth int) (*chosen, error) {
	if depth > maxIndexDepth {
		return nil, fault.Errorf(fault.Registry, "image %s: indexes within indexes, more than %d deep", c.name, maxIndexDepth)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, fault.Errorf(fault.Registry, "image %s: digest %.100q: %w", c.name, desc.Digest, err)
	}
	b, err := c.src.document(ctx, desc, true)
	if err != nil {
		return nil, describe(c.name, err)
	}
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil || (doc.Config == nil) == (doc.Manifests == nil) {
		return nil, fault.Errorf(fault.Registry, "image %s: %s is neither a manifest nor an index", c.name, desc.Digest)
	}
	desc.Size = int64(len(b))
	if desc.MediaType = doc.MediaType; desc.MediaType == "" {
		desc.MediaType = ocispecs.MediaTypeImageManifest
		if doc.Manifests != nil {
			desc.MediaType = ocispecs.MediaTypeImageIndex
		}
	}
	if depth == 0 {
		c.root = desc
	}
	if doc.Config != nil {
		return &chosen{desc: desc, doc: ocispecs.Manifest{Config: *doc.Config, Layers: doc.Layers}}, nil
	}
	return c.among(ctx, doc.Manifests, depth)
}

// among chooses from an index: entries that name a platform which fits, the best first; then those that name none, by their config.
func (c *chooser) among(ctx context.Context, entries []ocispecs.Descriptor, depth int) (*chosen, error) {
	if len(entries) > maxEntries {
		return nil, fault.Errorf(fault.Registry, "image %s: an index of %d entries, more than %d are not read", c.name, len(entries), maxEntries)
	}
	var named, unnamed []ocispecs.Descriptor
	for _, e := range entries {
		switch {
		case e.Platform == nil:
			unnamed = append(unnamed, e)
		case c.match.Match(*e.Platform):
			named = append(named, e)
		case e.Platform.OS != "unknown": // attestations call themselves that
			c.seen = append(c.seen, platforms.FormatAll(platforms.Normalize(*e.Platform)))
		}
	}
	slices.SortStableFunc(named, func(a, b ocispecs.Descriptor) int {
		switch {
		case c.match.Less(*a.Platform, *b.Platform):
			return -1
		case c.match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	for _, e := range named {
		if m, err := c.find(ctx, e, depth+1); m != nil || err != nil {
			return m, err
		}
	}
	for _, e := range unnamed[:min(len(unnamed), maxUnnamed)] {
		m, err := c.find(ctx, e, depth+1)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		if m.config == nil {
			if m.config, err = c.src.document(ctx, m.doc.Config, false); err != nil {
				return nil, describe(c.name, err)
			}
		}
		var p ocispecs.Platform
		if json.Unmarshal(m.config, &p) != nil || p.OS == "" || p.Architecture == "" {
			continue // an artifact
		}
		if p = platforms.Normalize(p); c.match.Match(p) {
			return m, nil
		}
		c.seen = append(c.seen, fmt.Sprint(platforms.FormatAll(p)))
	}
	return nil, nil
}
