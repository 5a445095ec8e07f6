package solve

import (
	"context"
	"fmt"
	"slices"

	"larder/internal/layer"
)

// maxRewinds bounds how often one step is taken back: what is made here does not vanish, so once is the rule. A second time is for a layer
// that came back under another identity and left again.
const maxRewinds = 2

// rewind is a request of somebody outside the graph.
type rewind struct {
	gone  *layer.GoneError
	reply chan bool // holds one
}

// rewind takes back the step that makes a layer, for Solver.Rewind.
func (g *graph) rewind(ctx context.Context, gone *layer.GoneError) bool {
	if !g.takeBack(nil, gone) {
		return false
	}
	g.again(ctx)
	return true
}

// takeBack makes the step undone whose record promised a layer that is gone, and with it all that was built on its result:
// those steps are looked up, or done, again. asker is the vertex that missed the layer; it has just ended. False means that
// no step makes that layer, or that it was taken back too often.
func (g *graph) takeBack(asker *vertex, gone *layer.GoneError) bool {
	var makers []*vertex
	for _, v := range g.vertices {
		if v.status == done && holds(v.outputs, gone) && !g.below(v, gone) {
			if v.rewound >= maxRewinds {
				return false
			}
			makers = append(makers, v)
		}
	}
	if len(makers) == 0 {
		// Another asker may have had it taken back already: then what was asked for is being made again.
		return asker != nil && slices.ContainsFunc(asker.inputs, func(in *vertex) bool { return in.status != done })
	}
	g.s.opt.Layers.Lost(gone)
	undone := map[*vertex]bool{}
	for _, v := range makers {
		v.rewound++
		v.line.Note(fmt.Sprintf("what the cache promised cannot be had (%v): done again", gone.Err))
		undone[v] = true
	}
	for more := true; more; {
		more = false
		for _, v := range g.vertices {
			if !undone[v] && slices.ContainsFunc(v.inputs, func(in *vertex) bool { return undone[in] }) {
				undone[v] = true
				more = true
			}
		}
	}
	for v := range undone {
		switch v.status {
		case done:
			v.status, v.outputs = idle, nil
		case waiting:
			g.park(v)
		case working:
			if v != asker {
				v.stale = true
				v.stop()
			}
		}
	}
	return true
}

// holds tells whether one of a vertex's outputs has the layer.
func holds(outputs []*layer.State, gone *layer.GoneError) bool {
	return slices.ContainsFunc(outputs, func(st *layer.State) bool {
		return slices.Contains(st.Identities(), gone.Identity)
	})
}

// below tells whether a vertex was given the layer by one that it stands on, and did not make it itself.
func (g *graph) below(v *vertex, gone *layer.GoneError) bool {
	return slices.ContainsFunc(v.inputs, func(in *vertex) bool { return in.status == done && holds(in.outputs, gone) })
}

// park takes a vertex out of the queue.
func (g *graph) park(v *vertex) {
	v.status = idle
	for _, in := range v.inputs {
		delete(in.dependents, v)
	}
}

// again makes everything wanted anew that an open goal needs, after something was taken back.
func (g *graph) again(ctx context.Context) {
	open := make([]*goal, 0, len(g.goals))
	for gl := range g.goals {
		open = append(open, gl)
		for _, n := range gl.nodes {
			delete(g.vertices[n.digest].goals, gl)
		}
	}
	// All are wanted before the first is answered: an answer stops what nobody else wants.
	bad := map[*goal]*vertex{}
	for _, gl := range open {
		bad[gl] = g.want(ctx, g.vertices[gl.target.node.digest], gl)
	}
	for _, gl := range open {
		g.settle(gl, bad[gl])
	}
}

// stacked lists the nodes whose layers a goal's state is made of: those that it is stacked on, not those that it copies from.
func stacked(target edge) []*node {
	var out []*node
	seen := map[edge]bool{}
	var visit func(e edge)
	visit = func(e edge) {
		if e.node == nil || seen[e] {
			return
		}
		seen[e] = true
		out = append(out, e.node)
		for _, i := range e.node.bases(e.index) {
			if i >= 0 && i < len(e.node.inputs) {
				visit(e.node.inputs[i])
			}
		}
	}
	visit(target)
	return out
}

// bases lists the inputs that an output of the node is stacked on.
func (n *node) bases(output int) []int {
	if x := n.op.GetExec(); x != nil {
		for _, m := range x.Mounts {
			if int(m.Output) == output {
				return []int{int(m.Input)}
			}
		}
		return nil
	}
	if f := n.op.GetFile(); f != nil {
		for _, a := range f.Actions {
			if int(a.Output) != output {
				continue
			}
			at := int(a.Input)
			for at >= len(n.inputs) && at-len(n.inputs) < len(f.Actions) { // an action stands on an earlier one's result
				next := int(f.Actions[at-len(n.inputs)].Input)
				if next >= at {
					return nil
				}
				at = next
			}
			return []int{at}
		}
		return nil
	}
	all := make([]int, len(n.inputs))
	for i := range all {
		all[i] = i
	}
	return all
}
