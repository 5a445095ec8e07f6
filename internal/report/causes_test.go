package report

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/observation"
)

var update = flag.Bool("update", false, "write the golden files anew")

// aloud are kinds of change: what is different in the build after, and what sort of reason that must be found to be.
var aloud = []struct {
	name  string
	was   func(*story) // edits the build before, may be nil
	edit  func(*story)
	first CauseKind
}{
	{"read", nil, func(s *story) { s.edit(3, "app/src/main.js other") }, Files},
	{"two-read", nil, func(s *story) { s.edit(3, "app/src/main.js other", "app/src/a.js other", "app/README.md x") }, Files},
	{"listed", nil, func(s *story) { s.edit(3, "app/src/new.js n") }, Files},
	{"removed", nil, func(s *story) { s.edit(3, "-app/src/b.js") }, Files},
	{"looked-for", nil, func(s *story) { s.edit(3, "app/.babelrc x") }, Files},
	{"exec-bit", nil, func(s *story) { s.edit(3, "app/run.sh +x exec") }, Files},
	{"link", nil, func(s *story) { s.edit(3, "app/current -> v2") }, Files},
	{"kind", nil, func(s *story) { s.edit(3, "app/run.sh -> src/main.js") }, Files},
	{"whole-directory", nil, func(s *story) {
		s.edit(3, "app/assets/1.png other", "-app/assets/2.png", "app/assets/3.png 3", "app/assets/icons/1.png 1", "app/assets/4.png 4")
	}, Files},
	{"lock-file", func(s *story) { npmCI(s) }, func(s *story) { s.edit(3, "app/package-lock.json {1}") }, Files},
	{"lock-file-and-what-it-made", func(s *story) { s.looks["app/package-lock.json"] = content }, func(s *story) {
		s.edit(3, "app/package-lock.json {1}")
		s.edit(4, "app/node_modules/x y")
	}, Files},
	{"base-moved", nil, func(s *story) { s.layers[0] = laid{image: node2B, pinned: true, files: []string{"usr/bin/node y"}} }, Base},
	{"base-moved-and-all-above", nil, func(s *story) {
		s.layers[0] = laid{image: node2B, pinned: true, files: []string{"usr/bin/node y"}}
		s.edit(2, "usr/bin/git y")
		s.edit(4, "app/node_modules/x y")
		s.step.Recipe.Env = map[string]string{"PATH": "dd", "VERSION": "bb", "NODE_ENV": "cc"}
	}, Base},
	{"from-another", nil, func(s *story) { s.layers[0] = laid{image: node22, pinned: true} }, Base},
	{"arg", nil, func(s *story) { s.env("VERSION", "b2") }, Variable},
	{"arg-that-earlier-steps-have-too", nil, func(s *story) { s.env("VERSION", "b2"); s.edit(4, "app/node_modules/x y") }, Variable},
	{"env", nil, func(s *story) { s.env("DEBUG", "1"); s.env("NODE_ENV", "") }, Variable},
	{"command", nil, func(s *story) { s.step = renamed(s.step, "npm run build -- --minify") }, Command},
	{"command-other", nil, func(s *story) { s.step = renamed(s.step, "make -j all") }, Command},
	{"user-and-mounts", nil, func(s *story) {
		s.step.Recipe.User, s.step.Recipe.Network, s.step.Recipe.Mounts = "node", "none", []string{"tmpfs /tmp"}
	}, Command},
	{"step-added", nil, func(s *story) {
		s.layers = slices.Insert(s.layers, 3, laid{step: "[builder 4/7] RUN npm i -g corepack", pinned: true, files: []string{"usr/x x"}})
		s.step.Name = "[builder 7/7] RUN npm run build"
	}, Shape},
	{"step-removed", nil, func(s *story) {
		s.layers = slices.Delete(s.layers, 2, 3)
		s.step.Name = "[builder 5/5] RUN npm run build"
	}, Shape},
	{"step-changed", nil, func(s *story) {
		s.layers[2] = laid{step: "[builder 3/6] RUN apt-get install -y git curl", pinned: true, files: []string{"usr/bin/curl x"}}
		s.edit(4, "app/node_modules/x y")
	}, Shape},
	{"step-moved", nil, func(s *story) { s.layers[2], s.layers[4] = s.layers[4], s.layers[2] }, Shape},
	{"copy-after-run", nil, func(s *story) {
		s.layers = append(s.layers, laid{step: "[builder 6/7] COPY x /", files: []string{"x x"}})
	}, Shape},
	{"earlier-run", nil, func(s *story) { s.edit(2, "usr/bin/git y"); s.edit(4, "app/node_modules/x y") }, Before},
	{"pruned", nil, func(*story) {}, Lost},
	{"pruned-and-other-files", nil, func(s *story) { s.edit(3, "app/README.md x") }, Lost},
	{"no-such-step", nil, func(s *story) { s.step = renamed(s.step, "make"); s.plan = []string{"[builder 6/7] RUN npm run build"} }, New},
	{"not-observed", func(s *story) { s.step.Not = "this machine has no /dev/fuse" }, func(s *story) {
		s.edit(3, "app/README.md x", "app/a 1", "app/b 1", "app/c 1", "app/src/main.js other")
	}, Files},
	{"failed-before", func(s *story) { s.step.How = Failed }, func(s *story) { s.edit(3, "app/src/main.js other") }, Files},
	{"failed-before-and-nothing-else", func(s *story) { s.step.How = Failed }, func(*story) {}, Again},
	{"failed-before-and-an-earlier-run", func(s *story) { s.step.How = Failed }, func(s *story) { s.edit(4, "app/node_modules/x y") }, Again},
	{"two-copies", func(s *story) { split(s, "COPY src/ src/") }, func(s *story) { s.edit(4, "app/src/main.js other", "app/src/z.js z") }, Files},
	{"looks-not-known", func(s *story) { s.looks = nil }, func(s *story) { s.edit(3, "app/README.md x") }, Files},
	{"several-names", func(s *story) { s.looks["app"] = listing; s.edit(3, "app/x 1", "app/y 1") }, func(s *story) {
		s.edit(3, "-app/x", "-app/y", "app/z.txt 1")
	}, Files},
	{"strange-names", nil, func(s *story) { s.edit(3, "app/src/\x1b[31m.js x") }, Files},
	{"base-without-change", nil, func(s *story) { s.layers[0].image = node2B; s.env("NODE_VERSION", "1") }, Base},
	{"bind-mount", func(s *story) { mount(s, "x") }, func(s *story) { mount(s, "y"); s.edit(3, "app/README.md x") }, Files},
	{"bind-mount-of-a-stage", func(s *story) { mount(s, "x"); ofStage(s, node20) }, func(s *story) { mount(s, "y"); ofStage(s, node2B) }, Files},
	{"bind-mount-of-a-stage-unread", func(s *story) { mount(s, "x"); ofStage(s, node20) }, func(s *story) { mount(s, "x"); ofStage(s, node2B) }, Lost},
	{"bind-mount-of-an-image", func(s *story) { mount(s, "x"); s.mounts[0].Groups = ofImage(node20) }, func(s *story) {
		s.mounts = slices.Clone(s.mounts)
		s.mounts[0].Groups = ofImage(node2B)
	}, Base},
	{"copy-split", nil, func(s *story) { split(s, "COPY src/ src/"); s.edit(4, "app/src/main.js other") }, Files},
}

