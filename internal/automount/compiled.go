package automount

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// goPlaces are the variables that say where go's caches are.
var goPlaces = []string{"GOMODCACHE", "GOCACHE", "GOPATH"}

func (w *walker) golang(c *call, args []string) {
	l := parse(args, "-C -mod -o -tags -ldflags -gcflags -p -run -bench -timeout -count -modfile -f -exec -pkgdir -covermode -coverpkg -coverprofile")
	compiles := l.is(0, "build test install run vet generate list get tool fix")
	modules := compiles || l.is(0, "mod") && l.is(1, "download tidy vendor verify graph why") || l.is(0, "work") && l.is(1, "sync vendor")
	switch {
	case l.is(0, "clean") && l.has("-modcache", "-cache"):
		w.clears("go")
	case l.is(0, "env") && l.has("-w"):
		for _, kv := range l.words[1:] {
			if name, value, ok := strings.Cut(kv, "="); ok && slices.Contains(goPlaces, name) {
				w.configure(name, value)
			}
		}
	case l.is(0, "env") && (len(l.words) == 1 && c.substitute || slices.ContainsFunc(goPlaces, func(n string) bool { return slices.Contains(l.words, n) })):
		w.clears("go")
	case modules:
		fills := l.is(0, "mod") && l.is(1, "download verify graph why")
		w.wish(c, wish{Mount: Mount{Tool: "go", Target: w.modCache(c)}, offline: c.vars.get("GOPROXY") == "off", fills: fills})
		if compiles && c.vars.get("GOCACHE") != "off" {
			w.want(c, "go", w.buildCache(c), false)
		}
	}
	switch out := l.options["-o"]; {
	case l.is(0, "build test") && out != "":
		w.compiles(c, out)
	case l.is(0, "install") && c.vars.get("GOBIN") != "":
		w.compiles(c, c.vars.get("GOBIN")+"/")
	case l.is(0, "install"):
		w.compiles(c, path.Join(w.modCache(c), "../../bin")+"/")
	}
}

// compiles notes where a command puts programs.
func (w *walker) compiles(c *call, out string) {
	if !path.IsAbs(out) {
		out = c.cwd + "/" + out
	}
	if !known(out) {
		return
	}
	if dir := strings.HasSuffix(out, "/"); dir {
		out = strings.TrimSuffix(path.Clean(out), "/") + "/"
	} else {
		out = path.Clean(out)
	}
	w.programs = append(w.programs, out)
}

// modCache is where modules are. The golang images say GOPATH=/go; otherwise it is in the home directory.
func (w *walker) modCache(c *call) string {
	if dir := c.vars.get("GOMODCACHE"); dir != "" {
		return dir
	}
	gopath, _, _ := strings.Cut(c.vars.get("GOPATH"), ":")
	return under(cmp.Or(gopath, under(w.homeOf(c), "go")), "pkg/mod")
}

func (w *walker) buildCache(c *call) string {
	return cmp.Or(c.vars.get("GOCACHE"), under(w.cacheHome(c), "go-build"))
}

// cargo keeps what is mounted beside installed programs and its configuration, which the image needs.
func (w *walker) cargo(c *call, args []string) {
	if len(args) > 0 && strings.HasPrefix(args[0], "+") { // a toolchain
		args = args[1:]
	}
	l := parse(args, "-Z --config -C --color --manifest-path --target --target-dir --features -F -p --package --bin --root --git --branch --tag --rev --version --profile -j --jobs --recipe-path")
	switch {
	case l.is(0, "cache"):
		w.clears("cargo")
		return
	case l.is(0, "chef") && l.is(1, "cook prepare"), l.is(0, "nextest") && l.is(1, "run"):
	case !l.is(0, "build b check c test t run r bench install fetch doc d rustc rustdoc update clippy fix add vendor tree metadata package publish generate-lockfile build-deps auditable leptos"):
		return
	}
	if l.has("--help", "-h", "--list") {
		return
	}
	dir := cmp.Or(c.vars.get("CARGO_HOME"), under(w.homeOf(c), ".cargo"))
	offline := l.has("--offline", "--frozen") || truthy(c.vars.get("CARGO_NET_OFFLINE"))
	for _, part := range []string{"git/db", "registry"} {
		w.wish(c, wish{Mount: Mount{Tool: "cargo", Target: under(dir, part)}, offline: offline, fills: l.is(0, "fetch metadata tree generate-lockfile")})
	}
	switch {
	case l.is(0, "install"):
		w.compiles(c, dir+"/bin/")
	case l.is(0, "build b auditable") && c.vars.get("CARGO_TARGET_DIR") == "":
		for _, kind := range []string{"release", "debug"} {
			w.compiles(c, "target/"+kind+"/")
		}
	}
}
