package hints

import (
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/observation"
	"larder/internal/report"
	"larder/internal/tree"
)

const (
	entry   = observation.Entry
	list    = observation.List
	content = observation.Content
	all     = observation.Whole
)

// files makes a tree of empty files at these paths.
func files(t testing.TB, paths ...string) *tree.Node {
	t.Helper()
	below := map[string][]string{}
	var entries []tree.Entry
	for _, p := range paths {
		name, rest, dir := strings.Cut(p, "/")
		if dir {
			below[name] = append(below[name], rest)
		} else {
			n := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: int64(len(p)), Content: key.Digest(sha256.Sum256([]byte(p)))}
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
	}
	for name, rest := range below {
		entries = append(entries, tree.Entry{Name: name, Node: files(t, rest...)})
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	n, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seen makes looks at a tree of "KIND path" words.
func seen(t testing.TB, root *tree.Node, looks ...string) []report.Seen {
	t.Helper()
	kinds := map[string]observation.Kind{"entry": entry, "list": entry | list, "read": entry | content, "all": all}
	out := []report.Seen{}
	for _, l := range looks {
		kind, p, _ := strings.Cut(l, " ")
		if kinds[kind] == 0 {
			t.Fatalf("%q is no look", l)
		}
		out = append(out, report.Seen{Path: p, Kind: kinds[kind]})
	}
	slices.SortFunc(out, func(a, b report.Seen) int { return strings.Compare(a.Path, b.Path) })
	for i, s := range out {
		v, err := observation.Values([]observation.Look{{Path: s.Path, Kind: s.Kind}}, root)
		if err != nil {
			t.Fatal(err)
		}
		out[i].Value = report.Value(v[0][:8])
	}
	return out
}

// step is a RUN with one observed group, of which the root is known or not.
func step(args string, line int, place, from string, group report.Group) report.Step {
	group.Observed = true
	group.Layers = []report.Layer{{Step: from}}
	return report.Step{
		Name: "[1/2] RUN " + args, File: "Dockerfile", Line: line, Type: report.Run, How: report.Ran,
		Recipe: report.Recipe{Args: []string{"/bin/sh", "-c", args}, Cwd: "/app"},
		Inputs: []report.Input{{Place: place, Groups: []report.Group{{}, group}}},
	}
}

// project has many files: more than are worth no word.
func project() []string {
	out := []string{"app/README.md", "app/Dockerfile", "app/.git/HEAD", "app/.git/config", "app/.git/refs/heads/main", "app/.github/ci.yml", "app/package.json"}
	for i := range 30 {
		out = append(out, fmt.Sprintf("app/src/d%02d/f%d.js", i/2, i), fmt.Sprintf("app/src/d%02d/g%d.js", i/2, i))
	}
	return out
}

// TestObserved has what a RUN of "npm run build" looked at, below /app where the whole context is.
func TestObserved(t *testing.T) {
	every := project()
	root := files(t, every...)
	var reads, dirs []string
	for _, p := range every {
		reads = append(reads, "read "+p)
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			dirs = append(dirs, "list "+d)
		}
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	for _, c := range []struct {
		name  string
		looks []string
		want  string // with the trees
		blind string // without; "=" for the same
		text  string
	}{
		{"its own files", []string{"entry app", "list app/src", "read app/package.json", "read app/src/d00/f0.js"}, "[]", "=", ""},
		{"a look for .git", []string{"entry app/.git", "list app"}, "[]", "=", ""},
		{"no .git", []string{"entry app/src/.git", "entry app/src/.git/HEAD"}, "[]", "=", ""},
		{"the configuration of git", []string{"read app/.git/config"}, "[]", "=", ""},
		{"the commit", []string{"entry app/.git", "read app/.git/HEAD", "read app/.git/refs/heads/main"}, "[4 ReadsGit]", "=", "read /app/.git/HEAD"},
		{"all of .git", []string{"all app/.git"}, "[4 ReadsGit]", "=", "looked into /app/.git"},
		{"a list of .git", []string{"list app/.git"}, "[4 ReadsGit]", "=", ".dockerignore"},
		{"what looks like it", []string{"read app/.github/ci.yml"}, "[4 ReadsUnrelated]", "=", "/app/.github/ci.yml"},
		{"the README", []string{"read app/README.md", "list app"}, "[4 ReadsUnrelated]", "=", "/app/README.md"},
		{"a look at the README", []string{"entry app/README.md", "entry app/Dockerfile"}, "[]", "=", ""},
		{"another's README", []string{"read app/src/README.md"}, "[]", "=", ""},
		{"everything", []string{"all app"}, "[4 ReadsGit 4 ListsContext]", "[4 ListsContext]", "/app"},
		{"all there is", []string{"all "}, "[4 ReadsGit 4 ListsContext]", "[4 ListsContext]", "in /app, where"},
		{"everything but .git", reads[5:], "[4 ListsContext]", "[4 ReadsUnrelated]", "/app"},
		{"half", reads[30:], "[]", "=", ""},
		{"every directory", dirs, "[4 ReadsGit 4 ListsContext]", "[4 ReadsGit]", "/app"},
		{"every directory but one", dirs[:len(dirs)-1], "[4 ReadsGit]", "=", ""},
		{"the sources", []string{"all app/src"}, "[]", "=", ""},
		{"below another name", []string{"all application", "read application/README.md"}, "[]", "=", ""},
	} {
		if c.blind == "=" {
			c.blind = c.want
		}
		for _, with := range []bool{true, false} {
			g := report.Group{Seen: seen(t, root, c.looks...)}
			want := c.blind
			if with {
				g.Root, want = root, c.want
			}
			found, err := Check(Request{
				Dockerfile: []byte("FROM node:22\nWORKDIR /app\nCOPY . .\nRUN npm run build\n"),
				Last:       &report.Build{Steps: []report.Step{step("npm run build", 4, "/", "[3/4] COPY . .", g)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range found.Warnings {
				got = append(got, fmt.Sprintf("%d %s", first(w.Where), strings.TrimPrefix(w.Rule, "Cache")))
			}
			if fmt.Sprint(got) != want {
				t.Errorf("%s, trees %v: got %v, want %s", c.name, with, got, want)
			}
			if says := func(w Warning) bool { return strings.Contains(w.Detail, c.text) }; with && c.text != "" && !slices.ContainsFunc(found.Warnings, says) {
				t.Errorf("%s: %+v", c.name, found.Warnings)
			}
		}
	}
}

func TestSmallContextsAreReadWhole(t *testing.T) {
	root := files(t, "app/main.go", "app/go.mod")
	s := step("go build", 3, "/", "[2/3] COPY . /app", report.Group{Root: root, Seen: seen(t, root, "all app")})
	if got := check(t, Request{Dockerfile: []byte("FROM a:1\nCOPY . /app\nRUN go build\n"), Last: &report.Build{Steps: []report.Step{s}}}); len(got) > 0 {
		t.Error(got)
	}
}

// TestObservedElsewhere has other ways in which files come to a step than COPY to a directory that the Dockerfile names.
func TestObservedElsewhere(t *testing.T) {
	root := files(t, project()...)
	inner := find(root, "app")
	bind := func(from string, source string, looks ...string) report.Step {
		s := step("make", 2, "/src", from, report.Group{Seen: seen(t, inner, looks...)})
		s.Inputs[0].Source = source
		return s
	}
	const load = "[internal] load build context"
	for _, c := range []struct {
		name, file string
		step       report.Step
		want       string
	}{
		{"a mount of the context", "FROM a:1\nRUN --mount=type=bind,target=/src make\n", bind(load, "", "all "), "[2 ListsContext]"},
		{"its README", "FROM a:1\nRUN --mount=type=bind,target=/src make\n", bind(load, "", "read README.md"), "[2 ReadsUnrelated]"},
		{"its commit", "FROM a:1\nRUN --mount=type=bind,target=/src make\n", bind(load, "", "read .git/HEAD"), "[2 ReadsGit]"},
		{"a part of it", "FROM a:1\nRUN --mount=type=bind,source=web,target=/src make\n", bind(load, "web", "all ", "read README.md"), "[]"},
		{"a stage", "FROM a:1\nRUN --mount=type=bind,from=b:1,target=/src make\n", bind("[b 1/1] FROM b:1", "", "all "), "[]"},
		{"a fetched repository", "FROM a:1\nADD https://h/r.git#v1 /app\nRUN make\n",
			step("make", 3, "/", "[2/3] ADD https://h/r.git#v1 /app", report.Group{Seen: seen(t, root, "read app/.git/HEAD", "all app")}), "[]"},
		{"where the base image says", "FROM a:1\nCOPY . .\nRUN make\n",
			step("make", 3, "/", "[2/3] COPY . .", report.Group{Seen: seen(t, root, "all app")}), "[3 ListsContext]"},
		{"below where it says", "FROM a:1\nCOPY . x\nRUN make\n",
			step("make", 3, "/", "[2/3] COPY . x", report.Group{Seen: seen(t, root, "all app")}), "[]"},
		{"with variables", "FROM a:1\nARG D=/\nENV HOME=${D}app\nADD --chown=1:1 ./ $HOME/\nRUN make\n",
			step("make", 5, "/", "[3/3] ADD ./ /app/", report.Group{Seen: seen(t, root, "all app")}), "[5 ListsContext]"},
		{"a part of the context", "FROM a:1\nCOPY web /app\nRUN make\n",
			step("make", 3, "/", "[2/3] COPY web /app", report.Group{Seen: seen(t, root, "all app", "read app/README.md")}), "[]"},
		{"what another stage made", "FROM a:1\nCOPY --from=b:1 . /app\nRUN make\n",
			step("make", 3, "/", "[2/3] COPY --from=b:1 . /app", report.Group{Seen: seen(t, root, "all app")}), "[]"},
		{"in the stage below", "FROM a:1 AS x\nWORKDIR /\nCOPY * app\nFROM x\nRUN make\n",
			step("make", 5, "/", "[x 3/3] COPY * app", report.Group{Seen: seen(t, root, "all app")}), "[5 ListsContext]"},
	} {
		if got := fmt.Sprint(check(t, Request{Dockerfile: []byte(c.file), Last: &report.Build{Steps: []report.Step{c.step}}})); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// TestStepsAreFound has Dockerfiles that were edited since the build that is known.
func TestStepsAreFound(t *testing.T) {
	root := files(t, "app/.git/HEAD")
	git := func(args string, line int) report.Step {
		return step(args, line, "/", "[2/3] COPY . /app", report.Group{Seen: seen(t, root, "read app/.git/HEAD")})
	}
	none := func(args string, line int) report.Step {
		return step(args, line, "/", "[2/3] COPY . /app", report.Group{Seen: []report.Seen{}})
	}
	exec := git("", 3)
	exec.Recipe.Args = []string{"make", "-j 4"}
	doc := git("", 3)
	doc.Recipe.Args = []string{"/dev/pipes/EOF"}
	exact := git("git log", 3)
	exact.How, exact.Inputs[0].Groups[1].Seen = report.Exact, nil
	blanket := step("git log", 3, "/", "[2/3] COPY . /app", report.Group{})
	blanket.How, blanket.Inputs[0].Groups = report.Exact, []report.Group{{Layers: []report.Layer{{}, {Step: "[2/3] COPY . /app"}}}}
	arm := git("make", 3)
	arm.Platform = "linux/arm64"
	for _, c := range []struct {
		name, file string
		steps      []report.Step
		want       string
	}{
		{"there", "FROM a:1\nCOPY . /app\nRUN make\n", []report.Step{git("make", 3)}, "[3 ReadsGit]"},
		{"moved", "FROM a:1\nCOPY . /app\n\n\nRUN make\n", []report.Step{git("make", 3)}, "[5 ReadsGit]"},
		{"other blanks", "FROM a:1\nCOPY . /app\nRUN make \\\n   -j\n", []report.Step{git("make    -j", 3)}, "[3 ReadsGit]"},
		{"changed", "FROM a:1\nCOPY . /app\nRUN make -j\n", []report.Step{git("make", 3)}, "[]"},
		{"two alike", "FROM a:1\nCOPY . /app\nRUN make\nRUN make\n", []report.Step{none("make", 3), git("make", 4)}, "[4 ReadsGit]"},
		{"exec form", "FROM a:1\nCOPY . /app\nRUN [\"make\", \"-j 4\"]\n", []report.Step{exec}, "[3 ReadsGit]"},
		{"a document", "FROM a:1\nCOPY . /app\nRUN <<EOF\n#!/usr/bin/env python3\npass\nEOF\n", []report.Step{doc}, "[3 ReadsGit]"},
		{"one platform of two", "FROM a:1\nCOPY . /app\nRUN make\n", []report.Step{none("make", 3), arm}, "[3 ReadsGit]"},
		{"it is known that it does not", "FROM a:1\nCOPY . /app\nRUN git log\n", []report.Step{none("git log", 3)}, "[]"},
		{"found by its inputs", "FROM a:1\nCOPY . /app\nRUN git log\n", []report.Step{exact}, "[3 ReadsGit]"},
		{"found by all of its layers", "FROM a:1\nCOPY . /app\nRUN git log\n", []report.Step{blanket}, "[3 ReadsGit]"},
		{"no build", "FROM a:1\nCOPY . /app\nRUN git log\n", nil, "[3 ReadsGit]"},
	} {
		if got := fmt.Sprint(check(t, Request{Dockerfile: []byte(c.file), Last: &report.Build{Steps: c.steps}})); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestUnobserved(t *testing.T) {
	acl := step("a", 2, "/", "[2/3] COPY . /app", report.Group{Seen: []report.Seen{}})
	acl.Not = "it has POSIX ACLs"
	off := step("b", 3, "/", "[2/3] COPY . /app", report.Group{})
	off.Not = "--observe=off" // which is not the Dockerfile's fault
	found, err := Check(Request{Dockerfile: []byte("FROM a:1\nRUN a\nRUN b\n"), Last: &report.Build{Steps: []report.Step{acl, off}}})
	if err != nil || len(found.Warnings) != 1 {
		t.Fatalf("%v %+v", err, found)
	}
	if w := found.Warnings[0]; w.Rule != "CacheUnobserved" || first(w.Where) != 2 || !strings.Contains(w.Detail, "(it has POSIX ACLs)") {
		t.Errorf("%+v", w)
	}
}

// TestTreesAreOpened composes a group of stored layers, below the part of them that is mounted.
func TestTreesAreOpened(t *testing.T) {
	low, high := files(t, project()...), files(t, "app/more")
	digest := func(b byte) key.Digest { return key.Digest{b} }
	g := report.Group{Observed: true, Seen: seen(t, find(low, "app"), "all "), Layers: []report.Layer{{Tree: digest(1)}, {Tree: digest(2), Step: "[internal] load build context"}}}
	s := report.Step{Type: report.Run, Recipe: report.Recipe{Args: []string{"sh", "-c", "make"}}, Inputs: []report.Input{{Place: "/src", Groups: []report.Group{g}}}}
	for _, c := range []struct {
		source, want string
		gone         bool
	}{{"", "[2 ListsContext]", false}, {"app", "[2 ReadsGit]", false}, {"app", "[]", true}} {
		s.Inputs[0].Source = c.source
		got := fmt.Sprint(check(t, Request{
			Dockerfile: []byte("FROM a:1\nRUN --mount=type=bind,target=/src make\n"), Last: &report.Build{Steps: []report.Step{s}},
			Files: func(d key.Digest) *tree.Node {
				switch {
				case d == digest(1) && !c.gone:
					return low
				case d == digest(2):
					return high
				}
				return nil
			},
		}))
		if got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestNamesAreShown keeps the names of files from the terminal.
func TestNamesAreShown(t *testing.T) {
	for _, odd := range []string{"\u009b", "\u202e", "\x9b", "\x1b"} {
		if got := shown("/app/" + odd + "x"); strings.Contains(got, odd) || !strings.Contains(got, "/app/") {
			t.Errorf("%q is shown as %q", odd, got)
		}
	}
	if got := []rune(shown(strings.Repeat("\u009b", 40))); len(got) != 80 {
		t.Errorf("%d characters", len(got))
	}
}

func TestWaysOut(t *testing.T) {
	for command, want := range map[string]string{
		"chown -R me /app": "COPY --chown", "chmod -vR g+w /app": "COPY --chmod", "npm run build": ".dockerignore", "chown me /app": ".dockerignore",
	} {
		if got := (&run{script: readScript(command)}).withoutAll(); !strings.Contains(got, want) {
			t.Errorf("%s: %s", command, got)
		}
	}
	for command, want := range map[string]string{"go build ./...": "-buildvcs=false", "git log": "ARG", "make": ".dockerignore"} {
		if got := (&run{script: readScript(command)}).withoutGit(); !strings.Contains(got, want) {
			t.Errorf("%s: %s", command, got)
		}
	}
}
