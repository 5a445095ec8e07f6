package automount

import (
	"cmp"
	"strings"
)

func (w *walker) pip(c *call, args []string) {
	l := parse(args, "--cache-dir --proxy --timeout --cert --client-cert --trusted-host --log --python --retries --exists-action "+
		"--keyring-provider --index-url -i --extra-index-url -f --find-links -r --requirement -c --constraint -t --target --prefix --root --src -d --dest -w --wheel-dir")
	dir := cmp.Or(l.options["--cache-dir"], c.vars.get("PIP_CACHE_DIR"), under(w.cacheHome(c), "pip"))
	switch {
	case l.is(0, "cache") && l.is(1, "purge remove dir"):
		w.clears("pip")
	case l.is(0, "config") && l.is(1, "set"):
		if _, name, _ := strings.Cut(l.word(2), "."); name == "cache-dir" {
			w.configure("PIP_CACHE_DIR", l.word(3))
		} else if name == "no-cache-dir" {
			w.configure("PIP_NO_CACHE_DIR", l.word(3))
		}
	case !l.is(0, "install download wheel lock"), l.has("--help", "-h", "--version", "-V"):
	case c.vars.get("PIP_NO_CACHE_DIR") != "": // "off" switches the cache off, too
	case l.has("--no-cache-dir", "--no-cache", "--no-index"), truthy(c.vars.get("PIP_NO_INDEX")):
	default:
		w.want(c, "pip", dir, false)
	}
}

func (w *walker) uv(c *call, args []string) {
	const valued = "--cache-dir --directory --project --config-file --color --python -p --allow-insecure-host --link-mode --index-url -i " +
		"--extra-index-url --default-index --index --extra --group --only-group --no-group --package --from --with -r --requirements --target --prefix"
	l := parse(args, valued)
	switch {
	case l.is(0, "run"):
		l = head(args, valued, 2)
	case l.is(1, "run"):
		l = head(args, valued, 3)
	}
	dir := cmp.Or(l.options["--cache-dir"], c.vars.get("UV_CACHE_DIR"), under(w.cacheHome(c), "uv"))
	mode := cmp.Or(l.options["--link-mode"], c.vars.get("UV_LINK_MODE"))
	switch {
	case l.is(0, "cache") && l.is(1, "clean clear prune dir"):
		w.clears("uv")
		return
	case l.is(0, "sync lock add remove run build"):
	case l.is(0, "pip") && l.is(1, "install sync compile"):
	case l.is(0, "tool") && l.is(1, "install run upgrade"):
	default:
		return
	}
	switch {
	case l.has("--help", "-h"):
	case l.has("--no-cache", "--no-cache-dir", "-n"), truthy(c.vars.get("UV_NO_CACHE")):
	case mode == "symlink" || !known(mode):
		w.skip("uv", "", "the image links into its cache (link mode symlink)")
	default:
		w.wish(c, wish{
			Mount: Mount{Tool: "uv", Target: dir}, offline: l.has("--offline") || truthy(c.vars.get("UV_OFFLINE")),
			lasts: l.is(0, "run") || l.is(1, "run"), // environments of what it ran
		})
	}
}

// poetry keeps downloads and the index beside each other, and virtual environments, which the image needs, with them.
func (w *walker) poetry(c *call, args []string) {
	l := parse(args, "-C --directory -P --project --with --without --only -E --extras --group -G --source")
	switch {
	case l.is(0, "run"):
		for i, a := range args {
			if a == "run" {
				w.simple(args[i+1:], "")
				break
			}
		}
		return
	case l.is(0, "cache") && l.is(1, "clear"):
		w.clears("poetry")
		return
	case l.is(0, "config") && l.is(1, "cache-dir"):
		if l.word(2) == "" {
			w.clears("poetry")
		}
		w.configure("POETRY_CACHE_DIR", l.word(2))
		return
	case l.is(0, "self") && l.is(1, "add update install sync"):
	case !l.is(0, "install add update lock sync"):
		return
	}
	if l.has("--help", "-h", "--version", "-V", "--no-cache") {
		return
	}
	dir := cmp.Or(c.vars.get("POETRY_CACHE_DIR"), under(w.cacheHome(c), "pypoetry"))
	for _, part := range []string{"artifacts", "cache"} {
		w.want(c, "poetry", under(dir, part), false)
	}
}
