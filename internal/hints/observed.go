package hints

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"larder/internal/observation"
	"larder/internal/report"
	"larder/internal/tree"
)

// observed says what is wrong with what a RUN looked at. It tells whether all of that is known, so that nothing need be guessed.
func (c *checker) observed(r *run) (known bool) {
	var git, whole, unrelated string
	for _, s := range r.steps {
		list, all := c.looks(s)
		known = known || all
		for _, l := range list {
			tops := r.tops(l, s)
			git = cmp.Or(git, l.git(tops))
			for _, top := range tops {
				text := l.all(top)
				whole = cmp.Or(whole, text)
				if text == "" {
					unrelated = cmp.Or(unrelated, l.unrelated(top))
				}
			}
		}
	}
	if git != "" {
		c.warn(ruleReadsGit, r.Comments(), r.Location(), "%s, which each commit changes, so that this RUN runs again after each. %s", git, r.withoutGit())
	}
	if whole != "" {
		c.warn(ruleListsContext, r.Comments(), r.Location(), "%s. %s", whole, r.withoutAll())
	}
	if unrelated != "" {
		c.warn(ruleReadsUnrelated, r.Comments(), r.Location(), "%s: it runs again when that changes. "+
			"Name it in .dockerignore, or copy what this RUN needs only", unrelated)
	}
	return known
}

// quiet are the files below .git that commits do not touch.
var quiet = words("config description hooks info shallow commondir gitdir worktrees modules branches")

// git says which file below a .git the step read; empty for none. A repository that ADD fetched is one that the Dockerfile names, and a
// bind mount of .git itself is wanted. tops are where the build context is.
func (l looked) git(tops []string) string {
	if title := instruction(l.step); strings.HasPrefix(title, "ADD ") && (strings.Contains(title, "://") || strings.Contains(title, "git@")) {
		return ""
	}
	for _, s := range l.seen {
		names := strings.Split(s.Path, "/")
		i := slices.Index(names, ".git")
		switch {
		case s.Kind&observation.Whole != 0 && i < 0:
			if l.hasGit(s.Path) || slices.ContainsFunc(tops, func(top string) bool { return holds(s.Path, top) && l.hasGit(top) }) {
				return "This RUN looked at all of " + l.shown(s.Path) + ", with .git in it"
			}
		case i < 0 || s.Kind&(observation.Content|observation.Whole|observation.List) == 0 || missing(s):
		case i == len(names)-1 && s.Kind&(observation.Whole|observation.List) != 0 && l.isDir(s.Path):
			return "This RUN looked into " + l.shown(s.Path)
		case i < len(names)-1 && !slices.Contains(quiet, names[i+1]):
			return "This RUN read " + l.shown(s.Path)
		}
	}
	return ""
}

// hasGit tells whether there is a repository in a directory, as far as that is to be seen.
func (l looked) hasGit(dir string) bool {
	return l.root != nil && find(l.root, tree.Join(dir, ".git/HEAD")) != nil
}

// isDir tells whether there is a directory at a path; also where nobody knows.
func (l looked) isDir(path string) bool {
	if l.root == nil {
		return true
	}
	n := find(l.root, path)
	return n != nil && n.Kind == tree.Dir
}

// shown is a path in the group as the step has it.
func (l looked) shown(p string) string { return shown(path.Join("/", l.place, p)) }

// instruction is the instruction that a step's name has.
func instruction(name string) string {
	if _, rest, ok := strings.Cut(name, "] "); ok && strings.HasPrefix(name, "[") {
		return rest
	}
	return name
}

// internalContext begins the name of the step that loads the build context.
const internalContext = "[internal] load build context"

// tops are the directories of a group that hold the whole build context, as paths in it.
func (r *run) tops(l looked, s *report.Step) []string {
	if l.place != "/" {
		if l.input.Source == "" && strings.HasPrefix(l.step, internalContext) {
			return []string{""}
		}
		return nil
	}
	var out []string
	list, cwd := r.contexts()
	for _, c := range list {
		dest := c.dest
		switch {
		case path.IsAbs(dest):
		case dest == cwd && dest != unknown && path.IsAbs(s.Recipe.Cwd): // wherever the base image has it
			dest = s.Recipe.Cwd
		default:
			continue
		}
		dest = strings.Trim(path.Clean(dest), "/")
		if l.root == nil || l.isDir(dest) {
			out = append(out, dest)
		}
	}
	return out
}

// Bounds from which on it is said that a step looks at everything: what is smaller may all be needed.
const (
	manyFiles = 20
	manyDirs  = 10
)

// holds tells whether a path is that of a directory or of one above it.
func holds(p, dir string) bool { return p == "" || p == dir || strings.HasPrefix(dir, p+"/") }

