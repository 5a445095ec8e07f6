package layout

import (
	"path"
	"strings"
	"testing"

	"larder/internal/tree"
)

// files makes a tree of files and, where a path ends with a slash, of directories.
func files(t testing.TB, paths ...string) *tree.Node {
	root := tree.Empty()
	for _, p := range paths {
		n := &tree.Node{Kind: tree.File}
		if strings.HasSuffix(p, "/") {
			n = tree.Empty()
		}
		parts := strings.Split(strings.Trim(p, "/"), "/")
		for i := len(parts) - 1; i >= 0; i-- {
			d, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: parts[i], Node: n}})
			if err != nil {
				t.Fatal(err)
			}
			n = d
		}
		var err error
		if root, err = tree.Apply(root, n); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// hex makes a name of n hexadecimal digits that begins with some.
func hex(begin string, n int) string { return begin + strings.Repeat("5e", n)[:n-len(begin)] }

var (
	goBuild = []string{"00/" + hex("00", 64) + "-a", "00/" + hex("00", 64) + "-d", "ff/" + hex("ff", 64) + "-d/tool", "README", "trim.txt", "testexpire.txt",
		"fuzz/example.com/a/FuzzX/" + hex("12", 16)}
	goMod = []string{"cache/lock", "cache/download/github.com/!burnt!sushi/toml/@v/v1.2.0.zip", "cache/download/sumdb/sum.golang.org/lookup/x@v1",
		"cache/vcs/" + hex("ab", 64) + "/config", "github.com/!burnt!sushi/toml@v1.2.0/testdata/key.pem", "golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64/bin/go"}
	npm = []string{"_cacache/index-v5/00/11/" + hex("22", 60), "_cacache/content-v2/sha512/00/11/" + hex("22", 124), "_cacache/tmp/", "_cacache/_lastverified",
		"_logs/2026-01-01T00_00_00_000Z-debug-0.log", "_update-notifier-last-checked", "_npx/" + hex("33", 16) + "/node_modules/a/index.js"}
	uv = []string{"CACHEDIR.TAG", ".gitignore", ".lock", "archive-v0/3aUKO5-TzMOyQaAM7Jz2i/requests/__init__.py", "wheels-v5/pypi/requests/requests-2.32.3-py3-none-any.http",
		"simple-v16/pypi/requests.rkyv", "sdists-v9/pypi/numpy/2.0.0/DiTCZUYcASYRFNtQv1YAV/src/setup.py", "interpreter-v4/4c/77.msgpack", "git-v0/db/8e/config"}
	cargo = []string{"CACHEDIR.TAG", "index/index.crates.io-6f17d22bba15001f/config.json", "index/index.crates.io-6f17d22bba15001f/.cache/se/rd/serde",
		"cache/index.crates.io-6f17d22bba15001f/serde-1.0.200.crate", "src/index.crates.io-6f17d22bba15001f/serde-1.0.200/.cargo-ok",
		"src/index.crates.io-6f17d22bba15001f/openssl-0.10.1/test/key.pem"}
	pnpm = []string{"v3/files/00/" + hex("11", 126), "v3/files/00/" + hex("22", 126) + "-index.json", "v3/files/ff/" + hex("33", 126) + "-exec", "v3/tmp/"}
	pip  = []string{"http-v2/a/b/c/d/e/" + hex("ab", 56), "http-v2/a/b/c/d/e/" + hex("ab", 56) + ".body", "wheels/aa/bb/cc/" + hex("dd", 58) + "/x-1-py3-none-any.whl",
		"wheels/aa/bb/cc/" + hex("dd", 58) + "/origin.json", "selfcheck/" + hex("11", 56)}
)

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		target string
		files  []string
		name   string
		united bool
	}{
		{"/root/.cache/go-build", goBuild, "go build", true},
		{"/gocache", goBuild, "go build", true},
		{"/root/.cache/go-build", nil, "go build", true},
		{"/gocache", nil, "", false},
		{"/root/.cache/go-build", append([]string{"state.db"}, goBuild...), "", false},
		{"/root/.cache/go-build", []string{"main.o"}, "", false},
		{"/root/.cache/go-build", []string{"00/main.o"}, "", false},
		{"/root/.cache/golangci-lint", goBuild[:5], "go build", true},
		{"/go/pkg/mod", goMod, "go modules", true},
		{"/m", goMod, "go modules", true},
		{"/go/pkg/mod", []string{"src/main.go"}, "", false},
		{"/go", []string{"bin/x", "pkg/mod/cache/download/x", "src/a"}, "", false},
		{"/root/.npm", npm, "npm", true},
		{"/npm", npm, "npm", true},
		{"/root/.npm", append([]string{"package.json"}, npm...), "", false},
		{"/root/.npm/_cacache", []string{"index-v5/00/11/2", "content-v2/sha512/00/1/2"}, "npm _cacache", true},
		{"/root/.cache/pip", pip, "pip", true},
		{"/x", pip, "", false},
		{"/root/.cache/pip", []string{"pip.conf"}, "", false},
		{"/root/.cache/uv", uv, "uv", true},
		{"/uv", uv, "uv", true},
		{"/root/.cache/pypoetry", []string{"artifacts/aa/bb/cc/dd/x.whl", "cache/repositories/PyPI/_http/1/2/3"}, "poetry", true},
		{"/root/.cache/pypoetry", []string{"artifacts/aa/bb/cc/dd/x.whl", "virtualenvs/app-py3.12/bin/python"}, "poetry", false},
		{"/usr/local/share/.cache/yarn", []string{"v6/npm-lodash-4.17.21-679591c564-integrity/node_modules/lodash/package.json", "v6/.tmp/1/x"}, "yarn", true},
		{"/usr/local/share/.cache/yarn/v6", []string{"npm-lodash-4.17.21-679591c564-integrity/node_modules/lodash/package.json"}, "yarn", true},
		{"/root/.yarn/berry/cache", []string{"lodash-npm-4.17.21-6382451519-10c0.zip"}, "yarn berry", true},
		{"/root/.yarn/berry/cache", []string{"install-state.gz"}, "", false},
		{"/root/.local/share/pnpm/store", pnpm, "pnpm", true},
		{"/store", pnpm, "pnpm", true},
		{"/root/.local/share/pnpm/store", append([]string{"v11/index.db"}, pnpm...), "", false},
		{"/root/.local/share/pnpm/store", append([]string{"v10/links/a/1/x"}, pnpm...), "", false},
		{"/usr/local/cargo/registry", cargo, "cargo registry", true},
		{"/usr/local/cargo/registry", append([]string{"index/github.com-1ecc6299db9ec823/.git/HEAD"}, cargo...), "cargo registry", false},
		{"/root/.cargo/git", []string{"CACHEDIR.TAG", "db/serde-8e5a3e7e3bc3ed69/HEAD", "checkouts/serde-8e5a3e7e3bc3ed69/7c5a9e1/.cargo-ok"}, "cargo git", false},
		{"/usr/local/cargo", []string{"registry/CACHEDIR.TAG", "bin/cargo", "credentials.toml"}, "", false},
		{"/root/.m2/repository", []string{"org/slf4j/slf4j-api/2.0.9/slf4j-api-2.0.9.jar"}, "maven", false},
		{"/root/.m2", []string{"repository/org/slf4j/slf4j-api/2.0.9/slf4j-api-2.0.9.jar", "settings.xml"}, "", false},
		{"/root/.gradle/caches", []string{"modules-2/modules-2.lock"}, "gradle caches", false},
		{"/home/gradle/.gradle", []string{"caches/modules-2/modules-2.lock", "daemon/8.5/x.log"}, "gradle", false},
		{"/var/cache/apt", []string{"archives/curl_8.5.0-2_amd64.deb", "archives/lock", "archives/partial/", "pkgcache.bin", "srcpkgcache.bin"}, "apt", true},
		{"/var/cache/apt/archives", []string{"curl_8.5.0-2_amd64.deb", "lock", "partial/"}, "apt archives", true},
		{"/var/lib/apt", []string{"lists/deb.debian.org_debian_dists_bookworm_InRelease"}, "apt lists", false},
		{"/var/lib/apt/lists", []string{"deb.debian.org_debian_dists_bookworm_InRelease", "lock"}, "apt lists", false},
		{"/var/cache/apk", []string{"APKINDEX.066df28d.tar.gz", "busybox-1.36.1-r15.1f2e3d4c.apk"}, "apk", true},
		{"/var/cache/dnf", []string{"fedora-2d95c80a1fa0a67d/repodata/repomd.xml"}, "dnf", false},
		{"/root/.composer/cache", []string{"files/symfony/console/" + hex("ab", 40) + ".zip", "repo/https---repo.packagist.org/packages.json", "vcs/x/HEAD"}, "composer", true},
		{"/tmp/cache", []string{"files/symfony/console/x.zip", "repo/a"}, "", false},
		{"/usr/local/bundle", []string{"gems/rack-3.0.0/lib/rack.rb", "specifications/rack-3.0.0.gemspec", "config"}, "bundler", false},
		{"/root/.cache/ccache", []string{"CACHEDIR.TAG", "ccache.conf", "0/1/" + hex("ab", 36) + "R", "0/stats", "tmp/", "lock/"}, "ccache", true},
		{"/root/.cache/ccache", []string{"x.o"}, "", false},
		{"/root/.cache/sccache", []string{"0/1/2/" + hex("012", 64)}, "sccache", true},
		{"/sc", []string{"0/1/2/" + hex("012", 64)}, "sccache", true},
		{"/disk-cache", []string{"ac/00/" + hex("00", 64), "cas/ff/" + hex("ff", 64)}, "bazel disk cache", true},
		{"/root/.nuget/packages", []string{"newtonsoft.json/13.0.3/.nupkg.metadata", "newtonsoft.json/13.0.3/lib/net6.0/x.dll"}, "nuget", true},
		{"/root/.cache", []string{"pip/http-v2/a", "go-build/00/x"}, "", false},
		{"/app/target", []string{"debug/deps/libx.rlib", ".rustc_info.json"}, "", false},
		{"/app/node_modules", []string{"lodash/index.js"}, "", false},
		{"/app/.next/cache", []string{"webpack/client-production/0.pack"}, "", false},
	} {
		l := Detect(c.target, c.target, files(t, c.files...))
		if l.name() != c.name || l.United() != c.united {
			t.Errorf("%s with %q: %q, united %v; want %q, %v", c.target, c.files, l.name(), l.United(), c.name, c.united)
		}
	}
}

