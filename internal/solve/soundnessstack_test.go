package solve_test

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

// scenario is a Dockerfile with its contexts, and what is edited before each further build.
type scenario struct {
	seed     uint64
	base     forest // lies in the base image, over its programs
	contexts []forest
	stages   [][]*step // the last is built; it may take from the first
	edits    [][]*edit
}

// step is an instruction of a stage.
type step struct {
	name, kind string // "copy", "run", "workdir"
	last       int    // how many stages there are before its own

	from     int // a context, or builder
	src, dst string
	link     bool
	chown    string
	mode     int    // -1: as it is
	only     string // with its name alone
	without  string

	script []*stmt
	binds  []bind
	user   int
	cwd    string
}

// builder as the source of a copy or bind is the first stage.
const builder = -2

// bind is a mount of a RUN.
type bind struct {
	from    int
	src, at string
	write   bool
}

// forest is a context, or what lies in the base image.
func (sc *scenario) forest(i int) *forest {
	if i < 0 {
		return &sc.base
	}
	return &sc.contexts[i]
}

// clone copies what edits change.
func (sc *scenario) clone() *scenario {
	c := *sc
	c.base = sc.base.clone()
	c.contexts = nil
	for _, f := range sc.contexts {
		c.contexts = append(c.contexts, f.clone())
	}
	c.stages = append([][]*step(nil), sc.stages...)
	return &c
}

// without is the scenario without a step.
func (sc *scenario) without(name string) *scenario {
	c := sc.clone()
	for i, stage := range c.stages {
		c.stages[i] = slices.DeleteFunc(slices.Clone(stage), func(st *step) bool { return st.name == name })
	}
	c.edits = nil
	for _, list := range sc.edits {
		c.edits = append(c.edits, slices.DeleteFunc(slices.Clone(list), func(e *edit) bool { return e.add != nil && e.add.name == name }))
	}
	return c
}

// versions gives the scenario as it is at each build, the first one included.
func (sc *scenario) versions() []*scenario {
	out := []*scenario{sc.clone()}
	for _, edits := range sc.edits {
		next := out[len(out)-1].clone()
		for _, e := range edits {
			e.do(next)
		}
		out = append(out, next)
	}
	return out
}

// target is a state that is asked for: that of a step, or a stage without any.
type target struct {
	step *step
	def  *pb.Definition
}

// targets gives what a build of the scenario makes, in order.
func (sc *scenario) targets(ctx context.Context) ([]target, error) {
	var out []target
	add := func(st *step, state llb.State) error {
		def, err := state.Marshal(ctx, llb.LinuxAmd64, llb.LocalUniqueID("one")) // or each target would have contexts of its own
		if err != nil {
			return err
		}
		out = append(out, target{st, def.ToPB()})
		return nil
	}
	var first, state llb.State
	for i, stage := range sc.stages {
		state = llb.Image("base")
		for _, st := range stage {
			state = st.apply(state, first)
			if err := add(st, state); err != nil {
				return nil, err
			}
		}
		if i == 0 {
			first = state
		}
	}
	return out, add(&step{kind: "end", last: len(sc.stages) - 1}, state)
}

// apply does a step as BuildKit's frontend asks for it.
func (st *step) apply(on, first llb.State) llb.State {
	input := func(from int) llb.State {
		if from == builder {
			return first
		}
		return llb.Local(fmt.Sprint("context", from))
	}
	switch st.kind {
	case "workdir":
		return on.File(llb.Mkdir(st.dst, 0o755, llb.WithParents(true)))
	case "copy":
		info := &llb.CopyInfo{FollowSymlinks: true, CopyDirContentsOnly: true, CreateDestPath: true, AllowWildcard: true, AllowEmptyWildcard: true}
		if st.mode >= 0 {
			info.Mode = &llb.ChmodOpt{Mode: fs.FileMode(st.mode)}
		}
		if st.only != "" {
			info.IncludePatterns = []string{st.only}
		}
		if st.without != "" {
			info.ExcludePatterns = []string{st.without}
		}
		opts := []llb.CopyOption{info}
		if st.chown != "" {
			opts = append(opts, llb.WithUser(st.chown))
		}
		do := llb.Copy(input(st.from), path.Join("/", st.src), st.dst, opts...)
		if st.link {
			return llb.Merge([]llb.State{on, llb.Scratch().File(do)})
		}
		return on.File(do)
	}
	opts := []llb.RunOption{llb.Args([]string{"/bin/sh", "-c", script(st.script)}), llb.AddEnv("STEP", st.name), llb.AddEnv("PATH", "/bin"), llb.WithCustomName(st.name)}
	if st.user != 0 {
		opts = append(opts, llb.User(fmt.Sprint(st.user)))
	}
	if st.cwd != "" {
		opts = append(opts, llb.Dir(st.cwd))
	}
	for _, b := range st.binds {
		mode := llb.MountOption(llb.Readonly)
		if b.write {
			mode = llb.ForceNoOutput
		}
		opts = append(opts, llb.AddMount(b.at, input(b.from), llb.SourcePath(path.Join("/", b.src)), mode))
	}
	return on.Run(opts...).Root()
}

func (st *step) String() string {
	from := func(i int) string {
		if i == builder {
			return "--from=builder"
		}
		return fmt.Sprint("--from=context", i)
	}
	switch st.kind {
	case "workdir":
		return fmt.Sprintf("WORKDIR %s", st.dst)
	case "copy":
		s := "COPY " + from(st.from)
		if st.link {
			s += " --link"
		}
		if st.chown != "" {
			s += " --chown=" + st.chown
		}
		if st.mode >= 0 {
			s += fmt.Sprintf(" --chmod=%o", st.mode)
		}
		if st.without != "" {
			s += " --exclude=" + st.without
		}
		if st.only != "" {
			s += " --include=" + st.only
		}
		return s + fmt.Sprintf(" %q %q", st.src, st.dst)
	}
	s := "RUN"
	for _, b := range st.binds {
		s += fmt.Sprintf(" --mount=type=bind,%s,source=%q,target=%s,rw=%v", strings.TrimPrefix(from(b.from), "--"), b.src, b.at, b.write)
	}
	return s + fmt.Sprintf(" user=%d cwd=%q\n%s", st.user, st.cwd, script(st.script))
}

func (sc *scenario) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n  base image:\n%s", sc.seed, sc.base)
	for i, f := range sc.contexts {
		fmt.Fprintf(&b, "  context %d:\n%s", i, f)
	}
	for i, stage := range sc.stages {
		fmt.Fprintf(&b, "  FROM base AS %s\n", map[bool]string{true: "builder", false: "final"}[i == 0 && len(sc.stages) > 1])
		for _, st := range stage {
			fmt.Fprintf(&b, "    %-6s %s\n", st.name, strings.ReplaceAll(strings.TrimSpace(st.String()), "\n", "\n             "))
		}
	}
	for i, edits := range sc.edits {
		fmt.Fprintf(&b, "  before build %d:\n", i+2)
		for _, e := range edits {
			fmt.Fprintf(&b, "      %s\n", e)
		}
	}
	return b.String()
}