// all says that the step looked at everything below a directory; empty where it did not.
func (l looked) all(top string) string {
	kinds := make(map[string]observation.Kind, len(l.seen))
	covered := false
	for _, s := range l.seen {
		kinds[s.Path] = s.Kind
		covered = covered || s.Kind&observation.Whole != 0 && holds(s.Path, top)
	}
	name := l.shown(top)
	n := find(l.root, top)
	if n == nil {
		if l.root == nil && covered {
			return fmt.Sprintf("This RUN looked at everything in %s, where the whole build context is: any change to it makes it run again", name)
		}
		return ""
	}
	var k count
	if err := k.walk(n, top, kinds, covered); err != nil {
		return ""
	}
	switch {
	case k.files >= manyFiles && k.read*10 >= k.files*9:
		return fmt.Sprintf("This RUN read %d of the %d files in %s, where the whole build context is: nearly any change to it makes it run again", k.read, k.files, name)
	case k.dirs >= manyDirs && k.listed == k.dirs:
		return fmt.Sprintf("This RUN listed all %d directories in %s, where the whole build context is: any new file makes it run again", k.dirs, name)
	}
	return ""
}

// count counts what a step saw of a directory.
type count struct {
	files, read, dirs, listed int
}

func (k *count) walk(n *tree.Node, at string, kinds map[string]observation.Kind, whole bool) error {
	whole = whole || kinds[at]&observation.Whole != 0
	switch n.Kind {
	case tree.File:
		k.files++
		if whole || kinds[at]&observation.Content != 0 {
			k.read++
		}
	case tree.Dir:
		k.dirs++
		if whole || kinds[at]&observation.List != 0 {
			k.listed++
		}
		entries, err := n.Entries()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := k.walk(e.Node, tree.Join(at, e.Name), kinds, whole); err != nil {
				return err
			}
		}
	}
	return nil
}

// unrelated says which file of documentation or of build settings the step read at the top of the context; empty for none.
func (l looked) unrelated(top string) string {
	for _, s := range l.seen {
		name := s.Path
		if top != "" {
			var ok bool
			if name, ok = strings.CutPrefix(s.Path, top+"/"); !ok {
				continue
			}
		}
		if s.Kind&observation.Content != 0 && isUnrelated(name) && !missing(s) {
			return "This RUN read " + l.shown(s.Path)
		}
	}
	return ""
}

// isUnrelated tells whether a path in a project is of a file that changes for other reasons than its program.
func isUnrelated(name string) bool {
	dir, base := path.Split(name)
	first, _, _ := strings.Cut(dir, "/")
	if slices.Contains([]string{".github", ".gitlab", ".circleci", ".buildkite"}, first) {
		return true
	}
	upper := strings.ToUpper(base)
	stem, _, _ := strings.Cut(upper, ".")
	return dir == "" && (slices.Contains(words("README CHANGELOG CHANGES HISTORY CONTRIBUTING DOCKERFILE CONTAINERFILE JENKINSFILE"), stem) ||
		slices.Contains(words(".DOCKERIGNORE .GITLAB-CI.YML .TRAVIS.YML AZURE-PIPELINES.YML BITBUCKET-PIPELINES.YML CLOUDBUILD.YAML"), upper) ||
		(strings.HasPrefix(upper, "DOCKER-COMPOSE") || strings.HasPrefix(upper, "COMPOSE.")) && strings.Contains(upper, ".Y"))
}

// has tells whether a RUN runs a command with words that begin it.
func (r *run) has(start ...string) bool {
	return slices.ContainsFunc(r.script.calls, func(c call) bool { return len(c) >= len(start) && slices.Equal(c[:len(start)], start) })
}

// withoutGit is the way out for a RUN that reads .git.
func (r *run) withoutGit() string {
	switch {
	case r.has("git"):
		return "Give the commit as an ARG below the costly RUNs and name .git in .dockerignore, or mount .git for a small RUN of its own: " +
			"RUN --mount=type=bind,source=.git,target=.git"
	case r.has("go", "build") || r.has("go", "install"):
		return "Name .git in .dockerignore, or build with -buildvcs=false: go asks git for the commit"
	}
	return "Name .git in .dockerignore"
}

// withoutAll is the way out for a RUN that looks at everything.
func (r *run) withoutAll() string {
	recursive := func(c call) bool {
		return slices.ContainsFunc(c, func(a string) bool {
			return a == "--recursive" || strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.Contains(a, "R")
		})
	}
	for _, c := range r.script.calls {
		switch {
		case c[0] == "chown" && recursive(c):
			return "COPY --chown does without this chown"
		case c[0] == "chmod" && recursive(c):
			return "COPY --chmod does without this chmod"
		}
	}
	return "Name what it does not need in .dockerignore, or copy or mount only what it needs"
}

// unobserved says that a layer that a RUN is given cannot be observed. Where nothing of it was, that is due to the machine or a flag,
// not to the Dockerfile.
func (c *checker) unobserved(r *run) {
	for _, s := range r.steps {
		if s.Not != "" && !blind(s) {
			c.warn(ruleUnobserved, r.Comments(), r.Location(), "A layer that this RUN is given cannot be observed (%s): "+
				"any change to it makes this run again", shown(s.Not))
			return
		}
	}
}

// blind tells whether there was something to observe, and it was not.
func blind(s *report.Step) bool {
	return slices.ContainsFunc(s.Inputs, func(in report.Input) bool {
		return slices.ContainsFunc(in.Groups, func(g report.Group) bool { return g.Observed && g.Seen == nil })
	})
}
