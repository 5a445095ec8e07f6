package frontend

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Vertex is one operation of a definition.
type Vertex struct {
	Digest digest.Digest
	Op     *pb.Op
	Meta   *pb.OpMetadata // may be nil
}

// Vertices decodes a definition, in its own order: inputs first, as a rule. The last one names the output.
func Vertices(def *pb.Definition) ([]Vertex, error) {
	var out []Vertex
	for i, raw := range def.GetDef() {
		op := new(pb.Op)
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, fmt.Errorf("operation %d of %d: %w", i+1, len(def.Def), err)
		}
		d := digest.FromBytes(raw)
		out = append(out, Vertex{d, op, def.Metadata[string(d)]})
	}
	return out, nil
}

// String gives one line: the operation in short, for debugging and tests.
func (v Vertex) String() string {
	switch op := v.Op.Op.(type) {
	case *pb.Op_Source:
		return "source " + op.Source.Identifier
	case *pb.Op_Exec:
		return "exec " + strings.Join(op.Exec.GetMeta().GetArgs(), " ")
	case *pb.Op_File:
		var parts []string
		for _, a := range op.File.Actions {
			switch a := a.Action.(type) {
			case *pb.FileAction_Copy:
				parts = append(parts, "copy "+a.Copy.Src+" "+a.Copy.Dest)
			case *pb.FileAction_Mkdir:
				parts = append(parts, "mkdir "+a.Mkdir.Path)
			case *pb.FileAction_Mkfile:
				parts = append(parts, "mkfile "+a.Mkfile.Path)
			case *pb.FileAction_Rm:
				parts = append(parts, "rm "+a.Rm.Path)
			case *pb.FileAction_Symlink:
				parts = append(parts, "symlink "+a.Symlink.Oldpath+" "+a.Symlink.Newpath)
			}
		}
		return "file " + strings.Join(parts, ", ")
	case *pb.Op_Merge:
		return fmt.Sprintf("merge %d", len(op.Merge.Inputs))
	case *pb.Op_Diff:
		return "diff"
	case *pb.Op_Build:
		return "build"
	}
	return "output"
}
