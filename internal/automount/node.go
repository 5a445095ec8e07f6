package automount

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

const (
	npmValued   = "--prefix -C -w --workspace --registry --loglevel --cache --userconfig --globalconfig --omit --include -p --package --tag --script-shell"
	npmInstalls = "install i in ins inst insta instal isnt isnta isntal isntall add ci clean-install ic install-clean isntall-clean " +
		"install-test it install-ci-test cit clean-install-test exec x update up upgrade udpate dedupe ddp create init innit"
)

func (w *walker) npm(c *call, args []string) {
	l := parse(args, npmValued)
	if l.is(0, "exec x") {
		l = head(args, npmValued, 2)
	}
	offline := l.has("--offline") || truthy(c.vars.first("npm_config_offline", "NPM_CONFIG_OFFLINE"))
	dir := cmp.Or(l.options["--cache"], c.vars.first("npm_config_cache", "NPM_CONFIG_CACHE"), under(w.homeOf(c), ".npm"))
	set := func(key, value string) {
		if k, v, ok := strings.Cut(key, "="); ok {
			key, value = k, v
		}
		if key == "cache" {
			w.configure("npm_config_cache", value)
		}
	}
	switch {
	case l.is(0, "cache") && l.is(1, "clean clear rm"), l.is(0, "config c") && l.is(1, "get") && l.is(2, "cache"), l.is(0, "get") && l.is(1, "cache"):
		w.clears("npm")
	case l.is(0, "config c") && l.is(1, "set"):
		set(l.word(2), l.word(3))
	case l.is(0, "set"):
		set(l.word(1), l.word(2))
	case !l.is(0, npmInstalls):
	case l.is(0, "init innit create") && l.word(1) == "":
	case l.is(0, "exec x"):
		w.wish(c, wish{Mount: Mount{Tool: "npm", Target: dir}, offline: offline, lasts: true}) // what it ran can be run again
		w.executed(args)
	case l.has("--help", "-h", "--version", "-v", "--dry-run"):
	default:
		w.want(c, "npm", dir, offline)
	}
}

// executed looks at the command that npx runs, without a version: pnpm@9.
func (w *walker) executed(args []string) {
	l := head(args, npmValued, 2)
	i := slices.Index(args, l.word(1))
	if l.word(1) == "" || i < 0 {
		return
	}
	rest := slices.Clone(args[i:])
	if name, _, ok := strings.Cut(rest[0], "@"); ok && name != "" {
		rest[0] = name
	}
	if slices.Contains([]string{"npm", "yarn", "pnpm"}, rest[0]) {
		w.simple(rest, "")
	}
}

