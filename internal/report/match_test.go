package report

import (
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/tree"
)

// runs makes RUN steps of names, with what stands behind "RUN" as their command.
func runs(names ...string) []Step {
	var out []Step
	for _, n := range names {
		_, command, _ := strings.Cut(n, "RUN ")
		out = append(out, Step{Name: n, Type: Run, Recipe: Recipe{Args: []string{"/bin/sh", "-c", command}}})
	}
	return out
}

func TestMatch(t *testing.T) {
	was := []string{"[a 2/4] RUN npm ci", "[a 3/4] RUN npm run build", "[a 4/4] RUN npm ci", "[b 2/2] RUN npm ci", "[stage-2 2/2] RUN make all"}
	for _, c := range []struct {
		now  string
		plan string // others of today, with commas between them
		want string
	}{
		{"[a 2/4] RUN npm ci", "", "[a 2/4] RUN npm ci"},
		{"[linux/amd64 a 4/4] RUN npm ci", "", "[a 4/4] RUN npm ci"},
		{"[a  9/19] RUN npm ci", "", "[a 4/4] RUN npm ci"},
		{"[b 2/3] RUN npm ci", "", "[b 2/2] RUN npm ci"},
		{"[c 2/3] RUN npm ci", "", ""},
		{"[2/2] RUN make all", "", "[stage-2 2/2] RUN make all"},
		// One that was inserted is no changed one, one that took the place of another is.
		{"[a 3/5] RUN npm run lint", "[a 2/5] RUN npm ci,[a 4/5] RUN npm run build,[a 5/5] RUN npm ci", ""},
		{"[a 3/4] RUN npm run lint", "[a 2/4] RUN npm ci,[a 4/4] RUN npm ci", "[a 3/4] RUN npm run build"},
		{"[a 3/4] RUN ninja", "[a 2/4] RUN npm ci,[a 4/4] RUN npm ci", "[a 3/4] RUN npm run build"},
		{"[a 4/5] RUN npm run build:all", "[a 2/5] RUN npm ci,[a 3/5] RUN true,[a 5/5] RUN npm ci", "[a 3/4] RUN npm run build"},
		{"[a 4/5] RUN ninja", "[a 2/5] RUN npm ci,[a 3/5] RUN true,[a 5/5] RUN npm ci", ""},
		{"[internal] RUN", "", ""},
	} {
		b := &Build{Steps: runs(was...)}
		now := &runs(c.now)[0]
		plan := append([]string{c.now}, strings.FieldsFunc(c.plan, func(r rune) bool { return r == ',' })...)
		got := ""
		if s := b.match(plan, now); s != nil {
			got = s.Name
		}
		if got != c.want {
			t.Errorf("%s beside %q is %q of before, want %q", c.now, c.plan, got, c.want)
		}
	}
	other := runs("[a 2/4] RUN npm ci")[0]
	other.Platform = "linux/arm64"
	if s := (&Build{Steps: runs(was...)}).match(nil, &other); s != nil {
		t.Errorf("a step for another platform is %q", s.Name)
	}
}

