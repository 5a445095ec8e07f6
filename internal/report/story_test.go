package report

import (
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/observation"
	"larder/internal/tree"
)

// story is a step and what it is given, in a form that a test can edit between two builds.
type story struct {
	step   Step
	layers []laid
	mounts []Input
	looks  map[string]observation.Kind // at the observed groups of the root file system
	plan   []string                    // other steps of today
}

// laid is a layer of the step's root file system.
type laid struct {
	step, image string
	pinned      bool
	files       []string // see dir
}

// shelf holds trees that builds stored.
type shelf map[key.Digest]*tree.Node

func (s shelf) open(d key.Digest) *tree.Node { return s[d] }

func (s shelf) put(t testing.TB, n *tree.Node) key.Digest {
	d, err := n.Identity()
	if err != nil {
		t.Fatal(err)
	}
	s[d] = n
	return d
}

// dir makes a tree of lines: "path content", "path +x content", "path -> target", "path !" for a whiteout, "path/" for a directory.
func dir(t testing.TB, lines []string) *tree.Node {
	type level map[string]any
	root := level{}
	for _, l := range lines {
		p, rest, _ := strings.Cut(l, " ")
		n := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o644}}
		switch {
		case rest == "!":
			n = &tree.Node{Kind: tree.Whiteout}
		case strings.HasPrefix(rest, "-> "):
			n = &tree.Node{Kind: tree.Symlink, Meta: tree.Meta{Mode: 0o777}, Link: rest[3:]}
		default:
			if strings.HasPrefix(rest, "+x ") {
				n.Mode, rest = 0o755, rest[3:]
			}
			n.Content, n.Size = key.Bytes([]byte(rest)), int64(len(rest))
		}
		at := root
		parts := strings.Split(p, "/")
		for _, name := range parts[:len(parts)-1] {
			if _, ok := at[name]; !ok {
				at[name] = level{}
			}
			at = at[name].(level)
		}
		if name := parts[len(parts)-1]; name != "" {
			at[name] = n
		}
	}
	var build func(level) *tree.Node
	build = func(l level) *tree.Node {
		var entries []tree.Entry
		for name, v := range l {
			n, ok := v.(*tree.Node)
			if !ok {
				n = build(v.(level))
			}
			entries = append(entries, tree.Entry{Name: name, Node: n})
		}
		n, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return build(root)
}

// today makes the step of a story as the solver knows it before it runs.
func (st story) today(t testing.TB, s shelf) *Step {
	step := st.step
	in := Input{Place: "/"}
	for _, l := range st.layers {
		root := dir(t, l.files)
		layer := Layer{Identity: s.put(t, root), Step: l.step, Image: l.image, Tree: s.put(t, root), Root: root}
		if l.image != "" {
			layer = Layer{Identity: key.Bytes([]byte(strings.Join(l.files, "\n") + l.image)), Image: l.image}
		}
		if n := len(in.Groups); n > 0 && in.Groups[n-1].Observed == !l.pinned {
			in.Groups[n-1].Layers = append(in.Groups[n-1].Layers, layer)
		} else {
			in.Groups = append(in.Groups, Group{Layers: []Layer{layer}, Observed: !l.pinned})
		}
	}
	step.Inputs = append([]Input{in}, st.mounts...)
	for _, in := range step.Inputs {
		for j := range in.Groups {
			g := &in.Groups[j]
			if g.Root != nil || !g.Observed {
				continue
			}
			g.Root = (&comparison{}).composed(*g)
		}
	}
	return &step
}

// built makes the build in which the step ran.
func (st story) built(t testing.TB, s shelf) *Build {
	step := st.today(t, s)
	step.How = Ran
	b := &Build{ID: "20260101T100000-aa", Began: now.Add(-time.Hour), Dockerfile: "Dockerfile", Steps: []Step{*step}}
	if step.Not == "" {
		for i := range step.Inputs {
			for j := range step.Inputs[i].Groups {
				if g := &step.Inputs[i].Groups[j]; g.Observed {
					g.Seen = seen(g.Root, st.looks)
				}
			}
		}
	}
	data, err := b.Marshal(1 << 20) // as it comes back: without any Root
	if err != nil {
		t.Fatal(err)
	}
	b, err = Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func seen(root *tree.Node, looks map[string]observation.Kind) []Seen {
	out := []Seen{}
	for p, k := range looks {
		out = append(out, Seen{Path: p, Kind: k})
	}
	slices.SortFunc(out, func(a, b Seen) int { return strings.Compare(a.Path, b.Path) })
	for i, v := range values(out, root) {
		out[i].Value = v
	}
	return out
}

// causes tells the story: what is said after the edit of what was known before.
func (st story) causes(t testing.TB, s shelf, last *Build) []Cause {
	now := st.today(t, s)
	plan := append([]string{now.Name}, st.plan...)
	for _, l := range st.layers {
		plan = append(plan, l.step)
	}
	return Causes(last, plan, now, s.open)
}

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const entry, content, listing, everything = observation.Entry, observation.Entry | observation.Content, observation.Entry | observation.List, observation.Whole

const (
	node20 = "docker.io/library/node:20@sha256:1234567890abcdef1234567890abcdef1234567890abcdef1234567890abcdef"
	node2B = "docker.io/library/node:20@sha256:5678567856785678567856785678567856785678567856785678567856785678"
	node22 = "docker.io/library/node:22@sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// bundle is RUN npm run build of a Dockerfile that copies everything first.
func bundle() story {
	return story{
		step: Step{
			Name: "[builder 6/6] RUN npm run build", Type: Run, Platform: "linux/amd64", File: "Dockerfile", Line: 9,
			Recipe: Recipe{
				Args: []string{"/bin/sh", "-c", "npm run build"}, Cwd: "/app", BuildArgs: []string{"VERSION"},
				Env: map[string]string{"PATH": "aa", "VERSION": "bb", "NODE_ENV": "cc"}, Mounts: []string{"cache /root/.npm"},
			},
		},
		layers: []laid{
			{image: node20, pinned: true, files: []string{"usr/bin/node x"}},
			{step: "[builder 2/6] WORKDIR /app", pinned: true, files: []string{"app/"}},
			{step: "[builder 3/6] RUN apt-get install -y git", pinned: true, files: []string{"usr/bin/git x"}},
			{step: "[builder 4/6] COPY . .", files: []string{
				"app/package.json {}", "app/package-lock.json {}", "app/README.md hello", "app/run.sh exec", "app/v1/x 1", "app/v2/x 1",
				"app/current -> v1", "app/src/main.js main", "app/src/a.js a", "app/src/b.js b", "app/assets/1.png 1", "app/assets/2.png 2",
			}},
			{step: "[builder 5/6] RUN npm ci", pinned: true, files: []string{"app/node_modules/x x"}},
		},
		looks: map[string]observation.Kind{
			"": entry, "app": entry, "app/package.json": content, "app/.babelrc": entry, "app/src": listing, "app/src/main.js": content,
			"app/src/a.js": content, "app/src/b.js": content, "app/run.sh": entry, "app/current": entry, "app/assets": everything,
		},
	}
}

// edit replaces, adds or (with a minus in front) removes files of a layer.
func (st *story) edit(layer int, lines ...string) {
	l := &st.layers[layer]
	l.files = slices.Clone(l.files)
	for _, line := range lines {
		gone := strings.HasPrefix(line, "-")
		p, _, _ := strings.Cut(strings.TrimPrefix(line, "-"), " ")
		l.files = slices.DeleteFunc(l.files, func(f string) bool { return strings.HasPrefix(f, p+" ") })
		if !gone {
			l.files = append(l.files, line)
		}
	}
}
