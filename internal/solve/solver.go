package solve

import (
	"context"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"larder/internal/cachemount"
	"larder/internal/fileop"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/record"
	"larder/internal/report"
	"larder/internal/runstep"
	"larder/internal/tree"
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

// Records is where a solver finds what steps made, and keeps it: the local root's, and those of remote caches. Damage is a
// miss.
type Records interface {
	// Get gives the record of a key.
	Get(ctx context.Context, k key.Digest) (*record.Record, bool)
	// Put keeps a record unless there is one already, and gives the one that counts.
	Put(ctx context.Context, r *record.Record) (*record.Record, error)
	// Replace keeps a record whatever is there.
	Replace(ctx context.Context, r *record.Record) (*record.Record, error)
	// Delete forgets a record that is no use, here and, as far as this build is concerned, elsewhere.
	Delete(ctx context.Context, k key.Digest) error
	// All gives every record of a key that may be believed, the nearest first.
	All(ctx context.Context, k key.Digest) []*record.Record
	// PutHint keeps a record that has a Hint and nothing else, in the place of what is there; with unite, Hint is a list that is united with
	// what is there (observation.Union). It gives the one that is kept.
	PutHint(ctx context.Context, r *record.Record, unite bool) (*record.Record, error)
	// Lock makes the caller the only one on this machine that works on a key.
	Lock(ctx context.Context, k key.Digest) (unlock func(), err error)

	PutTree(root *tree.Node) (key.Digest, error)
	HasTree(ctx context.Context, d key.Digest) bool
	Tree(ctx context.Context, d key.Digest) (*tree.Node, error)
}

// Layers finds layers that steps made.
type Layers interface {
	// Layer gives a pinned layer: from the local root, or one whose bytes come from a remote cache when they are wanted.
	Layer(ctx context.Context, ref record.Layer) (*layer.Layer, bool)
	// Has tells whether a layer's files are in the local root.
	Has(identity key.Digest) bool
	// Copy opens the contents of an observed layer of which a remote cache has a copy; nil where none has.
	Copy(ref record.Layer) layer.Source
	// Adopt gives a layer that was just made the times of its first making, where those are known (DESIGN section 3).
	Adopt(ctx context.Context, l *layer.Layer) *layer.Layer
	// Lost says that a layer could not be had from where Layer found it: it is not to be found there again.
	Lost(gone *layer.GoneError)
}

// Use is a record that a build used: it was found, or has just been made.
type Use struct {
	Record *record.Record
	Layers []*layer.Layer // those that Record names, in its order
	// Result says that the layers become part of what the build makes, not only of what it needs on the way.
	Result bool
}

// Options are what a Solver works with; all fields before Parallel are required.
type Options struct {
	Sources  Sources
	Files    *fileop.Applier
	Runner   Runner
	Layers   Layers
	Records  Records
	Progress *progress.Stream
	// Parallel bounds the RUN steps that run at once; 0 means no bound.
	Parallel int
	// Caches gives RUN steps their cache mounts; nil for the Runner's own.
	Caches cachemount.Store
	// Secrets gives the value of a secret; it is asked when a step that mounts it runs.
	Secrets func(ctx context.Context, id string) ([]byte, error)
	// Used is told of every record that is used, as soon as it is; from many goroutines.
	Used func(Use)
	// Verify runs hits again and compares; Differences has what came out.
	Verify bool
	// Last gives what is known of the last build of the same, nil where nothing is: what changed since is why a step runs. It may be nil.
	Last func(ctx context.Context) *report.Build
	// Origin names the catalog that record.Record.From stands for, for people. It may be nil.
	Origin func(from string) string
	// NoObserve looks RUN steps up by their exact keys only.
	NoObserve bool
	// Refresh gives the age from which on a RUN step's result is made anew, by the name of its step; 0 means never.
	Refresh func(step string) time.Duration
}

// Solver evaluates LLB. It is safe for concurrent use.
type Solver struct {
	opt   Options
	slots *semaphore.Weighted // nil where there is no bound

	requests  chan *goal
	withdrawn chan *goal
	rewinds   chan rewind
	results   chan outcome

	stop context.CancelFunc
	done chan struct{}

	stats       sync.Mutex
	ran, cached map[digest.Digest]bool // RUN steps, by their vertices
	created     map[key.Digest]record.Record
	differences []Difference
	said        bool // that inputs are not observed

	accounts map[digest.Digest]*report.Step // what became of steps, by their vertices
	order    []digest.Digest                // of accounts
	names    []string                       // of all steps that were asked for
	makers   map[key.Digest]string          // which step of this build gave a layer
	images   map[key.Digest]string          // which base image a layer belongs to
	trees    map[key.Digest]key.Digest      // the tree blobs of layers of file operations
}

// New starts a solver; Close ends it.
func New(ctx context.Context, opt Options) *Solver {
	ctx, stop := context.WithCancel(ctx)
	s := &Solver{
		opt:       opt,
		requests:  make(chan *goal),
		withdrawn: make(chan *goal),
		rewinds:   make(chan rewind),
		results:   make(chan outcome),
		stop:      stop,
		done:      make(chan struct{}),
		created:   map[key.Digest]record.Record{},
		ran:       map[digest.Digest]bool{},
		cached:    map[digest.Digest]bool{},
		accounts:  map[digest.Digest]*report.Step{},
		makers:    map[key.Digest]string{},
		images:    map[key.Digest]string{},
		trees:     map[key.Digest]key.Digest{},
	}
	if opt.Parallel > 0 {
		s.slots = semaphore.NewWeighted(int64(opt.Parallel))
	}
	go func() {
		defer close(s.done)
		(&graph{s: s, vertices: map[digest.Digest]*vertex{}, goals: map[*goal]struct{}{}}).run(ctx)
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

// Rewind takes back what gave a layer that turned out to be gone after Evaluate had given a state with it: the step that
// makes it, and all that was built on it, is done again by the next Evaluate. It gives false where no step makes that layer, or
// the step was taken back before: then there is no help.
func (s *Solver) Rewind(ctx context.Context, gone *layer.GoneError) bool {
	r := rewind{gone, make(chan bool, 1)}
	select {
	case s.rewinds <- r:
		return <-r.reply
	case <-s.done:
	case <-ctx.Done():
	}
	return false
}

// Counts tells how many steps ran a command, and how many of those that would have were spared.
func (s *Solver) Counts() (ran, cached int) {
	s.stats.Lock()
	defer s.stats.Unlock()
	for d := range s.cached {
		if !s.ran[d] {
			cached++
		}
	}
	return len(s.ran), cached
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
