package automount

import (
	"slices"
	"strings"
)

func (w *walker) golang(c *call, args []string) {
	l := parse(args, "-C -mod -o -tags -ldflags -gcflags -p -run -bench -timeout -count -modfile -f -exec -pkgdir -covermode -coverpkg -coverprofile")
	compiles := l.is(0, "build test install run vet generate list get tool fix")
	modules := compiles || l.is(0, "mod") && l.is(1, "download tidy vendor verify graph why") || l.is(0, "work") && l.is(1, "sync vendor")
	switch {
	case l.is(0, "clean") && l.has("-modcache", "-cache"):
		w.clears("go")
	case l.is(0, "env") && l.has("-w"):
		for _, kv := range l.words[1:] {
			if name, value, ok := strings.Cut(kv, "="); ok && (name == "GOMODCACHE" || name == "GOCACHE" || name == "GOPATH") {
				w.configure(name, value)
			}
		}
	case l.is(0, "env") && c.substitute && (slices.Contains(l.words, "GOMODCACHE") || slices.Contains(l.words, "GOCACHE")):
		w.clears("go")
	case modules:
		w.want(c, "go", w.modCache(c), c.vars.get("GOPROXY") == "off")
		if compiles && c.vars.get("GOCACHE") != "off" {
			w.want(c, "go", w.buildCache(c), false)
		}
	}
}

// modCache is where modules are. The golang images say GOPATH=/go; otherwise it is in the home directory.
func (w *walker) modCache(c *call) string {
	if dir := c.vars.get("GOMODCACHE"); dir != "" {
		return dir
	}
	gopath, _, _ := strings.Cut(c.vars.get("GOPATH"), ":")
	if gopath == "" {
		gopath = under(w.homeOf(c), "go")
	}
	return under(gopath, "pkg/mod")
}

func (w *walker) buildCache(c *call) string {
	if dir := c.vars.get("GOCACHE"); dir != "" {
		return dir
	}
	return under(w.cacheHome(c), "go-build")
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
	dir := c.vars.get("CARGO_HOME")
	if dir == "" {
		dir = under(w.homeOf(c), ".cargo")
	}
	offline := l.has("--offline", "--frozen") || truthy(c.vars.get("CARGO_NET_OFFLINE"))
	for _, part := range []string{"git/db", "registry"} {
		w.want(c, "cargo", under(dir, part), offline)
	}
}