// yarn is two tools under one name. Which one runs is in the project; their caches have different places.
func (w *walker) yarn(c *call, args []string) {
	l := parse(args, "--cwd --cache-folder --global-folder --network-timeout --modules-folder --registry --network-concurrency --mutex "+
		"--use-yarnrc --prefix --loglevel --proxy --https-proxy --mode --inline-builds")
	switch {
	case l.is(0, "cache") && l.is(1, "clean dir"):
		w.clears("yarn")
		return
	case l.is(0, "config") && l.is(1, "set"):
		w.configure(map[string]string{
			"cache-folder": "YARN_CACHE_FOLDER", "cacheFolder": "YARN_CACHE_FOLDER", "globalFolder": "YARN_GLOBAL_FOLDER",
			"nodeLinker": "YARN_NODE_LINKER", "enableGlobalCache": "YARN_ENABLE_GLOBAL_CACHE",
		}[l.word(2)], l.word(3))
		return
	case l.is(0, "config") && l.is(1, "get") && l.is(2, "cache-folder cacheFolder globalFolder"):
		w.clears("yarn")
		return
	case l.has("--help", "-h", "--version", "-v", "-V"):
		return
	case len(l.words) == 0 && len(args) > 0 && !strings.HasPrefix(args[0], "-"): // a word that is not known
		return
	case len(l.words) == 0, l.is(0, "install add upgrade up import dlx create"):
	case l.is(0, "global") && l.is(1, "add upgrade"):
	case l.is(0, "workspaces") && l.is(1, "focus"):
	case l.is(0, "workspace") && l.is(2, "install add up upgrade"):
	default:
		return
	}
	offline := l.has("--offline") || truthy(c.vars.first("YARN_OFFLINE", "YARN_ENABLE_OFFLINE_MODE"))
	modern := l.has("--immutable", "--immutable-cache", "--inline-builds", "--mode") || l.is(0, "dlx workspaces") ||
		c.vars.first("YARN_GLOBAL_FOLDER", "YARN_NODE_LINKER", "YARN_ENABLE_GLOBAL_CACHE") != ""
	if linker := c.vars.get("YARN_NODE_LINKER"); modern && linker != "node-modules" && linker != "pnpm" {
		if !l.is(0, "dlx") {
			w.skip("yarn", "", "with Plug'n'Play the image needs its cache; YARN_NODE_LINKER=node-modules says that it does not")
			return
		}
	}
	own := cmp.Or(l.options["--cache-folder"], c.vars.get("YARN_CACHE_FOLDER"))
	switch {
	case own != "":
		w.want(c, "yarn", own, offline)
	case modern:
		if v := c.vars.get("YARN_ENABLE_GLOBAL_CACHE"); v != "" && !truthy(v) {
			w.skip("yarn", "", "its cache is a part of the project")
			return
		}
		dir := cmp.Or(c.vars.get("YARN_GLOBAL_FOLDER"), under(w.homeOf(c), ".yarn/berry"))
		w.wish(c, wish{Mount: Mount{Tool: "yarn", Target: under(dir, "cache")}, offline: offline, stock: true, lasts: l.is(0, "dlx")}) // a mirror, where nobody is asked
	case c.vars.get("XDG_CACHE_HOME") != "":
		w.want(c, "yarn", path.Join(c.vars.get("XDG_CACHE_HOME"), "yarn"), offline)
	case w.who.root && !c.other:
		w.want(c, "yarn", "/usr/local/share/.cache/yarn", offline) // yarn 1, which has a place of its own for root
	default:
		w.want(c, "yarn", under(w.cacheHome(c), "yarn"), offline)
	}
}

func (w *walker) pnpm(c *call, args []string) {
	l := parse(args, "--filter -F -C --dir --store-dir --reporter --loglevel --virtual-store-dir --package-import-method --registry --prefix")
	dir := cmp.Or(
		l.options["--store-dir"],
		c.vars.first("npm_config_store_dir", "NPM_CONFIG_STORE_DIR", "pnpm_config_store_dir", "PNPM_CONFIG_STORE_DIR"),
		under(c.vars.get("PNPM_HOME"), "store"),
		under(c.vars.get("XDG_DATA_HOME"), "pnpm/store"),
		under(w.homeOf(c), ".local/share/pnpm/store"),
	)
	virtual := c.vars.first("npm_config_enable_global_virtual_store", "pnpm_config_enable_global_virtual_store")
	switch {
	case l.is(0, "store") && l.is(1, "prune path"):
		w.clears("pnpm")
	case l.is(0, "config c") && l.is(1, "set"):
		key, value := l.word(2), l.word(3)
		if k, v, ok := strings.Cut(key, "="); ok {
			key, value = k, v
		}
		if key == "store-dir" || key == "storeDir" {
			w.configure("npm_config_store_dir", value)
		}
	case !l.is(0, "install i add fetch update up upgrade dlx create deploy import ci install-test it"):
	case l.has("--help", "-h", "--version", "-v"):
	case truthy(virtual), l.has("-g", "--global"):
		w.skip("pnpm", "", "what is installed globally may link into its store")
	default:
		offline := l.has("--offline") || truthy(c.vars.first("npm_config_offline", "NPM_CONFIG_OFFLINE"))
		w.wish(c, wish{Mount: Mount{Tool: "pnpm", Target: dir}, offline: offline, lasts: l.is(0, "dlx fetch"), fills: l.is(0, "fetch")})
	}
}
