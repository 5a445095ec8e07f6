package solve

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"larder/internal/layer"
	"larder/internal/progress"
)

// status is all that the graph knows of a vertex's progress.
type status int

const (
	idle    status = iota // nobody wants it
	waiting               // wanted, but an input is not done
	working               // a worker has it
	done                  // its outputs are there
	failed                // it was tried and will not be tried again
)

// vertex is a node with its state in this solver. Only the owner goroutine reads or writes its fields, but for node
// and line, which never change.
type vertex struct {
	node *node
	line *progress.Vertex

	status     status
	inputs     []*vertex
	missing    int // inputs that are not done, while waiting
	dependents map[*vertex]struct{}
	goals      map[*goal]struct{}
	stop       context.CancelFunc // of the worker, while working
	outputs    []*layer.State
	err        error

	result  bool // what it makes becomes part of a goal
	stale   bool // while working: an input was taken back, see rewind.go
	rewound int  // how often it was taken back itself
}

// goal is one request for one output.
type goal struct {
	target edge
	source *sources
	nodes  []*node
	reply  chan answer // holds one
	closed bool
}

type answer struct {
	state *layer.State
	err   error
}

// outcome is what a worker says in the end.
type outcome struct {
	v       *vertex
	outputs []*layer.State
	err     error
}

// graph is the state that the owner goroutine has. run is that goroutine.
type graph struct {
	s        *Solver
	vertices map[digest.Digest]*vertex
	goals    map[*goal]struct{} // those that are open
	working  int
}

func (g *graph) run(ctx context.Context) {
	quit := ctx.Done()
	for {
		select {
		case gl := <-g.s.requests:
			g.add(ctx, gl)
		case gl := <-g.s.withdrawn:
			g.finish(gl, answer{err: context.Canceled})
		case r := <-g.s.rewinds:
			r.reply <- ctx.Err() == nil && g.rewind(ctx, r.gone)
		case r := <-g.s.results:
			g.ended(ctx, r)
		case <-quit:
			quit = nil // workers have the same context: they end soon
		}
		if quit == nil && g.working == 0 {
			return
		}
	}
}

// add makes a goal's vertices wanted and starts what can be started.
func (g *graph) add(ctx context.Context, gl *goal) {
	if ctx.Err() != nil {
		g.finish(gl, answer{err: context.Cause(ctx)})
		return
	}
	g.s.plan(gl.nodes)
	for _, n := range gl.nodes { // inputs first
		if _, ok := g.vertices[n.digest]; ok {
			continue
		}
		v := &vertex{node: n, dependents: map[*vertex]struct{}{}, goals: map[*goal]struct{}{}}
		var ids []digest.Digest
		for _, in := range n.inputs {
			v.inputs = append(v.inputs, g.vertices[in.node.digest])
			ids = append(ids, in.node.digest)
		}
		v.line = g.s.opt.Progress.Announce(n.digest, n.name, ids, n.group)
		g.vertices[n.digest] = v
	}
	for _, e := range stacked(gl.target) {
		g.vertices[e.digest].result = true
	}
	g.goals[gl] = struct{}{}
	g.settle(gl, g.want(ctx, g.vertices[gl.target.node.digest], gl))
}

// settle answers a goal where that can be done by now. bad is a vertex below it that has failed, nil where want met none.
func (g *graph) settle(gl *goal, bad *vertex) {
	if bad != nil {
		g.finish(gl, answer{err: gl.source.locate(bad.node, bad.err)})
		return
	}
	if target := g.vertices[gl.target.node.digest]; target.status == done {
		g.deliver(target)
	}
}

// want notes that a goal needs v, with all below it that is not done. It gives a vertex that has failed, if it meets one.
func (g *graph) want(ctx context.Context, v *vertex, gl *goal) (bad *vertex) {
	if _, ok := v.goals[gl]; ok {
		return nil
	}
	v.goals[gl] = struct{}{}
	switch v.status {
	case done:
		return nil
	case failed:
		return v
	}
	for _, in := range v.inputs {
		if bad := g.want(ctx, in, gl); bad != nil {
			return bad
		}
	}
	if v.status != idle {
		return nil
	}
	v.status, v.missing = waiting, 0
	for _, in := range v.inputs {
		if _, twice := in.dependents[v]; in.status != done && !twice {
			in.dependents[v] = struct{}{}
			v.missing++
		}
	}
	if v.missing == 0 {
		g.start(ctx, v)
	}
	return nil
}

func (g *graph) start(ctx context.Context, v *vertex) {
	ctx, v.stop = context.WithCancel(ctx)
	v.status = working
	g.working++
	inputs := make([]*layer.State, len(v.inputs))
	result := v.result
	var err error
	for i, in := range v.inputs {
		index := v.node.inputs[i].index
		if index < 0 || index >= len(in.outputs) {
			err = ErrDefinition
			break
		}
		inputs[i] = in.outputs[index]
	}
	go func() {
		r := outcome{v: v, err: err}
		if err == nil {
			r.outputs, r.err = g.s.do(ctx, job{v.node, v.line, inputs, result})
		}
		g.s.results <- r
	}()
}

// ended takes a worker's report.
func (g *graph) ended(ctx context.Context, r outcome) {
	v := r.v
	g.working--
	stopped := len(v.goals) == 0
	v.stop()
	v.stop = nil
	var gone *layer.GoneError
	switch {
	case v.stale:
		v.stale = false
		v.status = idle
		g.again(ctx)
	case r.err == nil:
		v.status, v.outputs = done, r.outputs
		for d := range v.dependents {
			delete(v.dependents, d)
			if d.missing--; d.missing == 0 && d.status == waiting {
				g.start(ctx, d)
			}
		}
		g.deliver(v)
	case stopped:
		v.status = idle
	case errors.Is(r.err, context.Canceled) && ctx.Err() == nil:
		g.start(ctx, v) // stopped because nobody wanted it, and wanted again since
	case errors.As(r.err, &gone) && g.takeBack(v, gone):
		v.status = idle
		g.again(ctx)
	default:
		v.status, v.err = failed, r.err
		for gl := range v.goals {
			g.settle(gl, v)
		}
	}
}

// deliver answers the goals whose target v is.
func (g *graph) deliver(v *vertex) {
	for gl := range v.goals {
		if gl.target.node.digest != v.node.digest {
			continue
		}
		if i := gl.target.index; i >= 0 && i < len(v.outputs) {
			g.finish(gl, answer{state: v.outputs[i]})
		} else {
			g.finish(gl, answer{err: ErrDefinition})
		}
	}
}

// finish answers a goal, and stops what only it wanted.
func (g *graph) finish(gl *goal, a answer) {
	if gl.closed {
		return
	}
	gl.closed = true
	delete(g.goals, gl)
	gl.reply <- a
	for _, n := range gl.nodes {
		v := g.vertices[n.digest]
		if v == nil {
			continue
		}
		delete(v.goals, gl)
		if len(v.goals) > 0 {
			continue
		}
		switch v.status {
		case waiting:
			g.park(v)
		case working:
			v.stop()
		}
	}
}
