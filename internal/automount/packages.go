package automount

import (
	"cmp"
	"slices"
	"strings"
)

// keepDebs stands in for docker-clean, the file by which Debian's images make apt delete what it downloaded. Apt's own
// caches of the lists stay in memory, as with that file: they are old by the next build.
const keepDebs = `Binary::apt::APT::Keep-Downloaded-Packages "true";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
`

// apt gets the packages that it downloads. The lists stay in the image: later commands may want them, and a command
// that deletes them does so itself.
func (w *walker) apt(c *call, args []string) {
	l := parse(args, "-t --target-release --default-release -o --option -c --config-file -a --host-architecture -P --build-profiles")
	switch {
	case l.is(0, "clean distclean"):
		w.clears("apt")
	case !l.is(0, "install reinstall upgrade dist-upgrade full-upgrade build-dep satisfy dselect-upgrade"):
	case l.has("-s", "--simulate", "--just-print", "--dry-run", "--recon", "--no-act", "--print-uris", "-h", "--help"):
	case l.has("-d", "--download-only"):
		w.skip("apt", "/var/cache/apt", "what it downloads is meant to stay in the image")
	case slices.ContainsFunc(args, func(a string) bool { return strings.Contains(strings.ToLower(a), "dir::") }):
		w.skip("apt", "/var/cache/apt", "it is told where to keep what it downloads")
	default:
		w.wish(c, wish{Mount: locked(Mount{
			Tool: "apt", Target: "/var/cache/apt",
			Beside: &File{Path: "/etc/apt/apt.conf.d/docker-clean", Data: []byte(keepDebs)},
		}), offline: l.has("--no-download")})
	}
}

func (w *walker) bundle(c *call, args []string) {
	l := parse(args, "--gemfile --jobs -j --retry --path --without --with --group -g --source -s --version -v --bundle")
	switch {
	case l.is(0, "config"):
		w.bundleConfig(l)
		return
	case l.has("--help", "-h", "--version", "-v") && len(l.words) == 0:
		return
	case len(l.words) > 0 && !l.is(0, "install i update add"):
		return
	}
	offline := l.has("--local", "--prefer-local")
	if truthy(c.vars.get("BUNDLE_GLOBAL_GEM_CACHE")) {
		dir := cmp.Or(c.vars.get("BUNDLE_USER_CACHE"), under(c.vars.get("BUNDLE_USER_HOME"), "cache"), under(w.homeOf(c), ".bundle/cache"))
		w.want(c, "bundler", dir, offline)
		return
	}
	if c.vars.get("BUNDLE_PATH") != "" || truthy(c.vars.get("BUNDLE_DEPLOYMENT")) || l.has("--path", "--deployment") {
		w.skip("bundler", "", "where it keeps gems depends on the version of Ruby; BUNDLE_GLOBAL_GEM_CACHE=true gives it a cache")
		return
	}
	w.gems(c, offline)
}

// bundleConfig follows what bundle config sets, in both of its spellings.
func (w *walker) bundleConfig(l line) {
	words := l.words[1:]
	if len(words) > 0 && words[0] == "set" {
		words = words[1:]
	}
	if len(words) < 2 {
		return
	}
	switch name := strings.ReplaceAll(words[0], "-", "_"); name {
	case "path", "deployment", "global_gem_cache":
		w.configure("BUNDLE_"+strings.ToUpper(name), words[1])
	}
}

// gems is where RubyGems keeps the archives that it unpacked. Nothing runs from there.
func (w *walker) gems(c *call, offline bool) {
	dir := c.vars.get("GEM_HOME")
	if dir == "" {
		w.skip("bundler", "", "where it keeps gems depends on the version of Ruby: set GEM_HOME")
		return
	}
	w.wish(c, wish{Mount: Mount{Tool: "bundler", Target: under(dir, "cache")}, offline: offline, beside: true})
}

func (w *walker) gem(c *call, args []string) {
	l := parse(args, "-v --version -i --install-dir -n --bindir -P --trust-policy -s --source --platform")
	if l.is(0, "env environment") {
		w.clears("bundler")
	}
	if l.is(0, "install i update") && !l.has("--help", "-h", "--system", "-i", "--install-dir", "--user-install") {
		w.gems(c, l.has("--local", "-l"))
	}
}

// composer's home directory is one of several, by what is there; only its caches are mounted.
func (w *walker) composer(c *call, args []string) {
	l := parse(args, "-d --working-dir")
	global := l.is(0, "global")
	if global {
		l.words = l.words[1:]
	}
	own := c.vars.get("COMPOSER_CACHE_DIR")
	switch {
	case l.is(0, "clear-cache clearcache cc"):
		w.clears("composer")
		return
	case l.is(0, "config"):
		if l.is(1, "cache-dir") {
			w.clears("composer")
			w.configure("COMPOSER_CACHE_DIR", l.word(2))
		}
		return
	case !l.is(0, "install i update u upgrade require r create-project reinstall remove rm"):
		return
	case l.has("--no-cache", "--help", "-h", "--version", "-V"), own == "/dev/null":
		return
	}
	offline := truthy(c.vars.get("COMPOSER_DISABLE_NETWORK"))
	switch home := c.vars.get("COMPOSER_HOME"); {
	case own != "":
		w.want(c, "composer", own, offline)
	case home != "":
		w.want(c, "composer", under(home, "cache"), offline)
	default:
		w.want(c, "composer", under(w.cacheHome(c), "composer"), offline)
		if dir := w.homeOf(c); dir != "" && !global && !c.vars.xdg() {
			w.want(c, "composer", under(dir, ".composer/cache"), offline)
		}
	}
}

// xdg tells whether a variable of the desktop's directories is set, by which Composer chooses.
func (v *vars) xdg() bool {
	for name := range v.m {
		if strings.HasPrefix(name, "XDG_") {
			return true
		}
	}
	return false
}
