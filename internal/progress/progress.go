// Package progress carries what a build is doing to a display, in BuildKit's own events (client.SolveStatus), so that
// BuildKit's displays show it.
package progress

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Stream is where the events of one build go. It is safe for concurrent use; after Close events are dropped.
type Stream struct {
	mu     sync.Mutex
	closed bool
	ch     chan *client.SolveStatus
}

// NewStream makes a stream; somebody must read Events until it is closed, or senders wait.
func NewStream() *Stream { return &Stream{ch: make(chan *client.SolveStatus, 64)} }

// Events is read by one display.
func (s *Stream) Events() chan *client.SolveStatus { return s.ch }

// Close ends the stream. It may be called twice.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.ch)
	}
}

// Send passes one event on.
func (s *Stream) Send(st *client.SolveStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.ch <- st
	}
}

// Vertex is the line of one step, or of one thing done beside the steps, in the display. Its methods are safe for
// concurrent use and do nothing on nil.
type Vertex struct {
	s  *Stream
	mu sync.Mutex
	v  client.Vertex
}

// Announce makes a step known before it starts. group may be nil.
func (s *Stream) Announce(d digest.Digest, name string, inputs []digest.Digest, group *pb.ProgressGroup) *Vertex {
	v := &Vertex{s: s, v: client.Vertex{Digest: d, Name: name, Inputs: inputs, ProgressGroup: group}}
	v.send()
	return v
}

// Begin starts a line that is no step of the graph, such as an export.
func (s *Stream) Begin(name string) *Vertex {
	v := s.Announce(digest.FromString("larder "+name+time.Now().String()), name, nil, nil)
	v.Start()
	return v
}

// Start says that work on the step began.
func (v *Vertex) Start() {
	if v == nil {
		return
	}
	now := time.Now()
	v.mu.Lock()
	v.v.Started, v.v.Completed, v.v.Error, v.v.Cached = &now, nil, "", false
	v.mu.Unlock()
	v.send()
}

// Cached says that the step needed no work.
func (v *Vertex) Cached() {
	if v == nil {
		return
	}
	now := time.Now()
	v.mu.Lock()
	v.v.Cached = true
	if v.v.Started == nil {
		v.v.Started = &now
	}
	v.v.Completed = &now
	v.mu.Unlock()
	v.send()
}

// Done ends the step, well where err is nil.
func (v *Vertex) Done(err error) {
	if v == nil {
		return
	}
	now := time.Now()
	v.mu.Lock()
	if v.v.Started == nil {
		v.v.Started = &now
	}
	v.v.Completed = &now
	if err != nil {
		v.v.Error = err.Error()
	}
	v.mu.Unlock()
	v.send()
}

func (v *Vertex) send() {
	v.mu.Lock()
	c := v.v
	v.mu.Unlock()
	v.s.Send(&client.SolveStatus{Vertexes: []*client.Vertex{&c}})
}

// Status shows a part of the step's work with a counter; the function it gives updates it, and ends it where done.
func (v *Vertex) Status(id string, total int64) func(current int64, done bool) {
	if v == nil {
		return func(int64, bool) {}
	}
	started := time.Now()
	report := func(current int64, done bool) {
		now := time.Now()
		st := &client.VertexStatus{ID: id, Vertex: v.v.Digest, Name: id, Total: total, Current: current, Timestamp: now, Started: &started}
		if done {
			st.Completed = &now
		}
		v.s.Send(&client.SolveStatus{Statuses: []*client.VertexStatus{st}})
	}
	report(0, false)
	return report
}

// Note adds a finished line below the step. It is one event: displays print a line for each.
func (v *Vertex) Note(text string) {
	if v == nil {
		return
	}
	now := time.Now()
	v.s.Send(&client.SolveStatus{Statuses: []*client.VertexStatus{
		{ID: text, Vertex: v.v.Digest, Name: text, Timestamp: now, Started: &now, Completed: &now},
	}})
}

// Log gives a writer whose bytes appear as the step's output: stream 1 or 2.
func (v *Vertex) Log(stream int) io.WriteCloser { return &logWriter{v: v, stream: stream} }

type logWriter struct {
	v      *Vertex
	stream int
}

func (w *logWriter) Write(p []byte) (int, error) {
	if w.v != nil {
		w.v.s.Send(&client.SolveStatus{Logs: []*client.VertexLog{{
			Vertex: w.v.v.Digest, Stream: w.stream, Data: append([]byte(nil), p...), Timestamp: time.Now(),
		}}})
	}
	return len(p), nil
}

func (w *logWriter) Close() error { return nil }

// Warn shows a warning at the end of the build.
func (s *Stream) Warn(w *client.VertexWarning) {
	s.Send(&client.SolveStatus{Warnings: []*client.VertexWarning{w}})
}

type vertexKey struct{}

// With lets what runs under ctx report into v.
func With(ctx context.Context, v *Vertex) context.Context {
	return context.WithValue(ctx, vertexKey{}, v)
}

// From gives the Vertex that With put there; nil, which is usable, where none was.
func From(ctx context.Context) *Vertex {
	v, _ := ctx.Value(vertexKey{}).(*Vertex)
	return v
}
