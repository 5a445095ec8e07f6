package report

import (
	"strings"
	"testing"
	"time"

	"larder/internal/tree"
)

// morning is a build as larder explain shows it.
func morning(t testing.TB) *Build {
	b := sample(t)
	run := b.Steps[0]
	run.File, run.Line = "sub/Dockerfile", 9
	ci := run
	ci.Name, ci.Line, ci.How, ci.Why = "[builder 5/6] RUN npm ci", 8, Observed, nil
	ci.From, ci.Made, ci.Took = "registry.example/app (scope main)", now.Add(-3*time.Hour), 41*time.Second
	apt := ci
	apt.Name, apt.How, apt.From, apt.Line, apt.Took = "[builder 3/6] RUN apt-get update &&     apt-get install -y git", Exact, "", 3, 200*time.Second
	apt.Inputs = nil
	run.Why = append(run.Why, Cause{Kind: Variable, Text: "ARG VERSION changed"})
	odd := Step{
		Name: "[stage-1 2/3] RUN echo \x1b[31mred", Type: Run, How: Failed, Not: "this machine has no /dev/fuse", Took: 1400 * time.Millisecond,
		Why: []Cause{{Kind: New, Text: "never seen before"}},
	}
	kept := run
	kept.Name, kept.How, kept.Why = "[stage-1 3/3] RUN later", Kept, nil
	b.Steps = []Step{
		{Name: "[builder 1/6] FROM docker.io/library/node:20@sha256:12", Type: Image, How: Exact},
		{Name: "[internal] load build context", Type: Context, How: Ran, Took: 12 * time.Millisecond},
		apt,
		{Name: "[builder 4/6] COPY . .", Type: File, How: Ran, Took: 3 * time.Millisecond, Why: []Cause{{Kind: Files, Text: "/a changed"}}},
		ci, run, odd, kept,
	}
	b.Error = "process \"/bin/sh -c echo\" did not complete: exit code: 1"
	return b
}

func TestText(t *testing.T) {
	var out strings.Builder
	if err := Text(&out, morning(t), now); err != nil {
		t.Fatal(err)
	}
	golden(t, "build", out.String())
	out.Reset()
	if err := Text(&out, &Build{ID: "empty", Began: now.Add(time.Hour)}, now); err != nil {
		t.Fatal(err)
	}
	golden(t, "empty", out.String())
}

func TestReads(t *testing.T) {
	b := morning(t)
	for i := range b.Steps[5].Inputs[0].Groups {
		g := &b.Steps[5].Inputs[0].Groups[i]
		for j := range g.Seen {
			if s := &g.Seen[j]; s.Path == "app/.babelrc" {
				s.Value = values([]Seen{*s}, tree.Empty())[0]
			}
		}
	}
	b.Steps[5].Inputs = append(b.Steps[5].Inputs, Input{Place: "/src", Groups: []Group{
		{Observed: true, Layers: []Layer{{Step: "[internal] load build context"}}, Seen: []Seen{{Path: "go.mod", Kind: 5}}},
	}}, Input{Place: "/x", Groups: []Group{{Observed: true, Layers: []Layer{{Step: "[a 2/2] COPY a /"}}, Seen: []Seen{}}}},
		Input{Place: "/y", Groups: []Group{{Observed: true, Layers: []Layer{{Step: "[a 2/2] COPY a /"}}}}})
	for name, step := range map[string]string{"reads": "npm run build", "reads-not": "2/3"} {
		var out strings.Builder
		if err := Reads(&out, b, step); err != nil {
			t.Fatal(err)
		}
		golden(t, name, out.String())
	}
	var out strings.Builder
	if err := Reads(&out, b, "apt-get"); err != nil || !strings.Contains(out.String(), "it counts as a whole") {
		t.Errorf("%v %s", err, out.String())
	}
	for step, want := range map[string]string{
		"5": "", "5/6": "", "NPM CI": "", "run npm": `"run npm" is in the names of 2 steps, say which:
  [builder 5/6] RUN npm ci
  [builder 6/6] RUN npm run build`,
		"later": `build 20260101T100000-aa has no step "later"; its RUN steps:
  [builder 3/6] RUN apt-get update && apt-get install -y git
  [builder 5/6] RUN npm ci
  [builder 6/6] RUN npm run build
  [stage-1 2/3] RUN echo [31mred`,
		"": "has no step", "4/6": "[builder 4/6] COPY . . is no RUN step", "FROM": "is no RUN step",
	} {
		err := Reads(&out, b, step)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", step, err, want)
		}
	}
}

// TestForeignText keeps what others wrote from the terminal.
func TestForeignText(t *testing.T) {
	for text, want := range map[string][2]string{ // in a line, and as a path
		"a b":         {"a b", "a b"},
		"a\u009b31mb": {"a 31mb", `"a\u009b31mb"`},
		"a\u202eb":    {"a b", `"a\u202eb"`},
		"a\x9bb":      {"a\ufffdb", `"a\x9bb"`},
		"a\x1bb\n":    {"a b", `"a\x1bb\n"`},
	} {
		if got := [2]string{clean(text), Quoted(text)}; got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 230 * time.Millisecond: "230 ms", 999600 * time.Microsecond: "1.0 s", 1440 * time.Millisecond: "1.4 s", 9960 * time.Millisecond: "10 s",
		41200 * time.Millisecond: "41 s", 59600 * time.Millisecond: "1 min", 200 * time.Second: "3 min 20 s", time.Hour - time.Millisecond: "1 h",
		125 * time.Minute: "2 h 5 min", 49 * time.Hour: "49 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	for want, names := range map[string][]string{"": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}, "a, b, c and 2 more": {"a", "b", "c", "d", "e"}} {
		if got := list(names); got != want {
			t.Errorf("%v is %q, want %q", names, got, want)
		}
	}
	for want, c := range map[string][2]string{
		`its command changed: "ci" became "i"`: {"npm ci x", "npm i x"}, `its command has "-v" no more`: {"ls -v", "ls"},
		"its command changed in blanks or line ends": {"a b", "a  b"}, "its command changed": {strings.Repeat("x", 99) + "1", strings.Repeat("x", 99) + "2"},
	} {
		if got := commandChange(c[0], c[1]); got != want {
			t.Errorf("%v: %s, want %s", c, got, want)
		}
	}
}
