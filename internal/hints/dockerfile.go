package hints

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"larder/internal/report"
)

// file is a Dockerfile.
type file struct {
	lines    []string
	escape   rune
	globals  variables // values of ARGs before the first FROM
	contexts []string
	stages   []*stage
	runs     []*run                            // of the stages that count, in the order of the file
	known    map[*instructions.RunCommand]*run // the same, by what they are made of
}

// stage is a stage of it.
type stage struct {
	instructions.Stage
	file    *file
	base    *stage // nil for an image
	image   string // its base with variables expanded; empty where they are not known
	reached bool
}

// run is a RUN.
type run struct {
	*instructions.RunCommand
	stage   *stage
	at      int    // in the stage's commands
	text    string // what the shell reads
	code    string // all that it says
	fetched string // what it fetches, by URLs and git
	script  *script
	steps   []*report.Step // what is known of it
}

// line is the first line of an instruction.
func line(c instructions.Command) int { return first(c.Location()) }

// setGlobals takes the ARGs before the first FROM.
func (f *file) setGlobals(list []instructions.ArgCommand, given map[string]string) {
	for _, c := range list {
		for _, a := range c.Args {
			if v, ok := given[a.Key]; ok {
				f.globals[a.Key] = v
			} else if a.Value != nil {
				if v, ok := f.expand(*a.Value, f.globals); ok {
					f.globals[a.Key] = v
				}
			}
		}
	}
}

// variables are the values of ARG and ENV that are known.
type variables map[string]string

// Get implements shell.EnvGetter.
func (v variables) Get(name string) (string, bool) {
	value, ok := v[name]
	return value, ok
}

// Keys implements shell.EnvGetter.
func (v variables) Keys() []string { return slices.Collect(maps.Keys(v)) }

// expand puts variables into a word; not ok where one is not known.
func (f *file) expand(word string, vars variables) (string, bool) {
	got, unknown, err := shell.NewLex(f.escape).ProcessWord(word, vars)
	return got, err == nil && len(unknown) == 0
}

func (f *file) addStages(list []instructions.Stage) {
	for _, s := range list {
		st := &stage{Stage: s, file: f}
		if name, ok := f.expand(s.BaseName, f.globals); ok {
			if st.base = f.stage(name); st.base == nil {
				st.image = name
			}
		}
		for _, c := range s.Commands {
			if c, ok := c.(*instructions.RunCommand); ok {
				// Only now its mounts are read. What is wrong with one is no matter here.
				_ = c.Expand(func(word string) (string, error) {
					if v, ok := f.expand(word, f.globals); ok {
						return v, nil
					}
					return word, nil
				})
			}
		}
		f.stages = append(f.stages, st)
	}
}

// stage finds a stage by name, nil for none.
func (f *file) stage(name string) *stage {
	for _, s := range slices.Backward(f.stages) {
		if s.Name != "" && strings.EqualFold(s.Name, name) {
			return s
		}
	}
	return nil
}

// reach marks the stages that are built for a target, and lists their RUNs.
func (f *file) reach(target string) {
	if target == "" {
		for _, s := range f.stages {
			s.reached = true
		}
	} else {
		f.need(target)
	}
	for _, s := range f.stages {
		if !s.reached {
			continue
		}
		for i, c := range s.Commands {
			if c, ok := c.(*instructions.RunCommand); ok {
				r := &run{RunCommand: c, stage: s, at: i, text: command(c)}
				r.code = strings.Join(r.FlagsUsed, " ") + r.String() + r.text
				r.fetched = strings.Join(fetches.FindAllString(r.text, -1), "\n")
				r.script = readScript(r.text)
				f.known[c] = r
				f.runs = append(f.runs, r)
			}
		}
	}
}

// need marks a stage, by name or number, and all that it takes from.
func (f *file) need(name string) {
	s := f.stage(name)
	if n, err := strconv.Atoi(name); s == nil && err == nil && n >= 0 && n < len(f.stages) {
		s = f.stages[n]
	}
	for ; s != nil && !s.reached; s = s.base {
		s.reached = true
		for _, c := range s.Commands {
			switch c := c.(type) {
			case *instructions.CopyCommand:
				f.need(c.From)
			case *instructions.RunCommand:
				for _, m := range instructions.GetMounts(c) {
					f.need(m.From)
				}
			}
		}
	}
}

