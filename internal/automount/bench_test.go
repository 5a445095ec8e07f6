package automount

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkAttach attaches to a Dockerfile of twenty steps that want mounts, in two stages.
func BenchmarkAttach(b *testing.B) {
	var text strings.Builder
	for stage := range 2 {
		fmt.Fprintf(&text, "FROM golang AS s%d\nWORKDIR /src\n", stage)
		for i := range 10 {
			fmt.Fprintf(&text, "COPY d%d d%d\nRUN apt-get update && apt-get install -y p%d-%d && go build -o /out/ ./... && npm ci && pip install x\n", i, i, i, stage)
		}
	}
	text.WriteString("FROM scratch\nCOPY --from=s0 /out /a\nCOPY --from=s1 /out /b\n")
	def := compile(b, text.String(), "", "amd64")
	b.ReportAllocs()
	for b.Loop() {
		if _, notes, err := Attach(b.Context(), def, plain("", serving)); err != nil || len(notes) != 20 || len(notes[0].Mounts) != 5 {
			b.Fatal(err, len(notes))
		}
	}
}
