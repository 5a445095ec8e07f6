package layout

import "testing"

func TestUnit(t *testing.T) {
	for _, c := range []struct {
		target string
		files  []string
		path   string
		unit   string
	}{
		{"/go/pkg/mod", goMod, "github.com/!burnt!sushi/toml@v1.2.0/testdata/key.pem", "github.com/!burnt!sushi/toml@v1.2.0"},
		{"/go/pkg/mod", goMod, "github.com/!burnt!sushi/toml@v1.2.0", "github.com/!burnt!sushi/toml@v1.2.0"},
		{"/go/pkg/mod", goMod, "cache/download/github.com/!burnt!sushi/toml/@v/v1.2.0.ziphash", "github.com/!burnt!sushi/toml@v1.2.0"},
		{"/go/pkg/mod", goMod, "cache/download/github.com/!burnt!sushi/toml/@v/v1.2.0.info", "github.com/!burnt!sushi/toml@v1.2.0"},
		{"/go/pkg/mod", goMod, "cache/download/gopkg.in/x.v2/@v/v2.0.0+incompatible.mod", "gopkg.in/x.v2@v2.0.0+incompatible"},
		{"/go/pkg/mod", goMod, "cache/download/gopkg.in/x.v2/@v/list", "cache/download/gopkg.in/x.v2/@v/list"},
		{"/go/pkg/mod", goMod, "cache/download/sumdb/sum.golang.org/tile/8/0/x001", "cache/download/sumdb/sum.golang.org/tile/8/0/x001"},
		{"/go/pkg/mod", goMod, "a.b/c@v1.0.0/d@v2/e", "a.b/c@v1.0.0"},
		{"/root/.cache/go-build", goBuild, goBuild[0], goBuild[0]},
		{"/root/.npm", npm, npm[1], npm[1]},
		{"/root/.cache/pip", pip, pip[1], pip[0]},
		{"/root/.cache/pip", pip, pip[3], "wheels/aa/bb/cc/" + hex("dd", 58)},
		{"/root/.cache/uv", uv, uv[3], "archive-v0/3aUKO5-TzMOyQaAM7Jz2i"},
		{"/root/.cache/uv", uv, uv[6], "sdists-v9/pypi/numpy/2.0.0"},
		{"/root/.cache/uv", uv, "sdists-v9/url/0123/x/y", "sdists-v9/url/0123"},
		{"/root/.cache/uv", uv, uv[4], uv[4]},
		{"/usr/local/cargo/registry", cargo, cargo[3], "index.crates.io-6f17d22bba15001f/serde-1.0.200"},
		{"/usr/local/cargo/registry", cargo, cargo[4], "index.crates.io-6f17d22bba15001f/serde-1.0.200"},
		{"/usr/local/cargo/registry", cargo, cargo[2], cargo[2]},
		{"/root/.m2/repository", nil, "org/slf4j/slf4j-api/2.0.9/slf4j-api-2.0.9.jar", "org/slf4j/slf4j-api/2.0.9"},
		{"/root/.m2/repository", nil, "org/slf4j/slf4j-api/maven-metadata-central.xml", "org/slf4j/slf4j-api"},
		{"/root/.gradle/caches", nil, "modules-2/files-2.1/com.google.guava/guava/32.0/0a1b/guava-32.0.jar", "modules-2/files-2.1/com.google.guava/guava/32.0"},
		{"/root/.gradle/caches", nil, "8.5/transforms/0a1b/transformed/x/y.jar", "8.5/transforms/0a1b"},
		{"/usr/local/bundle", nil, "gems/rack-3.0.0/lib/rack.rb", "gem rack-3.0.0"},
		{"/app/vendor/bundle", nil, "ruby/3.3.0/cache/rack-3.0.0.gem", "gem rack-3.0.0"},
		{"/app/vendor/bundle", nil, "ruby/3.3.0/extensions/x86_64-linux/3.3.0/rack-3.0.0/gem.build_complete", "gem rack-3.0.0"},
		{"/root/.nuget/packages", []string{"a/1/.nupkg.metadata"}, "a/1/lib/x.dll", "a/1"},
		{"/usr/local/share/.cache/yarn", []string{"v6/npm-a-1-x/y"}, "v6/npm-a-1-x/node_modules/a/b.js", "v6/npm-a-1-x"},
		// Mounts of which only a part is known, or nothing.
		{"/go", nil, "pkg/mod/a.b/c@v1.0.0/d", "pkg/mod/a.b/c@v1.0.0"},
		{"/go", nil, "pkg/mod/cache/download/a.b/c/@v/v1.0.0.zip", "pkg/mod/a.b/c@v1.0.0"},
		{"/go/pkg", nil, "mod/a.b/c@v1.0.0/d", "mod/a.b/c@v1.0.0"},
		{"/root/.cache", nil, "pip/http-v2/a/b/c/d/e/x.body", "pip/http-v2/a/b/c/d/e/x"},
		{"/root", nil, ".cache/uv/archive-v0/xyz/a/b.py", ".cache/uv/archive-v0/xyz"},
		{"/root/.gradle", nil, "caches/jars-9/abc/x.jar", "caches/jars-9/abc"},
		{"/root/.gradle", nil, "wrapper/dists/gradle-8.5-bin/abc/gradle-8.5/bin/gradle", "wrapper/dists/gradle-8.5-bin"},
		{"/usr/local/cargo", nil, "registry/cache/h-0/serde-1.crate", "registry/h-0/serde-1"},
		{"/app", nil, "web/node_modules/a/node_modules/b/x.js", "web/node_modules"},
		{"/venv", nil, "lib/python3.12/site-packages/certifi/cacert.pem", "lib/python3.12/site-packages"},
		{"/src", nil, "repo/.git/objects/ab/cdef", "repo/.git"},
		{"/mirrors", nil, "foo.git/HEAD", "foo.git"},
		{"/mirrors", nil, "foo/objects/pack/pack-1.idx", "foo/objects"},
		{"/state", nil, "index.db-wal", "index.db"},
		{"/app/node_modules", nil, "lodash/index.js", "."},
		{"/app/target", nil, "debug/deps/libx.rlib", "debug/deps/libx.rlib"},
	} {
		l := Detect(c.target, c.target, files(t, c.files...))
		if got := l.Unit(c.path); got != c.unit {
			t.Errorf("%s (%q): %s belongs to %s, want %s", c.target, l.name(), c.path, got, c.unit)
		}
	}
}

