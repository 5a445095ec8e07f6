package build

import (
	"sync"

	bkclient "github.com/moby/buildkit/client"

	"larder/internal/progress"
)

// relay is the stream of a building that has a display now and then only: while a command runs, the screen is the command's.
// What comes meanwhile is kept for the next display.
type relay struct {
	stream *progress.Stream // what the building reports into
	done   chan struct{}

	mu    sync.Mutex
	to    *progress.Stream // nil for none
	kept  []*bkclient.SolveStatus
	marks map[*bkclient.SolveStatus]chan struct{}
}

func newRelay() *relay {
	r := &relay{stream: progress.NewStream(), done: make(chan struct{}), marks: map[*bkclient.SolveStatus]chan struct{}{}}
	go func() {
		defer close(r.done)
		for st := range r.stream.Events() {
			r.pass(st)
		}
	}()
	return r
}

func (r *relay) pass(st *bkclient.SolveStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if passed, ok := r.marks[st]; ok {
		delete(r.marks, st)
		close(passed)
		return
	}
	if r.to == nil {
		r.kept = append(r.kept, st)
		return
	}
	r.to.Send(st)
}

// show has a display see what comes, after what was kept.
func (r *relay) show(to *progress.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.kept {
		to.Send(st)
	}
	r.to, r.kept = to, nil
}

// hide ends what show began, when all that was sent until now has been passed on.
func (r *relay) hide() {
	mark, passed := new(bkclient.SolveStatus), make(chan struct{})
	r.mu.Lock()
	r.marks[mark] = passed
	r.mu.Unlock()
	r.stream.Send(mark)
	<-passed
	r.mu.Lock()
	r.to = nil
	r.mu.Unlock()
}

// close ends the relay; nobody sends any more.
func (r *relay) close() {
	r.stream.Close()
	<-r.done
}
