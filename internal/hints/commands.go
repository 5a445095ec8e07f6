package hints

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"larder/internal/report"
)

// dateWord finds where a line asks for the time.
var dateWord = regexp.MustCompile(`(?:^|[^\w-])g?date(?:$|[^\w-])|datetime|new Date|time\.time|Time\.now|Date\.now`)

// timestamp looks for a time that a RUN writes into a file.
func (c *checker) timestamp(r *run) {
	if r.script.opaque || !r.script.stamped || r.script.epoch {
		return
	}
	c.warn(ruleTimestamp, r.Comments(), c.file.narrow(r.Location(), dateWord.MatchString), "The time gets into what this RUN makes. A hit keeps the old "+
		"time, and each run makes another layer, so that all RUNs on top of it run as well. Give it as a label, as an ARG of the last stage, or use SOURCE_DATE_EPOCH")
}

// reading are the commands of git that read a repository which others wrote.
var reading = words("describe rev-parse log show rev-list status diff branch tag symbolic-ref name-rev shortlog for-each-ref show-ref ls-files " +
	"ls-tree cat-file diff-index archive blame reflog")

// git looks for RUNs that ask git for the commit, of a repository that came with the build context. It is for steps of which it is not known
// what they looked at.
func (c *checker) git(r *run) {
	if r.script.opaque {
		return
	}
	given, own := false, false
	for _, m := range instructions.GetMounts(r.RunCommand) {
		if m.Type != instructions.MountTypeBind {
			continue
		}
		if path.Base(m.Source) == ".git" || path.Base(m.Target) == ".git" {
			return // that is the way to do it
		}
		given = given || m.From == "" && (m.Source == "" || isContext(m.Source))
	}
	makes := func(s *script) bool {
		return slices.ContainsFunc(s.calls, func(c call) bool {
			sub, _ := c.subcommand("-C", "-c")
			return c[0] == "git" && (sub == "clone" || sub == "init") || c[0] == "gh" && slices.Contains(c, "clone")
		})
	}
	for _, cmd := range r.before() {
		switch cmd := cmd.(type) {
		case *instructions.CopyCommand:
			given = given || cmd.From == "" && slices.ContainsFunc(cmd.SourcePaths, func(s string) bool { return isContext(s) || path.Base(s) == ".git" })
			own = own || cmd.From != "" // that may bring any repository
		case *instructions.AddCommand:
			given = given || slices.ContainsFunc(cmd.SourcePaths, func(s string) bool { return isContext(s) || path.Base(s) == ".git" })
			own = own || cmd.KeepGitDir != nil && *cmd.KeepGitDir
		case *instructions.RunCommand:
			own = own || makes(c.file.known[cmd].script)
		}
	}
	if own || !given || makes(r.script) || r.has("git", "add") { // a comparison with what the RUN makes
		return
	}
	for _, call := range r.script.calls {
		if sub, rest := call.subcommand("-C", "-c"); call[0] == "git" && slices.Contains(reading, sub) {
			if sub == "rev-parse" && slices.ContainsFunc(rest, func(a string) bool { return strings.HasPrefix(a, "--show") || strings.HasPrefix(a, "--is-") }) {
				continue // where the repository is
			}
			where := c.file.narrow(r.Location(), func(text string) bool { return strings.Contains(text, sub) })
			c.warn(ruleReadsGit, r.Comments(), where, "git %s reads .git, which each commit changes, so that this RUN runs again after each. "+
				"Give the commit as an ARG below the costly RUNs, or mount .git for a small RUN of its own: RUN --mount=type=bind,source=.git,target=.git", sub)
			return
		}
	}
}

// packages are the package managers whose lists are fetched by a command of their own.
var packages = words("apt-get apt aptitude apk")

// lists looks for package lists that a RUN updates for another one.
func (c *checker) lists(r *run) {
	manager, installs := r.script.packages()
	if r.script.opaque || manager == "" || installs {
		return
	}
	for _, m := range instructions.GetMounts(r.RunCommand) {
		if m.Type == instructions.MountTypeCache && (strings.HasPrefix(m.Target, "/var/lib/apt") || strings.HasPrefix(m.Target, "/var/cache/apk") || strings.HasPrefix(m.Target, "/etc/apk")) {
			return
		}
	}
	for _, below := range r.stage.below(r.at) {
		own, installs := below.script.packages()
		if own != "" {
			return
		}
		if installs && !below.script.opaque {
			where := c.file.narrow(r.Location(), func(text string) bool { return strings.Contains(text, "update") })
			c.warn(ruleStaleLists, r.Comments(), where, "A hit keeps the package lists of the day on which this ran, and the RUN in line %d installs from them, or fails "+
				"where a version is gone. Update and install in one RUN; larder build --refresh 7d makes it anew from time to time", line(below))
			return
		}
	}
}