func TestSubject(t *testing.T) {
	for name, want := range map[string]string{
		"[builder 4/6] COPY --chown=1:1 --from=deps /x ./": "COPY --from=deps /x ./",
		"[2/3] RUN --mount=type=cache,target=/x npm  ci":   "RUN npm ci",
		"[2/3] RUN --a":                        "RUN",
		"[internal] load build context":        "the build context",
		"[context docs] load from client":      "context docs",
		"[2/3] ONBUILD COPY . .":               "ONBUILD COPY . .",
		"[2/3] RUN " + strings.Repeat("x", 90): "RUN " + strings.Repeat("x", 53) + "...",
		"":                                     "an earlier step",
		"file operations":                      "file operations",
	} {
		if got := subject(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"[2/3] RUN x": true, "[2/3] ONBUILD RUN x": true, "[2/3] COPY RUN x": false, "": false} {
		if runsCommand(name) != want {
			t.Errorf("%q comes from a command: %t", name, !want)
		}
	}
}

// TestOthers asks why steps of other sorts had work to do.
func TestOthers(t *testing.T) {
	s := shelf{}
	was, is := dir(t, []string{"app/a 1", "app/b 1"}), dir(t, []string{"app/a 2", "app/b 1", "app/c/d 1"})
	copied := func(root *tree.Node) Step {
		return Step{Name: "[2/3] COPY . /app", Type: File, Result: root.Self().Hex() + s.put(t, root).Hex(), Tree: s.put(t, root)}
	}
	context := func(text string) Input {
		return Input{Place: "1", Groups: []Group{{Layers: []Layer{{Identity: key.Bytes([]byte(text)), Step: "[internal] load build context"}}}}}
	}
	below := func(ref, text string) Input {
		return Input{Place: "/", Groups: []Group{
			{Layers: []Layer{{Image: ref, Identity: key.Bytes([]byte(ref))}}},
			{Layers: []Layer{{Step: "[1/3] RUN make", Identity: key.Bytes([]byte(text))}}},
		}}
	}
	with := func(step Step, in ...Input) Step { step.Inputs = in; return step }
	bare := Step{Name: "[2/3] COPY . /app", Type: File}
	for name, c := range map[string]struct {
		was, is Step
		files   bool
		want    string
	}{
		"files":                      {copied(was), copied(is), true, "/app/a changed, /app/c/ is there now"},
		"files unknown":              {copied(was), copied(is), false, "it makes other files than before"},
		"a context, without results": {with(bare, context("1")), with(bare, context("2")), false, "the build context changed"},
		"other files of the context": {with(copied(was), context("1")), with(copied(was), context("2")), true,
			"other files of the build context changed, none that it copies"},
		"files of the context": {with(copied(was), context("1")), with(copied(is), context("2")), true, "/app/a changed, /app/c/ is there now"},
		"below":                {with(copied(was), below(node20, "1")), with(copied(was), below(node20, "2")), true, "RUN make made another layer"},
		"base":                 {with(copied(was), below(node20, "1")), with(copied(was), below(node2B, "2")), true, "base image node:20 moved from sha256:1234567890ab to sha256:567856785678"},
		"nothing":              {copied(was), copied(was), true, "an earlier step made another layer, or what it made is not here any more"},
	} {
		open := s.open
		if !c.files {
			open = nil
		}
		var got []string
		for _, cause := range Causes(&Build{Steps: []Step{c.was}}, []string{c.is.Name}, &c.is, open) {
			got = append(got, cause.Text)
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}

// TestFirstBuild has nothing to compare with.
func TestFirstBuild(t *testing.T) {
	got := Causes(nil, nil, bundle().today(t, shelf{}), nil)
	if len(got) != 1 || got[0].Kind != New || Short(got) != "never seen before: no earlier build is known here" {
		t.Errorf("%+v", got)
	}
	if got := ToldBy("--no-cache"); len(got) != 1 || got[0].Kind != Told || Short(got) != "because of --no-cache" {
		t.Errorf("%+v", got)
	}
}

// TestWithoutTrees tells what can be told when no tree of an earlier build is to be had.
func TestWithoutTrees(t *testing.T) {
	for edit, want := range map[string]string{
		"app/src/main.js other": "COPY . . changed /app/src/main.js; this step read it",
		"-app/src/b.js":         "COPY . . no longer has /app/src/b.js; this step read it",
		"app/.babelrc x":        "COPY . . added /app/.babelrc; this step looked for it",
		"app/src/new.js x":      "COPY . . changed /app/src/; this step lists /app/src/",
		"app/assets/1.png x":    "COPY . . changed /app/assets/; this step looks at all of /app/assets/",
		"app/run.sh +x exec":    "COPY . . changed /app/run.sh; this step looked at it",
	} {
		s, story := shelf{}, bundle()
		last := story.built(t, s)
		story.edit(3, edit)
		now := story.today(t, s)
		got := Causes(last, nil, now, nil)
		if got[0].Text != want {
			t.Errorf("%s: %q, want %q", edit, got[0].Text, want)
		}
	}
}
