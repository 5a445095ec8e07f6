package hints

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// moving are names of variables that have another value in each build or each commit, without what origins say.
var moving = words("BUILD_DATE BUILDDATE BUILD_TIME BUILDTIME BUILD_TIMESTAMP BUILD_DATETIME BUILD_AT BUILT_AT BUILD_CREATED TIMESTAMP DATE " +
	"DATETIME NOW CREATED CREATED_AT BUILD_NUMBER BUILDNUMBER BUILD_NUM BUILD_NO BUILD_ID BUILDID BUILD_TAG BUILD_URL JOB_ID PIPELINE_ID " +
	"PIPELINE_IID RUN_ID RUN_NUMBER RUN_ATTEMPT COMMIT COMMIT_SHA COMMIT_HASH COMMIT_ID COMMIT_SHORT_SHA COMMIT_SHORT COMMIT_TIMESTAMP " +
	"COMMIT_DATE COMMIT_TIME COMMIT_MESSAGE SHORT_SHA SHORT_COMMIT HEAD_SHA GIT_SHA GITSHA GIT_SHA1 GIT_SHORT_SHA GIT_COMMIT GITCOMMIT " +
	"GIT_COMMIT_SHA GIT_COMMIT_HASH GIT_COMMIT_ID GIT_COMMIT_SHORT GIT_COMMIT_DATE GIT_COMMIT_ID_ABBREV GIT_HASH GITHASH GIT_REV " +
	"GIT_REVISION GIT_DESCRIBE VCS_REF VCS_REVISION VCS_COMMIT VCS_SHA REVISION SOURCE_COMMIT GITHUB_SHA CIRCLE_SHA1 BUILD_SHA " +
	"BUILD_COMMIT BUILD_REVISION BUILD_HASH BUILD_VCS_NUMBER")

// origins are what CI systems, hosts and tools put in front of such names.
var origins = words("CI_ GITHUB_ CIRCLE_ DRONE_ TRAVIS_ BITBUCKET_ BUILDKITE_ JENKINS_ VERCEL_ RENDER_ RAILWAY_ APP_ IMAGE_ DOCKER_ " +
	"PROJECT_ VITE_ NEXT_PUBLIC_ REACT_APP_ NUXT_PUBLIC_ PUBLIC_")

// isMoving tells whether a variable of that name has another value in each build, or after each commit.
func isMoving(name string) bool {
	name = strings.TrimSuffix(strings.ToUpper(name), "_ARG")
	for range 3 {
		if slices.Contains(moving, name) {
			return true
		}
		for _, o := range origins {
			if rest, ok := strings.CutPrefix(name, o); ok {
				name = rest
				break
			}
		}
	}
	return false
}

var (
	hash    = regexp.MustCompile(`^[0-9a-f]{7,64}$`)
	release = regexp.MustCompile(`^v?[0-9]+\.[0-9]`)
	digits  = regexp.MustCompile(`[0-9]{4}`)
)

// isPin tells whether a default is a value to build with, not one that says that none was given.
func isPin(value string) bool {
	value = strings.ToLower(strings.TrimSpace(value))
	if strings.Contains(value, "1970") || strings.Trim(value, "0-:tz. ") == "" {
		return false
	}
	return hash.MatchString(value) || release.MatchString(value) || digits.MatchString(value)
}

// arguments looks for ARGs that change with each build, and for the RUNs below that have them in their environment and do not use them.
func (c *checker) arguments() {
	for _, s := range c.file.stages {
		if !s.reached {
			continue
		}
		for i, cmd := range s.Commands {
			if arg, ok := cmd.(*instructions.ArgCommand); ok {
				for _, a := range arg.Args {
					c.argument(s, i, arg, a)
				}
			}
		}
	}
}

func (c *checker) argument(s *stage, at int, arg *instructions.ArgCommand, a instructions.KeyValuePairOptional) {
	value := a.Value
	if v, ok := c.file.globals[a.Key]; ok && value == nil {
		value = &v
	}
	if !isMoving(a.Key) || value != nil && isPin(*value) {
		return
	}
	u := c.uses(s, at, a.Key)
	if u.fetched {
		return
	}
	var hit []int
	prints := 0
	for _, r := range s.below(at) {
		switch named := u.mentioned(r.code); {
		case !named && r.suffers(u):
			hit = append(hit, line(r))
		case named && prints == 0 && r.onlyPrints(u):
			prints = line(r)
		}
	}
	where := c.file.narrow(arg.Location(), func(text string) bool { return names(text, a.Key) })
	switch len(hit) {
	case 0:
		if prints > 0 {
			c.warn(ruleArgTooEarly, arg.Comments(), where, "%s has another value in each build, and the RUN in line %d, which does no more than print it, "+
				"runs again each time with all else that it does. Print it in a RUN of its own, and declare the ARG right above that", a.Key, prints)
		}
		return
	case 1:
		c.warn(ruleArgTooEarly, arg.Comments(), where, "%s has another value in each build, and the RUN in line %d, which does not use it, has it in its "+
			"environment: it runs again each time. Declare the ARG below it; where only a label needs it, at the end of the last stage", a.Key, hit[0])
		return
	}
	c.warn(ruleArgTooEarly, arg.Comments(), where, "%s has another value in each build, and the RUNs in lines %s, which do not use it, have it in their "+
		"environment: they run again each time. Declare the ARG below them; where only a label needs it, at the end of the last stage", a.Key, numbers(hit))
}

