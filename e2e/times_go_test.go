package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// goTested has a test that reads a file, which go test knows by size and time, and another package.
var goTested = map[string]string{
	"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/golang AS build
WORKDIR /src
COPY go.mod ./
COPY data/ data/
COPY other/ other/
RUN --mount=type=cache,target=/root/.cache/go-build mkdir /out; go test -vet=off ./... > /out/log 2>&1; echo "exit $?" >> /out/log
FROM scratch
COPY --from=build /out /
`,
	"go.mod": "module example.com/tested\n\ngo 1.24\n",
	"data/data_test.go": `package data

import (
	"os"
	"testing"
)

func TestData(t *testing.T) {
	text, err := os.ReadFile("testdata/answer")
	if err != nil || string(text) != "good\n" {
		t.Fatalf("%q, %v", text, err)
	}
}
`,
	"data/testdata/answer": "good\n",
	"other/other.go":       "package other\n\nfunc Answer() int { return 42 }\n",
	"other/other_test.go":  "package other\n\nimport \"testing\"\n\nfunc TestOther(t *testing.T) {\n\tif Answer() != 42 {\n\t\tt.Fatal(Answer())\n\t}\n}\n",
	"other/README":         "",
}

// TestTimesGo runs go test on empty machines: it says "(cached)" where nothing changed that a test reads, and never where something did,
// although size and, in a checkout, time are what they were.
func TestTimesGo(t *testing.T) {
	p := newCI(t, "golang", goTested)
	for _, step := range []struct {
		what string
		edit map[string]string
		data []string // what go test may say about the package
		rest string
	}{
		{"first", nil, []string{"ok"}, "ok"},
		{"another file", map[string]string{"other/README": "a"}, []string{"cached"}, "cached"},
		{"another package", map[string]string{"other/other.go": "package other\n\nvar two = 2\n\nfunc Answer() int { return 40 + two }\n"}, []string{"cached"}, "ok"},
		{"data of the same size", map[string]string{"data/testdata/answer": "evil\n"}, []string{"FAIL"}, "cached"},
		{"data as they were, and another file", map[string]string{"data/testdata/answer": "good\n", "other/README": "b"}, []string{"ok", "cached"}, "cached"},
		{"data changed again, and another file", map[string]string{"data/testdata/answer": "evil\n", "other/README": "c"}, []string{"FAIL"}, "cached"},
	} {
		p.edit(t, step.edit)
		b := p.fresh(t)
		log := b.file(t, "log")
		got := map[string]string{"data": "nothing", "other": "nothing"}
		for line := range strings.Lines(log) {
			for name := range maps.Keys(got) {
				if f := strings.Fields(line); len(f) > 1 && f[1] == "example.com/tested/"+name {
					got[name] = f[0]
					if strings.Contains(line, "(cached)") {
						got[name] = "cached"
					}
				}
			}
		}
		if !slices.Contains(step.data, got["data"]) || got["other"] != step.rest {
			t.Errorf("%s: go test says %v, want %v for data and %s for the other package:\n%s", step.what, got, step.data, step.rest, log)
		}
		t.Logf("%s: %s", step.what, b.took)
	}
}