// name is that of the tool, empty for an unknown layout.
func (l Layout) name() string {
	if l.tool == nil {
		return ""
	}
	return l.tool.name
}

// TestAnIDSaysLittle: what a mount is called says what it is only where its contents do not say otherwise.
func TestAnIDSaysLittle(t *testing.T) {
	if l := Detect("/root/.cache/pip", "/cache", files(t, pip...)); l.name() != "pip" || !l.United() {
		t.Errorf("%q", l.name())
	}
	if l := Detect("/root/.cache/pip", "/cache", files(t, "a.out")); l.name() != "" || l.United() {
		t.Errorf("%q", l.name())
	}
	if (Layout{}).name() != "" || (Layout{}).United() || (Layout{}).Unit("a/b") != "a/b" || (Layout{}).Keep("a") || (Layout{}).Excluded("a") {
		t.Error("the zero layout knows something")
	}
}

func TestTable(t *testing.T) {
	for _, tool := range tools {
		if tool.why == "" || !strings.HasSuffix(tool.why, ".") {
			t.Errorf("%s: no reason", tool.name)
		}
		if tool.united && len(tool.shape) == 0 {
			t.Errorf("%s is united, whatever is in it", tool.name)
		}
		if tool.sure && (tool.must == nil || tool.shape == nil) {
			t.Errorf("%s is recognised by nothing", tool.name)
		}
		if len(tool.places) == 0 && !tool.sure {
			t.Errorf("%s is never recognised", tool.name)
		}
		for _, list := range [][]pattern{tool.shape, tool.must, tool.apart, tool.units, tool.keep, tool.leads, tool.excluded, tool.published} {
			for _, p := range list {
				for i, part := range p {
					if _, err := path.Match(part, "x"); err != nil || part == "" || strings.ContainsAny(part, "<>") || part == "**" && (i == 0 || i < len(p)-1) {
						t.Errorf("%s: %q", tool.name, p)
					}
				}
			}
		}
		for _, p := range tool.must {
			if p[len(p)-1] == "**" {
				t.Errorf("%s: %q may be anything", tool.name, p)
			}
		}
	}
}