func TestKeepLeadsExcluded(t *testing.T) {
	for _, c := range []struct {
		target, path          string
		files                 []string
		keep, leads, excluded bool
	}{
		{"/root/.cache/go-build", "README", goBuild, true, false, false},
		{"/root/.cache/go-build", "trim.txt", goBuild, true, false, false},
		{"/root/.cache/go-build", goBuild[0], goBuild, false, true, false},
		{"/root/.cache/go-build", goBuild[1], goBuild, false, false, false},
		{"/go/pkg/mod", "cache/lock", goMod, true, false, false},
		{"/go/pkg/mod", "cache/vcs", goMod, false, false, true},
		{"/go/pkg/mod", "cache/vcs/abc/config", goMod, false, false, true},
		{"/go/pkg/mod", "cache/vcs2", goMod, false, false, false},
		{"/root/.npm", npm[0], npm, false, true, false},
		{"/root/.npm", npm[1], npm, false, false, false},
		{"/root/.npm", "_logs", npm, false, false, true},
		{"/root/.npm", "_npx/1/node_modules/a/index.js", npm, false, false, true},
		{"/root/.npm", "_cacache/tmp", npm, false, false, false},
		{"/root/.npm", "_cacache/tmp/1234", npm, false, false, true},
		{"/root/.cache/uv", "git-v0/db/1/HEAD", uv, false, false, true},
		{"/root/.cache/uv", "archive-v0/a/b", uv, false, false, false},
		{"/root/.local/share/pnpm/store", pnpm[1], pnpm, false, true, false},
		{"/root/.gradle/caches", "journal-1/file-access.bin", nil, true, false, false},
		{"/root/.gradle/caches", "8.5/transforms/0a/metadata.bin", nil, false, false, false},
		{"/root/.gradle", "daemon/8.5/registry.bin", nil, true, false, false},
		{"/root/.gradle", "caches/modules-2/metadata-2.106/module-metadata.bin", nil, true, false, false},
		{"/var/cache/apt", "pkgcache.bin", nil, false, false, true},
		{"/var/cache/apt", "archives/partial", nil, false, false, false},
		{"/var/cache/apt", "archives/partial/x.deb", nil, false, false, true},
		{"/var/cache/apt", "archives/lock", nil, true, false, false},
		{"/var/cache/apt", "archives/x_1_all.deb", nil, false, false, false},
		{"/var/lib/apt", "lists/x_InRelease", nil, true, false, false},
		{"/var/cache/dnf", "fedora-1/repodata/repomd.xml", nil, true, false, false},
		{"/var/cache/dnf", "fedora-1/packages/a.rpm", nil, false, false, false},
		{"/usr/local/bundle", "bin/rake", nil, true, false, false},
		{"/usr/local/bundle", "gems/rack-3/x.rb", nil, false, false, false},
		{"/root/.cache/ccache", "0/stats", nil, true, false, false},
		{"/root/.cache/ccache", "tmp", nil, false, false, false},
		{"/root/.cache", "go-build/README", nil, true, false, false},
		{"/root", ".npm/_npx/1/x", []string{"x"}, false, false, false}, // of a mount that is not known as a whole nothing is left out
		{"/app/target", "debug/x", nil, false, false, false},
	} {
		l := Detect(c.target, c.target, files(t, c.files...))
		if k, n, e := l.Keep(c.path), l.Leads(c.path), l.Excluded(c.path); k != c.keep || n != c.leads || e != c.excluded {
			t.Errorf("%s (%q): %s: keep %v, leads %v, excluded %v", c.target, l.name(), c.path, k, n, e)
		}
	}
}
