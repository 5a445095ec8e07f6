package main

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// TestEventsOfABuild reads what a build says that restores three mounts, two of them at overlapping times, saves one, and runs two steps
// of three.
func TestEventsOfABuild(t *testing.T) {
	zero := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := func(name string, from, to float64) client.SolveStatus {
		v := client.Vertex{Digest: digest.FromString(name), Name: name, Started: new(zero.Add(time.Duration(from * float64(time.Second))))}
		if to > 0 {
			v.Completed = new(zero.Add(time.Duration(to * float64(time.Second))))
		}
		return client.SolveStatus{Vertexes: []*client.Vertex{&v}}
	}
	spared := line("[build 2/4] RUN go mod download", 0, 0.5)
	spared.Vertexes[0].Cached = true
	failed := line("[build 3/4] RUN go build", 0, 6)
	failed.Vertexes[0].Error = "exit 1"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, st := range []client.SolveStatus{
		line("[build 3/4] RUN go build", 0, 0),
		line("[test 3/3] RUN go test", 0.25, 2.5),
		spared,
		line("[build 1/4] WORKDIR /src", 0, 0.5),
		line("restore cache mount /root/.cache", 1, 0),
		line("restore cache mount /go/pkg/mod", 2, 3),
		line("restore cache mount /root/.cache", 1, 2.5),
		line("restore cache mount /tmp", 3.25, 3.5),
		{Logs: []*client.VertexLog{{Data: []byte("compiling\n")}}},
		line("save cache mount /go/pkg/mod", 5, 5.25),
		line("saving to the cache", 5, 9),
		failed,
	} {
		if err := enc.Encode(&st); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString("ok  \texample.com/ledger\n{not an event\nERROR: it failed\n")
	e := readEvents(out.Bytes())
	if math.Abs(e.mounts.restore-2.25) > 1e-6 || math.Abs(e.mounts.save-0.25) > 1e-6 {
		t.Errorf("%+v, want 2.25 s and 0.25 s", e.mounts)
	}
	if want := []ranStep{{"go build", 6}, {"go test", 2.25}}; !slices.Equal(e.ran, want) {
		t.Errorf("%+v ran, want %+v", e.ran, want)
	}
	for _, want := range []string{"compiling\n", "RUN go build: exit 1", "ok  \texample.com/ledger", "{not an event", "ERROR: it failed"} {
		if !strings.Contains(string(e.text), want) {
			t.Errorf("the text lacks %q: %s", want, e.text)
		}
	}
}