// numbers writes line numbers: "4, 6 and 9".
func numbers(list []int) string {
	const most = 6
	var out []string
	for _, n := range list[:min(len(list), most)] {
		out = append(out, strconv.Itoa(n))
	}
	end := out[len(out)-1]
	out = out[:len(out)-1]
	if len(list) > most {
		out, end = append(out, end), fmt.Sprintf("%d more", len(list)-most)
	}
	return strings.Join(out, ", ") + " and " + end
}

// uses is what is done with a variable below its declaration.
type uses struct {
	names    []string // it, and variables that it is put into
	env      bool     // it is in the environment under a name that somebody chose
	somebody bool     // a label or a RUN names it
	fetched  bool     // it says which commit of something is fetched
}

func (u *uses) mentioned(code string) bool {
	return slices.ContainsFunc(u.names, func(name string) bool { return names(code, name) })
}

// names tells whether a variable's name stands in a text as a word of its own.
func names(text, name string) bool {
	letter := func(s string) bool { // at its beginning
		return s != "" && (s[0] == '_' || s[0] >= '0' && s[0] <= '9' || s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z')
	}
	for from := 0; ; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return false
		}
		i += from
		from = i + len(name)
		if !letter(text[from:]) && (i == 0 || !letter(text[i-1:])) {
			return true
		}
	}
}

// fetches finds a fetch of what a variable may name.
var fetches = regexp.MustCompile(`\bgit [^;&|\n]*\b(?:clone|checkout|fetch|reset|switch|submodule)[^;&|\n]*|(?:https?|git)://\S+`)

// uses goes through what stands below an ARG.
func (c *checker) uses(s *stage, at int, name string) *uses {
	u := &uses{names: []string{name}}
	for _, st := range c.file.stages {
		below := st.Commands
		switch {
		case st == s:
			below = below[at+1:]
		case !st.standsOn(s):
			continue
		}
		for _, cmd := range below {
			u.add(c.file, cmd)
		}
	}
	return u
}

func (u *uses) add(f *file, cmd instructions.Command) {
	switch cmd := cmd.(type) {
	case *instructions.EnvCommand:
		for _, e := range cmd.Env {
			if u.mentioned(e.Value) {
				u.env = true
				u.names = append(u.names, e.Key)
			}
		}
	case *instructions.ArgCommand:
		for _, a := range cmd.Args {
			if a.Value != nil && u.mentioned(*a.Value) {
				u.names = append(u.names, a.Key)
			}
		}
	case *instructions.LabelCommand:
		u.somebody = u.somebody || u.mentioned(cmd.String())
	case *instructions.RunCommand:
		r := f.known[cmd]
		if r == nil {
			return // of a stage that is not built
		}
		u.somebody = u.somebody || u.mentioned(r.code)
		u.fetched = u.fetched || u.mentioned(r.fetched)
	case *instructions.AddCommand:
		u.fetched = u.fetched || u.mentioned(cmd.String())
	}
}

// suffers tells whether a RUN that does not name a variable has no use for it. One that sets the system up has none; a program of the
// project may look it up in its environment, unless somebody else is seen to use it.
func (r *run) suffers(u *uses) bool {
	s := r.script
	if s.opaque || len(s.calls) == 0 {
		return false
	}
	if slices.ContainsFunc(s.calls, func(c call) bool { return !c.setsUp() }) {
		return u.somebody && !u.env
	}
	return slices.ContainsFunc(s.calls, func(c call) bool { return !c.isCheap() })
}

// statements are what separates the commands of a shell text, roughly.
var statements = regexp.MustCompile(`&&|\|\||[;\n]`)

// onlyPrints tells whether a RUN that installs something names a variable for echo and printf only.
func (r *run) onlyPrints(u *uses) bool {
	if r.script.opaque || !slices.ContainsFunc(r.script.calls, func(c call) bool { return c.setsUp() && !c.isCheap() }) {
		return false
	}
	printed := false
	for _, st := range statements.Split(r.text, -1) {
		if !u.mentioned(st) {
			continue
		}
		if word := words(st)[0]; word != "echo" && word != "printf" {
			return false
		}
		printed = true
	}
	return printed
}
