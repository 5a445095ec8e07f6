package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// TestEventsOfCacheMounts reads what a build says that restores two mounts at overlapping times, one of them below a step's line, and
// saves one.
func TestEventsOfCacheMounts(t *testing.T) {
	zero := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s float64) *time.Time {
		v := zero.Add(time.Duration(s * float64(time.Second)))
		return &v
	}
	step, line, save := digest.FromString("step"), digest.FromString("line"), digest.FromString("save")
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, st := range []client.SolveStatus{
		{Vertexes: []*client.Vertex{{Digest: step, Name: "[build 3/4] RUN go build", Started: at(0)}}},
		{Vertexes: []*client.Vertex{{Digest: line, Name: "restore cache mount /root/.cache", Started: at(1)}}},
		{Statuses: []*client.VertexStatus{{ID: "restore cache mount /go/pkg/mod", Vertex: step, Current: 100, Started: at(2)}}},
		{Statuses: []*client.VertexStatus{{ID: "packs", Vertex: line, Current: 10, Started: at(1)}}},
		{Statuses: []*client.VertexStatus{{ID: "packs", Vertex: line, Current: 30, Started: at(1), Completed: at(2.5)}}},
		{Statuses: []*client.VertexStatus{{ID: "other work", Vertex: step, Current: 1000, Started: at(0), Completed: at(9)}}},
		{Vertexes: []*client.Vertex{{Digest: line, Name: "restore cache mount /root/.cache", Started: at(1), Completed: at(2.5)}}},
		{Statuses: []*client.VertexStatus{{ID: "restore cache mount /go/pkg/mod", Vertex: step, Current: 400, Started: at(2), Completed: at(3)}}},
		{Logs: []*client.VertexLog{{Vertex: step, Data: []byte("compiling\n")}}},
		{Vertexes: []*client.Vertex{{Digest: save, Name: "save cache mount /go/pkg/mod", Started: at(5), Completed: at(5.25)}}},
		{Vertexes: []*client.Vertex{{Digest: step, Name: "[build 3/4] RUN go build", Started: at(0), Completed: at(6), Error: errors.New("exit 1").Error()}}},
	} {
		if err := enc.Encode(&st); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString("ok  \texample.com/ledger\n{not an event\nERROR: it failed\n")
	got := readEvents(out.Bytes())
	if r := got.mounts.restored; math.Abs(r.seconds-2) > 1e-6 || r.bytes != 430 {
		t.Errorf("restored: %+v, want 2 s and 430 bytes", r)
	}
	if s := got.mounts.saved; math.Abs(s.seconds-0.25) > 1e-6 || s.bytes != 0 {
		t.Errorf("saved: %+v, want 0.25 s", s)
	}
	for _, want := range []string{"compiling\n", "RUN go build: exit 1", "ok  \texample.com/ledger", "{not an event", "ERROR: it failed"} {
		if !strings.Contains(string(got.text), want) {
			t.Errorf("the text lacks %q: %s", want, got.text)
		}
	}
}
