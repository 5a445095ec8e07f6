package solve

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// maxVertices bounds the size of one definition.
const maxVertices = 100_000

// ErrDefinition is wrapped by what Evaluate says of LLB that is not well formed.
var ErrDefinition = errors.New("this is no valid LLB")

// node is a vertex as the definition has it: what to do, on which inputs.
type node struct {
	digest      digest.Digest
	op          *pb.Op
	inputs      []edge
	name        string
	group       *pb.ProgressGroup
	ignoreCache bool
	file        string // where it comes from: the Dockerfile, and the line in it, 1 for the first; empty where that is not known
	row         int
	args        []string // what that file's ARG instructions declare
	// label is the name without values of variables, which people put tokens into: what is kept of a step says it so (DESIGN invariant 4).
	label string
}

// edge names one output of a node.
type edge struct {
	node  *node
	index int
}

// parse reads a definition and gives the output that it defines. An empty definition is scratch: a nil node.
func parse(def *pb.Definition) (edge, error) {
	if def == nil || len(def.Def) == 0 {
		return edge{}, nil
	}
	if len(def.Def) > maxVertices {
		return edge{}, fmt.Errorf("%d vertices, more than %d: %w", len(def.Def), maxVertices, ErrDefinition)
	}
	nodes := make(map[digest.Digest]*node, len(def.Def))
	var last *node
	for _, raw := range def.Def {
		op := new(pb.Op)
		if err := op.UnmarshalVT(raw); err != nil {
			return edge{}, fmt.Errorf("%w: %w", ErrDefinition, err)
		}
		n := &node{digest: digest.FromBytes(raw), op: op}
		n.describe(def.Metadata[string(n.digest)])
		n.place(def.Source)
		nodes[n.digest] = n
		last = n
	}
	// A vertex names its inputs by digest, so there can be no cycle; the order of the list is not promised.
	for _, n := range nodes {
		for _, in := range n.op.Inputs {
			from, ok := nodes[digest.Digest(in.Digest)]
			if !ok {
				return edge{}, fmt.Errorf("input %.80q of %s is missing: %w", in.Digest, n.digest, ErrDefinition)
			}
			n.inputs = append(n.inputs, edge{from, int(in.Index)})
		}
	}
	if len(last.inputs) != 1 || last.op.Op != nil {
		return edge{}, fmt.Errorf("its last vertex names no output: %w", ErrDefinition)
	}
	return last.inputs[0], nil
}

func (n *node) describe(md *pb.OpMetadata) {
	if md != nil {
		n.name = md.Description["llb.customname"]
		n.group = md.ProgressGroup
		n.ignoreCache = md.IgnoreCache
	}
	if n.name != "" {
		return
	}
	switch op := n.op.Op.(type) {
	case *pb.Op_Source:
		n.name = op.Source.Identifier
	case *pb.Op_Exec:
		if op.Exec.Meta != nil {
			n.name = strings.Join(op.Exec.Meta.Args, " ")
		}
	case *pb.Op_File:
		n.name = "file operations"
	case *pb.Op_Merge:
		n.name = "merge"
	case *pb.Op_Diff:
		n.name = "diff"
	}
	if n.name == "" {
		n.name = string(n.digest)
	}
}

// place notes where a vertex comes from.
func (n *node) place(src *pb.Source) {
	n.label = n.name
	locs := src.GetLocations()[string(n.digest)].GetLocations()
	for _, l := range locs {
		if i := int(l.SourceIndex); i >= 0 && i < len(src.Infos) && len(l.Ranges) > 0 {
			n.file, n.row = src.Infos[i].Filename, int(l.Ranges[0].GetStart().GetLine())
			n.args = declared(src.Infos[i].Data)
			n.write(src.Infos[i].Data, n.row, int(l.Ranges[len(l.Ranges)-1].GetEnd().GetLine()))
			return
		}
	}
}

// maxLabel bounds what a label takes from a Dockerfile, in bytes.
const maxLabel = 2 << 10

// write makes the label of what the Dockerfile's lines say. Those of a source are kept as they are displayed: that names an image.
func (n *node) write(dockerfile []byte, from, to int) {
	if n.op.GetSource() != nil {
		return
	}
	stage, said := "", n.name
	if strings.HasPrefix(said, "[") {
		if i := strings.Index(said, "] "); i > 0 {
			stage, said = said[:i+2], said[i+2:]
		}
	}
	lines := strings.Split(string(dockerfile), "\n")
	var words []string
	for i := max(from-1, 0); i < min(max(to, from), len(lines)); i++ {
		line := strings.TrimSpace(lines[i])
		words = append(words, strings.Fields(strings.TrimSuffix(line, "\\"))...)
		if !strings.HasSuffix(line, "\\") && !strings.HasPrefix(line, "#") {
			break // what follows is a here-document
		}
	}
	verb, _, _ := strings.Cut(said, " ")
	switch x := n.op.GetExec(); {
	case len(words) > 0 && strings.EqualFold(words[0], verb):
		words[0] = verb
	case x != nil && x.Meta != nil: // a trigger of the base image
		words = append([]string{"RUN"}, x.Meta.Args...)
	default:
		return
	}
	text := strings.Join(words, " ")
	n.label = stage + text[:min(len(text), maxLabel)]
}

var argLine = regexp.MustCompile(`(?im)^[ \t]*ARG[ \t]+(.+)$`)

// declared lists the names that ARG instructions of a Dockerfile declare.
func declared(dockerfile []byte) []string {
	var out []string
	for _, m := range argLine.FindAllSubmatch(dockerfile, -1) {
		for field := range strings.FieldsSeq(string(m[1])) {
			name, _, _ := strings.Cut(field, "=")
			out = append(out, name)
		}
	}
	return out
}

// reachable lists the nodes that an edge needs, inputs before users.
func reachable(e edge) []*node {
	var out []*node
	seen := map[*node]bool{}
	var visit func(n *node)
	visit = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		for _, in := range n.inputs {
			visit(in.node)
		}
		out = append(out, n)
	}
	if e.node != nil {
		visit(e.node)
	}
	return out
}
