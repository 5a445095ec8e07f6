package solve

import (
	"context"
	"sync"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/record"
	"larder/internal/runstep"
)

// Sources gives the state of a source vertex: a build context, an image. It reads metadata only; layers fetch their
// bytes when somebody opens them. platform may be nil.
type Sources interface {
	Load(ctx context.Context, op *pb.SourceOp, platform *pb.Platform) (*layer.State, error)
}

// Runner runs the command of a RUN step.
type Runner interface {
	Run(ctx context.Context, step runstep.Step) (*runstep.Result, error)
}

// Layers finds pinned layers that the local root holds.
type Layers interface {
	Layer(ctx context.Context, identity key.Digest) (*layer.Layer, bool)
}

// Options are what a Solver works with; all fields but Parallel and Secrets are required.
type Options struct {
	Sources  Sources
	Files    *fileop.Applier
	Runner   Runner
	Layers   Layers
	Records  *record.Store
	Progress *progress.Stream
	// Parallel bounds the RUN steps that run at once; 0 means no bound.
	Parallel int
	// Secrets gives the value of a secret; it is asked when a step that mounts it runs.
	Secrets func(ctx context.Context, id string) ([]byte, error)
}

// Solver evaluates LLB. It is safe for concurrent use.
type Solver struct {
	opt   Options
	slots *semaphore.Weighted // nil where there is no bound

	requests  chan *goal
	withdrawn chan *goal
	results   chan result

	stop context.CancelFunc
	done chan struct{}

	stats   sync.Mutex
	ran     int
	cached  int
	created map[key.Digest]record.Record
}

// New starts a solver; Close ends it.
func New(ctx context.Context, opt Options) *Solver {
	ctx, stop := context.WithCancel(ctx)
	s := &Solver{
		opt:       opt,
		requests:  make(chan *goal),
		withdrawn: make(chan *goal),
		results:   make(chan result),
		stop:      stop,
		done:      make(chan struct{}),
		created:   map[key.Digest]record.Record{},
	}
	if opt.Parallel > 0 {
		s.slots = semaphore.NewWeighted(int64(opt.Parallel))
	}
	go func() {
		defer close(s.done)
		(&graph{s: s, vertices: map[digest.Digest]*vertex{}}).run(ctx)
	}()
	return s
}

// Close cancels what still runs and returns when all of it has ended and cleaned up after itself.
func (s *Solver) Close() {
	s.stop()
	<-s.done
}

// Evaluate gives the state that a definition describes; nil is scratch. Whatever the definition needs and nothing else
// is done, in parallel where it can be. A failure of a step is located in its source file (errdefs.SourceError) and
// cancels what it makes useless. When ctx ends, work that nobody else waits for is stopped.
func (s *Solver) Evaluate(ctx context.Context, def *pb.Definition) (*layer.State, error) {
	target, err := parse(def)
	if err != nil || target.node == nil {
		return nil, err
	}
	gl := &goal{target: target, nodes: reachable(target), source: &sources{def.Source}, reply: make(chan answer, 1)}
	select {
	case s.requests <- gl:
	case <-s.done:
		return nil, context.Canceled
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case a := <-gl.reply:
		return a.state, a.err
	case <-s.done:
		return nil, context.Canceled
	case <-ctx.Done():
	}
	select {
	case s.withdrawn <- gl:
	case <-s.done:
	}
	return nil, context.Cause(ctx)
}

// Counts tells how many steps ran a command, and how many of those that would have were spared.
func (s *Solver) Counts() (ran, cached int) {
	s.stats.Lock()
	defer s.stats.Unlock()
	return s.ran, s.cached
}

// sources knows where in the Dockerfile a vertex comes from.
type sources struct{ src *pb.Source }

// locate adds the place in the source file to a vertex's error.
func (s *sources) locate(n *node, err error) error {
	if s.src == nil || err == nil {
		return err
	}
	locs, ok := s.src.Locations[string(n.digest)]
	if !ok {
		return err
	}
	for _, l := range locs.Locations {
		if int(l.SourceIndex) < 0 || int(l.SourceIndex) >= len(s.src.Infos) {
			continue
		}
		err = errdefs.WithSource(err, &errdefs.Source{Info: s.src.Infos[l.SourceIndex], Ranges: l.Ranges})
	}
	return err
}
