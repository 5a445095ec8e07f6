package automount

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

var (
	pipName    = regexp.MustCompile(`^pip[0-9.]*$`)
	pythonName = regexp.MustCompile(`^(python|pypy)[0-9.]*$`)
	phpName    = regexp.MustCompile(`^php[0-9.]*$`)
)

// tool looks at a command that runs no other. input is what it reads from a here-document.
func (w *walker) tool(name string, args []string, input string) {
	c := &call{args: args, vars: w.vars, cwd: w.cwd, text: w.caller.piped + input, sudo: w.caller.sudo, other: w.caller.other, substitute: w.caller.substitute}
	rest := args[1:]
	switch {
	case pipName.MatchString(name):
		w.pip(c, rest)
	case pythonName.MatchString(name):
		if m := slices.Index(rest, "-m"); m >= 0 && m+1 < len(rest) && !slices.ContainsFunc(rest[:m], notOption) {
			w.simple(rest[m+1:], "")
		} else {
			w.note(args, input)
		}
	case phpName.MatchString(name) && len(rest) > 0 && strings.HasPrefix(path.Base(rest[0]), "composer"):
		w.composer(c, rest[1:])
	default:
		switch name {
		case "uv":
			w.uv(c, rest)
		case "uvx":
			w.uv(c, append([]string{"tool", "run"}, rest...))
		case "poetry":
			w.poetry(c, rest)
		case "npm":
			w.npm(c, rest)
		case "npx":
			w.npm(c, append([]string{"exec"}, rest...))
		case "yarn", "yarnpkg":
			w.yarn(c, rest)
		case "pnpm":
			w.pnpm(c, rest)
		case "pnpx":
			w.pnpm(c, append([]string{"dlx"}, rest...))
		case "go":
			w.golang(c, rest)
		case "cargo":
			w.cargo(c, rest)
		case "mvn", "mvnw", "mvnd":
			w.maven(c, rest)
		case "gradle", "gradlew":
			w.gradle(c, rest, name == "gradlew")
		case "apt-get", "apt":
			w.apt(c, rest)
		case "bundle", "bundler":
			w.bundle(c, rest)
		case "gem":
			w.gem(c, rest)
		case "composer", "composer.phar":
			w.composer(c, rest)
		default:
			w.calls = append(w.calls, *c)
		}
	}
}

func notOption(s string) bool { return !strings.HasPrefix(s, "-") }

// homeOf is the home directory of the one who runs a command, "" where nothing says which it is.
func (w *walker) homeOf(c *call) string {
	return home(c.vars, w.who, caller{sudo: c.sudo, other: c.other})
}

// cacheHome is where programs keep caches by default, "" if nothing says where.
func (w *walker) cacheHome(c *call) string {
	return cmp.Or(c.vars.get("XDG_CACHE_HOME"), under(w.homeOf(c), ".cache"))
}

// clears notes that a command empties a tool's cache, or asks where it is, to do something with it.
func (w *walker) clears(tool string) { w.cleared[tool] = true }

// configure notes what a tool's own configuration was set to.
func (w *walker) configure(name, value string) {
	if name == "" || value == "" {
		return
	}
	w.settings = append(w.settings, name+"="+value)
	if _, ok := w.vars.m[name]; !ok { // the environment wins
		w.vars.set(name, value)
	}
}

// system are directories that are there in every image, and never a cache.
var system = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin",
	"/srv", "/sys", "/tmp", "/usr", "/usr/local", "/usr/share", "/usr/local/share", "/var", "/var/cache", "/var/lib", "/var/tmp"}

// want notes that a command wants a cache mount. dir is where the tool keeps its cache, "" if nothing says where.
func (w *walker) want(c *call, tool, dir string, offline bool) {
	w.wish(c, wish{Mount: Mount{Tool: tool, Target: dir}, offline: offline})
}

func (w *walker) wish(c *call, x wish) {
	dir := x.Target
	if dir != "" && !path.IsAbs(dir) {
		dir = path.Join(c.cwd, dir)
	}
	x.Target = ""
	switch {
	case dir == "" && c.other:
		w.skip(x.Tool, "", "it runs as another user than the step")
		return
	case dir == "":
		w.skip(x.Tool, "", w.lost(c, x.Tool))
		return
	case !known(dir):
		w.skip(x.Tool, "", "where its cache is becomes known only when the command runs")
		return
	}
	x.Target = path.Clean(dir)
	x.ID = x.Target
	x.stock = x.stock || slices.Contains(stocks, x.Tool)
	x.lasts = x.lasts || slices.Contains(lasting, x.Tool)
	switch {
	case slices.Contains(system, x.Target) || x.Target == w.homeOf(c):
		w.skip(x.Tool, x.Target, "that directory holds other things too")
		return
	case within("/proc", x.Target), within("/sys", x.Target), within("/dev", x.Target):
		w.skip(x.Tool, x.Target, "that is no place for a cache")
		return
	case known(c.cwd) && within(x.Target, c.cwd):
		w.skip(x.Tool, x.Target, "the command works in there")
		return
	}
	if why := w.writable(c, &x.Mount); why != "" {
		w.skip(x.Tool, x.Target, why)
		return
	}
	w.wishes = append(w.wishes, x)
}

// writable gives a mount the owner that it needs, or says why that cannot be.
//
// The directories above a mount that the image has not are root's while the command runs. A tool that runs as somebody
// else could make nothing else in them, so they have to be ones that are there.
func (w *walker) writable(c *call, m *Mount) string {
	switch {
	case w.who.root && !c.other, c.sudo && !c.other:
		return ""
	case c.other:
		return "it runs as another user than the step"
	case !w.who.numeric:
		return "it runs as user " + w.who.name + ", whose number is not known beforehand"
	}
	parent := path.Dir(m.Target)
	if parent != w.homeOf(c) && !slices.Contains(system, parent) {
		return "it runs as user " + w.who.name + ", who could not write to " + parent + " where the image has no such directory"
	}
	owner := w.who.owner
	m.Owner = &owner
	return ""
}

// lost says why it is not known where a tool keeps its cache, and the way out.
func (w *walker) lost(c *call, tool string) string {
	nobody := "nothing says where user " + w.who.name + " has its home directory: set "
	switch {
	case c.sudo:
		return "sudo may change the home directory"
	case tool == "maven":
		return nobody + "-Dmaven.repo.local" // Java does not look at HOME
	case tool == "gradle":
		return nobody + "GRADLE_USER_HOME"
	}
	return nobody + "HOME"
}

// locked is for tools whose caches two of them must not write at once.
func locked(m Mount) Mount {
	m.Sharing = pb.CacheSharingOpt_LOCKED
	return m
}

// within tells whether a path is dir, or lies below it. Both are clean and absolute.
func within(dir, p string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