func TestCauses(t *testing.T) {
	for _, c := range aloud {
		t.Run(c.name, func(t *testing.T) {
			s, before := shelf{}, bundle()
			if c.was != nil {
				c.was(&before)
			}
			last := before.built(t, s)
			if before.looks == nil {
				last.Steps[0].forget()
			}
			if before.step.How != "" {
				last.Steps[0].How = before.step.How
			}
			after := before
			after.looks = nil
			c.edit(&after)
			after.step.Not = before.step.Not
			causes := after.causes(t, s, last)
			if causes[0].Kind != c.first {
				t.Errorf("the first cause is %q: %s, want %q", causes[0].Kind, causes[0].Text, c.first)
			}
			golden(t, "causes/"+c.name, tell(after.step, causes))
		})
	}
}

// tell writes causes as explain shows them, and what programs get.
func tell(s Step, causes []Cause) string {
	s.How, s.Took, s.Why = Ran, 12e9, causes
	var out strings.Builder
	Text(&out, &Build{ID: "x", Began: now, Dockerfile: "Dockerfile", Steps: []Step{s}}, now)
	_, text, _ := strings.Cut(out.String(), "\n\n")
	text, _, _ = strings.Cut(text, "\n\n")
	text += "\n\n"
	for _, c := range causes {
		text += fmt.Sprintln(c.Kind, c.Paths, c.More)
	}
	return text + "\n" + Short(causes) + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(name)+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; -update writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s has changed (-update writes it anew):\n%s\nwant:\n%s", path, got, want)
	}
}

// npmCI makes the story one of RUN npm ci.
func npmCI(s *story) {
	s.step.Name, s.step.Recipe.Args = "[builder 5/6] RUN npm ci", []string{"/bin/sh", "-c", "npm ci"}
	s.layers = s.layers[:4]
	s.looks = map[string]observation.Kind{"app/package.json": content, "app/package-lock.json": content, "app/.npmrc": entry}
}

// mount gives the story a bind mount of a part of the build context, with a file that the step read.
func mount(s *story, text string) {
	if s.looks != nil {
		s.looks["go.mod"] = content
	}
	root := dir(nil, []string{"go.mod " + text})
	id, _ := root.Identity()
	s.mounts = []Input{{Place: "/src", Source: "sub", Groups: []Group{{
		Observed: true, Root: root, Layers: []Layer{{Identity: id, Step: "[internal] load build context"}},
	}}}}
}

// ofStage makes the mount one of a stage on an image.
func ofStage(s *story, ref string) {
	g := &s.mounts[0].Groups[0]
	g.Layers = append(ofImage(ref)[0].Layers, Layer{Step: "[deps 2/2] RUN make", Identity: g.Layers[0].Identity})
}

func ofImage(ref string) []Group {
	return []Group{{Layers: []Layer{{Image: ref, Identity: key.Bytes([]byte(ref))}}}}
}

// split gives the sources a COPY of their own.
func split(s *story, copies string) {
	var rest, src []string
	for _, f := range s.layers[3].files {
		if strings.HasPrefix(f, "app/src/") {
			src = append(src, f)
		} else {
			rest = append(rest, f)
		}
	}
	s.layers = slices.Clone(s.layers)
	s.layers[3].files = rest
	s.layers = slices.Insert(s.layers, 4, laid{step: "[builder 5/7] " + copies, files: src})
}

func (st *story) env(name, value string) {
	env := map[string]string{}
	for k, v := range st.step.Recipe.Env {
		env[k] = v
	}
	if env[name] = value; value == "" {
		delete(env, name)
	}
	st.step.Recipe.Env = env
}

func renamed(s Step, command string) Step {
	s.Name, s.Recipe.Args = "[builder 6/6] RUN "+command, []string{"/bin/sh", "-c", command}
	return s
}
