package automount

import (
	"context"

	"github.com/moby/buildkit/solver/pb"
)

// runs says why the image that comes out would lack what a node's command leaves at its mount's place.
func (g *graph) runs(n *node, w wish, upon map[*node]bool) string {
	if !w.lasts || !g.output[n] {
		return ""
	}
	if why := g.image.uses(w, g.made); why != "" {
		return why
	}
	if !w.fills {
		return ""
	}
	for m := range upon {
		if g.output[m] && m.wants(w.Target) {
			return ""
		}
	}
	return "the command only fills its cache, and no step behind it in the image uses that"
}

// covers says why a mount would hide something of an image that a node stands on. Whatever another step of the build puts there is
// the business of missed.
func (g *graph) covers(ctx context.Context, n *node, w wish, below map[*node]bool) (string, error) {
	if !w.stock {
		return "", nil
	}
	for _, m := range g.nodes { // in their order, so that the reason is always the same
		if !below[m] || m.op.GetSource() == nil {
			continue
		}
		full, err := g.full(ctx, m, w.Target)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err != nil:
			return "what " + m.op.GetSource().Identifier + " has there is not known: " + err.Error(), nil
		case full:
			return m.op.GetSource().Identifier + " has something there", nil
		}
	}
	return "", nil
}

// place is a path in a source.
type place struct {
	source *node
	path   string
}

type found struct {
	full bool
	err  error
}

// full asks, once for each place, whether a source has something there.
func (g *graph) full(ctx context.Context, source *node, p string) (bool, error) {
	at := place{source, p}
	f, ok := g.places[at]
	if !ok {
		def, err := g.alone(source)
		if err == nil {
			f.full, err = g.opt.Occupied(ctx, def, p)
		}
		f.err = err
		g.places[at] = f
	}
	return f.full, f.err
}

// alone gives a definition whose output is a source.
func (g *graph) alone(source *node) (*pb.Definition, error) {
	end, err := marshal(&pb.Op{Inputs: []*pb.Input{{Digest: source.digest}}})
	if err != nil {
		return nil, err
	}
	def := &pb.Definition{Def: [][]byte{source.raw, end}, Metadata: map[string]*pb.OpMetadata{}}
	if meta := g.def.Metadata[source.digest]; meta != nil {
		def.Metadata[source.digest] = meta
	}
	if s := g.def.Source; s != nil && s.Locations[source.digest] != nil {
		def.Source = &pb.Source{Infos: s.Infos, Locations: map[string]*pb.Locations{source.digest: s.Locations[source.digest]}}
	}
	return def, nil
}
