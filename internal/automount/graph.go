package automount

import (
	"errors"
	"fmt"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

// maxVertices bounds the size of one definition.
const maxVertices = 100_000

// graph is a definition, inputs before users.
type graph struct {
	nodes []*node
	end   *node // names the output, and is the last of the definition

	def    *pb.Definition
	opt    Options
	image  config
	output map[*node]bool // what the output's root file system is made of
	made   []string       // programs that it compiles
	places map[place]found
}

// node is a vertex.
type node struct {
	digest string
	raw    []byte
	op     *pb.Op

	inputs []*node
	bases  []*node // those inputs whose files its own root file system begins with
	users  []*node // nodes that it is a base of

	exec     *script  // of an exec op
	settings []string // of tools, made by nodes below
	grant    []wish   // mounts that it gets
	kept     []string // targets that it does not get, because the image is to have what is there
}

// marshal writes an op as LLB's own client does, so that the digests are the same.
func marshal(op *pb.Op) ([]byte, error) { return proto.MarshalOptions{Deterministic: true}.Marshal(op) }

func decode(def *pb.Definition) (*graph, error) {
	if len(def.Def) > maxVertices {
		return nil, fmt.Errorf("a definition of %d vertices, more than %d", len(def.Def), maxVertices)
	}
	all := make(map[string]*node, len(def.Def))
	var list []*node
	for i, raw := range def.Def {
		op := new(pb.Op)
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, fmt.Errorf("operation %d of %d: %w", i+1, len(def.Def), err)
		}
		n := &node{digest: string(digest.FromBytes(raw)), raw: raw, op: op}
		if all[n.digest] == nil {
			all[n.digest] = n
			list = append(list, n)
		}
	}
	for _, n := range list {
		for _, in := range n.op.Inputs {
			from := all[in.Digest]
			if from == nil {
				return nil, fmt.Errorf("input %.80q of %s is missing", in.Digest, n.digest)
			}
			n.inputs = append(n.inputs, from)
		}
		if err := n.link(); err != nil {
			return nil, err
		}
	}
	g := &graph{end: list[len(list)-1]}
	seen := map[*node]bool{}
	for _, n := range list {
		g.visit(n, seen)
	}
	// The last one is the output by its place.
	if g.nodes[len(g.nodes)-1] != g.end {
		return nil, errors.New("the last operation of a definition is the input of another")
	}
	return g, nil
}

// visit lists a node behind its inputs. A vertex names its inputs by digest, so there is no cycle.
func (g *graph) visit(n *node, seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, in := range n.inputs {
		g.visit(in, seen)
	}
	g.nodes = append(g.nodes, n)
}

// link finds a node's bases.
func (n *node) link() error {
	var at []int64
	switch op := n.op.Op.(type) {
	case *pb.Op_Exec:
		for _, m := range op.Exec.GetMounts() {
			if m.Input >= int64(len(n.inputs)) {
				return fmt.Errorf("mount %.80q of %s refers to an input that it has not", m.Dest, n.digest)
			}
			if m.Dest == pb.RootMount {
				at = append(at, m.Input)
			}
		}
	case *pb.Op_File:
		for _, a := range op.File.GetActions() {
			at = append(at, a.Input)
		}
	default: // merges and differences; of what has one input, that
		for i := range n.inputs {
			at = append(at, int64(i))
		}
	}
	for _, i := range at {
		if i < 0 || i >= int64(len(n.inputs)) || slices.Contains(n.bases, n.inputs[i]) {
			continue
		}
		n.bases = append(n.bases, n.inputs[i])
		n.inputs[i].users = append(n.inputs[i].users, n)
	}
	return nil
}

// below lists the nodes that a node's root file system is made of, without the node.
func (n *node) below() map[*node]bool { return n.reach(func(n *node) []*node { return n.bases }) }

// upon lists the nodes whose root file systems are made of this one's, without the node.
func (n *node) upon() map[*node]bool { return n.reach(func(n *node) []*node { return n.users }) }

func (n *node) reach(next func(*node) []*node) map[*node]bool {
	seen := map[*node]bool{}
	todo := slices.Clone(next(n))
	for len(todo) > 0 {
		top := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[top] {
			seen[top] = true
			todo = append(todo, next(top)...)
		}
	}
	return seen
}