// command is what a RUN runs as shell text, as BuildKit gives it to the shell; empty for what no shell reads.
func command(c *instructions.RunCommand) string {
	switch {
	case len(c.CmdLine) == 0:
		return ""
	case !c.PrependShell:
		words := make([]string, len(c.CmdLine))
		for i, w := range c.CmdLine {
			words[i] = quote(w)
		}
		return strings.Join(words, " ")
	case len(c.Files) == 0:
		return c.CmdLine[0]
	}
	if doc, err := parser.ParseHeredoc(c.CmdLine[0]); err == nil && doc != nil { // nothing but a here-document
		text := c.Files[0].Data
		if c.Files[0].Chomp {
			text = parser.ChompHeredocContent(text)
		}
		if line, ok := strings.CutPrefix(strings.SplitN(text, "\n", 2)[0], "#!"); ok && !slices.ContainsFunc(strings.Fields(line), isShell) {
			return ""
		}
		return text
	}
	var b strings.Builder
	b.WriteString(c.CmdLine[0])
	for _, doc := range c.Files {
		b.WriteString("\n" + doc.Data + doc.Name)
	}
	return b.String()
}

// isShell tells whether a program is one whose scripts are read here.
func isShell(program string) bool { return slices.Contains(shells, path.Base(program)) }

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// before lists what a RUN stands on: the commands of the stages below, and those above it in its own.
func (r *run) before() []instructions.Command {
	var chain []*stage
	for s := r.stage.base; s != nil; s = s.base {
		chain = append(chain, s)
	}
	var out []instructions.Command
	for _, s := range slices.Backward(chain) {
		out = append(out, s.Commands...)
	}
	return append(out, r.stage.Commands[:r.at]...)
}

// standsOn tells whether a stage is another one, or is made from it.
func (s *stage) standsOn(other *stage) bool {
	for ; s != nil; s = s.base {
		if s == other {
			return true
		}
	}
	return false
}

// below lists the RUNs that a command of a stage comes before: in that stage, and in those made from it.
func (s *stage) below(at int) []*run {
	var out []*run
	for _, r := range s.file.runs {
		if r.stage == s && r.at > at || r.stage != s && r.stage.standsOn(s) {
			out = append(out, r)
		}
	}
	return out
}

// copied is a COPY or ADD of the whole context.
type copied struct {
	line int
	dest string // absolute, or relative to the working directory that the base image sets
}

// contexts lists the copies of the whole context that a RUN stands on, and gives the RUN's working directory in the same form.
func (r *run) contexts() (list []copied, cwd string) {
	f := r.stage.file
	cwd = "."
	vars := variables{}
	maps.Copy(vars, f.globals)
	for _, c := range r.before() {
		switch c := c.(type) {
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				if a.Value != nil {
					f.set(vars, a.Key, *a.Value)
				}
			}
		case *instructions.EnvCommand:
			for _, e := range c.Env {
				f.set(vars, e.Key, e.Value)
			}
		case *instructions.WorkdirCommand:
			if dir, ok := f.expand(c.Path, vars); ok {
				cwd = within(cwd, dir)
			} else {
				cwd = unknown
			}
		case *instructions.CopyCommand:
			if c.From == "" {
				list = append(list, f.whole(c, c.SourcesAndDest, cwd, vars)...)
			}
		case *instructions.AddCommand:
			list = append(list, f.whole(c, c.SourcesAndDest, cwd, vars)...)
		}
	}
	return list, cwd
}

// unknown is a directory that nothing can be in.
const unknown = "\x00"

func (f *file) set(vars variables, name, value string) {
	if v, ok := f.expand(value, vars); ok {
		vars[name] = v
	} else {
		delete(vars, name)
	}
}

func (f *file) whole(c instructions.Command, sd instructions.SourcesAndDest, cwd string, vars variables) []copied {
	if !slices.ContainsFunc(sd.SourcePaths, isContext) {
		return nil
	}
	dest, ok := f.expand(sd.DestPath, vars)
	if !ok {
		return nil
	}
	return []copied{{line(c), within(cwd, dest)}}
}

func isContext(source string) bool {
	return slices.Contains([]string{".", "/", "*", "/*"}, path.Clean(source))
}

// within joins directories; the second may be absolute.
func within(dir, sub string) string {
	if path.IsAbs(sub) {
		return path.Clean(sub)
	}
	if dir == unknown {
		return unknown
	}
	return path.Join(dir, sub)
}

// narrow gives the first line of an instruction in which there is what match finds, or all of its lines.
func (f *file) narrow(where []parser.Range, match func(string) bool) []parser.Range {
	for _, r := range where {
		for n := r.Start.Line; n <= max(r.Start.Line, r.End.Line) && n >= 1 && n <= len(f.lines); n++ {
			text := strings.TrimSpace(f.lines[n-1])
			if !strings.HasPrefix(text, "#") && match(text) {
				at := parser.Position{Line: n}
				return []parser.Range{{Start: at, End: at}}
			}
		}
	}
	return where
}