// packages tells whether a RUN updates package lists, and with what, and whether it installs anything.
func (s *script) packages() (updates string, installs bool) {
	for _, c := range s.calls {
		if !slices.Contains(packages, c[0]) {
			continue
		}
		switch sub, _ := c.subcommand("-o", "-c", "-t", "--repository", "-X"); sub {
		case "update":
			updates = c[0]
		case "install", "add", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "source", "download", "satisfy":
			installs = installs || sub != "upgrade" && sub != "dist-upgrade" && sub != "full-upgrade"
			if c[0] == "apk" && sub == "add" && slices.ContainsFunc(c, func(a string) bool { return a == "--no-cache" || a == "-U" || a == "--update-cache" || a == "--update" }) {
				updates = c[0]
			}
		}
	}
	return updates, installs
}

var (
	// address finds the URLs in a word.
	address = regexp.MustCompile(`(?:https?|ftp)://[^\s"'<>|;&]+`)
	// userinfo finds a name and password in one.
	userinfo = regexp.MustCompile(`://[^/@]*@`)
	// newest finds a word for it in the path of a URL.
	newest = regexp.MustCompile(`(?i)(?:^|[^a-z])(?:latest|nightly)(?:$|[^a-z])`)
	// branch finds a branch that moves in the path of a repository's file or archive.
	branch = regexp.MustCompile(`^/[^/]+/[^/]+/(?:raw/|archive/|tarball/|zipball/|blob/|-/raw/|-/archive/)?(?:refs/heads/)?(?:main|master|HEAD|develop)(?:$|[/.])`)
)

// isNewest tells whether a URL names what is newest, so that another thing may be there tomorrow.
func isNewest(text string) bool {
	u, err := url.Parse(strings.ReplaceAll(text, hole, "x"))
	if err != nil || u.Host == "" {
		return false
	}
	host := u.Hostname()
	hosts := strings.HasSuffix(host, "githubusercontent.com") || strings.HasPrefix(host, "git") || strings.HasPrefix(host, "codeload.")
	return newest.MatchString(u.Path) || hosts && branch.MatchString(u.Path)
}

// downloads looks for downloads of what is newest.
func (c *checker) downloads(r *run) {
	if r.script.opaque || slices.ContainsFunc(r.script.calls, func(c call) bool {
		return strings.HasSuffix(strings.Trim(c[0], "0123456789"), "sum") && slices.ContainsFunc(c, func(a string) bool {
			return strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.Contains(a, "c") || a == "--check"
		})
	}) {
		return // what is compared with a checksum has one version
	}
	for _, call := range r.script.calls {
		if !slices.Contains([]string{"curl", "wget", "aria2c", "pip", "pip3", "npm"}, call[0]) {
			continue
		}
		for _, a := range call {
			for _, u := range address.FindAllString(a, -1) {
				if !isNewest(u) {
					continue
				}
				text := userinfo.ReplaceAllString(strings.ReplaceAll(u, hole, "..."), "://")
				where := c.file.narrow(r.Location(), func(line string) bool { return slices.ContainsFunc(address.FindAllString(line, -1), isNewest) })
				c.warn(ruleMovingDownload, r.Comments(), where, "%s is another thing from time to time, and a hit keeps what was fetched first. "+
					"Name a version; larder build --refresh 7d makes results anew that are older than that", shown(text))
				return
			}
		}
	}
}

// shown makes text fit into a warning.
func shown(s string) string {
	const most = 80
	s = report.Quoted(s)
	if chars := []rune(s); len(chars) > most {
		return string(chars[:most-3]) + "..."
	}
	return s
}

// bases looks for base images without a version.
func (c *checker) bases() {
	for _, s := range c.file.stages {
		image, _, _ := strings.Cut(s.image, "@")
		if !s.reached || s.image == "" || image != s.image || strings.EqualFold(image, "scratch") || strings.EqualFold(image, "context") {
			continue
		}
		name, tag := image, ""
		if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
			name, tag = image[:i], image[i+1:]
		}
		if tag != "" && tag != "latest" || c.file.named(image) {
			continue
		}
		if len(c.below(s)) == 0 {
			continue
		}
		text := "without a tag is " + name + ":latest"
		if tag != "" {
			text = "is whatever is newest"
		}
		c.warn(ruleMovingBase, s.Comments, s.Location, "%s %s: whenever that moves, all RUNs on it run again. Name a version, %s:TAG, or a digest, %s@sha256:...",
			shown(image), text, shown(name), shown(name))
	}
}

// below lists the RUNs that stand on a stage's base.
func (c *checker) below(s *stage) []*run { return s.below(-1) }

// named tells whether the user gave a context of that name.
func (f *file) named(image string) bool {
	return slices.ContainsFunc(f.contexts, func(name string) bool {
		name = strings.ToLower(name)
		return name == image || strings.TrimSuffix(image, ":latest") == strings.TrimSuffix(name, ":latest")
	})
}
