package build

import (
	"fmt"
	"path"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"larder/internal/solve"
)

// declared is a cache mount that a RUN of a target declares.
type declared struct {
	mount    *pb.Mount      // its Dest is absolute
	input    *pb.Definition // what it is filled with at first; nil for nothing
	platform *pb.Platform   // what the RUN runs on
}

// declaredCaches lists the cache mounts that the RUN instructions of a target declare: those that its root file system comes
// from, of the stages that it is built upon too. Of two at one place the later instruction's counts.
func declaredCaches(def *pb.Definition) ([]declared, error) {
	if def == nil || len(def.Def) == 0 {
		return nil, nil
	}
	l := &lineage{def: def, ops: map[digest.Digest]*pb.Op{}, seen: map[string]bool{}, visited: map[edge]bool{}}
	var last *pb.Op
	for _, raw := range def.Def {
		op := new(pb.Op)
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, fmt.Errorf("%w: %w", solve.ErrDefinition, err)
		}
		l.ops[digest.FromBytes(raw)] = op
		last = op
	}
	for _, in := range last.Inputs {
		if err := l.follow(in); err != nil {
			return nil, err
		}
	}
	return l.found, nil
}

// lineage walks from a target's output to what its root file system comes from, the latest first.
type lineage struct {
	def     *pb.Definition
	ops     map[digest.Digest]*pb.Op
	seen    map[string]bool // places in the file system
	visited map[edge]bool
	found   []declared
}

// edge is one output of an operation.
type edge struct {
	digest string
	index  int64
}

func (l *lineage) follow(in *pb.Input) error {
	at := edge{in.Digest, in.Index}
	op := l.ops[digest.Digest(in.Digest)]
	if op == nil {
		return fmt.Errorf("input %.80q is missing: %w", in.Digest, solve.ErrDefinition)
	}
	if l.visited[at] {
		return nil
	}
	l.visited[at] = true
	var from []int // inputs, the latest first
	switch o := op.Op.(type) {
	case *pb.Op_Exec:
		from = l.exec(op, o.Exec, in.Index)
	case *pb.Op_File:
		from = fileRoot(op, o.File, in.Index)
	case *pb.Op_Merge:
		for n := len(o.Merge.Inputs) - 1; n >= 0; n-- {
			from = append(from, int(o.Merge.Inputs[n].Input))
		}
	}
	for _, n := range from {
		if n < 0 {
			continue // the empty file system
		}
		if n >= len(op.Inputs) {
			return fmt.Errorf("input %d of %.80q is missing: %w", n, in.Digest, solve.ErrDefinition)
		}
		if err := l.follow(op.Inputs[n]); err != nil {
			return err
		}
	}
	return nil
}

// exec notes the cache mounts of a RUN and gives the input that its output was made upon.
func (l *lineage) exec(op *pb.Op, run *pb.ExecOp, index int64) (from []int) {
	for n := len(run.Mounts) - 1; n >= 0; n-- {
		m := run.Mounts[n]
		if m.Output == index {
			from = append(from, int(m.Input))
		}
		if m.MountType != pb.MountType_CACHE {
			continue
		}
		dest := path.Clean(m.Dest)
		if !path.IsAbs(dest) {
			dest = path.Join("/", run.GetMeta().GetCwd(), dest)
		}
		if l.seen[dest] || m.CacheOpt == nil {
			continue
		}
		l.seen[dest] = true
		d := declared{mount: m.CloneVT(), platform: op.Platform}
		d.mount.Dest = dest
		if m.Input >= 0 && int(m.Input) < len(op.Inputs) {
			d.input = output(l.def, op.Inputs[m.Input])
		}
		l.found = append(l.found, d)
	}
	return from
}

// fileRoot gives the input that a file operation's output was made upon.
func fileRoot(op *pb.Op, file *pb.FileOp, index int64) []int {
	at := -1
	for n, a := range file.Actions {
		if int64(a.Output) == index {
			at = n
		}
	}
	// An action's input is one of the operation's, or an earlier action's result.
	for at >= 0 {
		in := int(file.Actions[at].Input)
		next := in - len(op.Inputs)
		if next < 0 {
			return []int{in}
		}
		if next >= at {
			break
		}
		at = next
	}
	return nil
}

// output gives the definition of something that another definition is made from.
func output(def *pb.Definition, in *pb.Input) *pb.Definition {
	last, err := (&pb.Op{Inputs: []*pb.Input{in}}).MarshalVT()
	if err != nil {
		panic(err) // a list of one name and a number
	}
	return &pb.Definition{Def: append(def.Def[:len(def.Def)-1:len(def.Def)-1], last), Metadata: def.Metadata, Source: def.Source}
}
