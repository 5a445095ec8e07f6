package frontend

import (
	"io"
	"math"
	"slices"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// Place is where in a source file an error comes from.
type Place struct {
	File  string // as the user named it
	Start int    // first line, from 1
	End   int    // last line

	source *errdefs.Source
}

// Print shows the lines around the place with a marker on those that it names.
func (p Place) Print(w io.Writer) error { return p.source.Print(w) }

// Failure is an error in the parts that a display wants.
type Failure struct {
	Message string
	// Places lists where the error comes from, the innermost first. It is empty for an error that has nothing to do with a
	// source file.
	Places []Place
}

// Describe takes an error of Build, or of a solver that locates its errors (errdefs.WithSource), apart. Nil gives the
// zero value.
func Describe(err error) Failure {
	if err == nil {
		return Failure{}
	}
	f := Failure{Message: err.Error()}
	for _, s := range errdefs.Sources(err) {
		p := Place{Start: math.MaxInt, source: s}
		if s.Info != nil {
			p.File = s.Info.Filename
		}
		s.Ranges = slices.DeleteFunc(s.Ranges, func(r *pb.Range) bool { return r == nil || r.Start == nil })
		for _, r := range s.Ranges {
			if r.End == nil {
				r.End = r.Start
			}
			p.Start = min(p.Start, int(r.Start.Line))
			p.End = max(p.End, int(r.Start.Line), int(r.End.Line))
		}
		if p.End > 0 {
			f.Places = append(f.Places, p)
		}
	}
	return f
}
