package automount

import (
	"strings"
	"testing"
)

// TestPlaces looks at what variables, options and the tools' own configuration say of where a cache is. Variables stand
// before the line, separated by "|".
func TestPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"PIP_CACHE_DIR=/c|pip install x":                                      "pip /c",
		"XDG_CACHE_HOME=/c|pip install x":                                     "pip /c/pip",
		"XDG_CACHE_HOME=/c|PIP_CACHE_DIR=/d|pip install x":                    "pip /d",
		"HOME=/h|pip install x":                                               "pip /h/.cache/pip",
		"pip install --cache-dir=/c x":                                        "pip /c",
		"pip config set global.cache-dir /c; pip install x":                   "pip /c",
		"pip config set global.no-cache-dir true; pip install x":              "",
		"PIP_NO_CACHE_DIR=|pip install x":                                     pip,
		"UV_CACHE_DIR=/c|uv sync":                                             "uv /c",
		"uv --cache-dir /c sync":                                              "uv /c",
		"XDG_CACHE_HOME=/c|uv lock":                                           "uv /c/uv",
		"UV_NO_CACHE=1|uv sync":                                               "",
		"UV_OFFLINE=1|uv sync":                                                "",
		"uv run --offline x":                                                  "",
		"uv run x --offline":                                                  uv,
		"poetry config cache-dir /c && poetry install":                        "poetry /c/artifacts, poetry /c/cache",
		"XDG_CACHE_HOME=/c|poetry update":                                     "poetry /c/pypoetry/artifacts, poetry /c/pypoetry/cache",
		"NPM_CONFIG_CACHE=/c|npm ci":                                          "npm /c",
		"npm config set cache=/c && npm ci":                                   "npm /c",
		"npm set cache /c && npm ci":                                          "npm /c",
		"HOME=/h|npm ci":                                                      "npm /h/.npm",
		"npx --offline x":                                                     "",
		"YARN_CACHE_FOLDER=/c|yarn":                                           "yarn /c",
		"YARN_GLOBAL_FOLDER=/g|YARN_NODE_LINKER=node-modules|yarn":            "yarn /g/cache",
		"YARN_GLOBAL_FOLDER=/g|yarn install":                                  "",
		"YARN_NODE_LINKER=pnp|YARN_CACHE_FOLDER=/c|yarn install":              "",
		"YARN_NODE_LINKER=node-modules|YARN_ENABLE_GLOBAL_CACHE=false|yarn":   "",
		"yarn config set cache-folder /c && yarn":                             "yarn /c",
		"yarn config set nodeLinker node-modules && yarn install --immutable": "yarn /root/.yarn/berry/cache",
		"yarn --cache-folder /c install":                                      "yarn /c",
		"yarn dlx create-x":                                                   "yarn /root/.yarn/berry/cache",
		"XDG_CACHE_HOME=/c|yarn":                                              "yarn /c/yarn",
		"yarn global add x":                                                   yarn,
		"yarn workspace a add b":                                              yarn,
		"PNPM_HOME=/p|pnpm i":                                                 "pnpm /p/store",
		"XDG_DATA_HOME=/d|pnpm i":                                             "pnpm /d/pnpm/store",
		"npm_config_store_dir=/s|pnpm i":                                      "pnpm /s",
		"pnpm config set store-dir /s && pnpm i":                              "pnpm /s",
		"pnpm config set store-dir=/s && pnpm i":                              "pnpm /s",
		"pnpm i --store-dir /s":                                               "pnpm /s",
		"pnpm add -g x":                                                       "",
		"pnpm i && pnpm store prune":                                          "",
		"pnpx x":                                                              "pnpm /root/.local/share/pnpm/store",
		"GOPATH=/a:/b|go mod download":                                        "go /a/pkg/mod",
		"GOMODCACHE=/m|GOPATH=/a|go mod tidy":                                 "go /m",
		"GOPATH=/a|GOCACHE=off|go build":                                      "go /a/pkg/mod",
		"GOPATH=/a|XDG_CACHE_HOME=/c|go build":                                "go /a/pkg/mod, go /c/go-build",
		"GOPATH=/a|go env -w GOMODCACHE=/m GOFLAGS=-x && go mod download":     "go /m",
		"GOPATH=/a|GOPROXY=off|go build":                                      "go /root/.cache/go-build",
		"GOPATH=/a|go mod download; cp -r $(go env GOMODCACHE) /out":          "",
		"GOPATH=/a|go -C sub mod download":                                    "go /a/pkg/mod",
		"CARGO_HOME=/c|cargo fetch":                                           "cargo /c/git/db, cargo /c/registry",
		"CARGO_NET_OFFLINE=true|cargo build":                                  "",
		"cargo build; cargo cache -a":                                         "",
		"mvn -Dmaven.repo.local=/m package":                                   "maven /m",
		"mvn -D maven.repo.local=/m package":                                  "maven /m",
		"HOME=/h|mvn package":                                                 maven, // Java does not look at HOME
		"MAVEN_ARGS=-Dmaven.repo.local=/m|mvn package":                        "maven /m",
		"mvn -Duser.home=/u package":                                          "maven /u/.m2/repository",
		"gradle -g /g build":                                                  "gradle /g/caches",
		"GRADLE_OPTS=-Dgradle.user.home=/g|gradle build":                      "gradle /g/caches",
		"./gradlew --version":                                                 "gradle /root/.gradle/wrapper/dists",
		"BUNDLE_GLOBAL_GEM_CACHE=true|BUNDLE_USER_CACHE=/c|bundle install":    "bundler /c",
		"BUNDLE_GLOBAL_GEM_CACHE=1|BUNDLE_USER_HOME=/u|bundle":                "bundler /u/cache",
		"GEM_HOME=/g|BUNDLE_DEPLOYMENT=1|bundle install":                      "",
		"GEM_HOME=/g|bundle config set --local path v && bundle":              "",
		"GEM_HOME=/g|gem install x":                                           "bundler /g/cache",
		"GEM_HOME=/g|gem install -i /x y":                                     "",
		"bundle install":                                                      "",
		"COMPOSER_CACHE_DIR=/c|composer install":                              "composer /c",
		"COMPOSER_HOME=/c|composer install":                                   "composer /c/cache",
		"XDG_CONFIG_HOME=/x|composer install":                                 "composer /root/.cache/composer",
		"composer config -g cache-dir /c && composer install":                 "",
		"COMPOSER_CACHE_DIR=/dev/null|composer install":                       "",
		"COMPOSER_DISABLE_NETWORK=1|composer install":                         "",
	} {
		parts := strings.Split(text, "|")
		line := parts[len(parts)-1]
		if got, skipped := Find(shell(line), parts[:len(parts)-1], "", "/app"); texts(got) != want {
			t.Errorf("%s\n got  %s\n want %s\n notes %v", text, texts(got), want, skipped)
		}
	}
}

// TestVariables looks at what a shell makes of words, as far as that is known beforehand.
func TestVariables(t *testing.T) {
	env := []string{"SET=/set", "EMPTY=", "TOOL=npm ci"}
	for line, want := range map[string]string{
		`npm ci --cache $SET`:                                          "/set",
		`npm ci --cache "${SET}/a"`:                                    "/set/a",
		`npm ci --cache ${SET:-/x}`:                                    "/set",
		`npm ci --cache ${UNSET:-/x}`:                                  "/x",
		`npm ci --cache ${EMPTY:-/x}`:                                  "/x",
		`npm ci --cache /y${EMPTY-/x}`:                                 "/y",
		`npm ci --cache ${UNSET-/x}`:                                   "/x",
		`npm ci --cache ${SET:+/x}`:                                    "/x",
		`npm ci --cache ${SET+/x}`:                                     "/x",
		`npm ci --cache /y${UNSET:+/x}`:                                "/y",
		`npm ci --cache ${SET:?no}`:                                    "/set",
		`npm ci --cache ${SET%/*}`:                                     "",
		`npm ci --cache ${#SET}`:                                       "",
		`npm ci --cache /a/$((1+1))`:                                   "",
		`npm ci --cache /a\ b`:                                         "/a b",
		`npm ci --cache "/a\$b"`:                                       "/a$b",
		`npm ci --cache '/a$SET'`:                                      "/a$SET",
		`npm ci --cache $'/a\x41'`:                                     "",
		`npm ci --cache ~/x`:                                           "/root/x",
		`npm ci --cache "~/x"`:                                         "/app/~/x",
		`npm ci --cache $HOME/x`:                                       "/root/x",
		`npm ci --cache $PWD/x`:                                        "/app/x",
		`cd /b; npm ci --cache $PWD/x`:                                 "/b/x",
		`cd; npm ci --cache x`:                                         "/root/x",
		`cd -P b; npm ci --cache x`:                                    "/app/b/x",
		`cd -; npm ci --cache x`:                                       "",
		`pushd b; npm ci --cache x`:                                    "",
		`(cd b); npm ci --cache x`:                                     "/app/x",
		`{ cd b; }; npm ci --cache x`:                                  "/app/b/x",
		`$TOOL --cache /c`:                                             "/c",
		`"$TOOL" --cache /c`:                                           "",
		`X=/x; npm ci --cache $X`:                                      "/x",
		`X=/x npm ci --cache /a$X`:                                     "/a", // the shell expands before it assigns
		`X=/x; (X=/y); npm ci --cache $X`:                              "/x",
		`X=/x; if true; then X=/y; fi; npm ci --cache $X`:              "",
		`X=/x; if true; then X=/x; fi; npm ci --cache $X`:              "/x",
		`X=/x; false || X=/y; npm ci --cache $X`:                       "",
		`X=/x; unset X; npm ci --cache /a$X`:                           "/a",
		`X=/x; for X in a b; do :; done; npm ci --cache $X`:            "",
		`X=/x; read X; npm ci --cache $X`:                              "",
		`X=/x; X+=/y; npm ci --cache $X`:                               "",
		`X=(/x /y); npm ci --cache $X`:                                 "",
		`X=$(mktemp -d); npm ci --cache $X`:                            "",
		`export X=/x Y=/y; npm ci --cache $X$Y`:                        "/x/y",
		`local X=/x; readonly Y=/y; npm ci --cache $X$Y`:               "/x/y",
		`if [[ -n $(npm ci --cache /c) ]]; then true; fi`:              "/c",
		`echo $(npm ci --cache /c)`:                                    "/c",
		`diff <(npm ci --cache /c) x`:                                  "/c",
		`case $SET in *) X=/x;; esac; npm ci --cache $X`:               "",
		`env -i npm ci --cache $SET`:                                   "/set",
		`env npm_config_cache=/e npm ci`:                               "/e",
		`command npm ci --cache /c`:                                    "/c",
		`sh -e -c 'npm ci --cache /c' x`:                               "/c",
		`sh script.sh; npm ci --cache /c`:                              "/c",
		`coproc npm ci --cache /c`:                                     "/c",
		`time -p npm ci --cache /c`:                                    "/c",
		`! npm ci --cache /c`:                                          "/c",
		`npm ci --cache /c & wait`:                                     "/c",
		`until npm ci --cache /c; do true; done`:                       "/c",
		`select X in a; do npm ci --cache /c; done`:                    "/c",
		`for ((i=0;i<3;i++)); do npm ci --cache /c; done`:              "/c",
		`npm ci --cache /c > /c/log`:                                   "",
		`npm ci --cache /c; find / -name '*.tmp' -delete`:              "",
		`npm ci --cache /c; find / -name '*.tmp'`:                      "/c",
		`npm ci --cache /c/d; chown -R x /c`:                           "",
		`npm ci --cache /c/d; rm -rf /{b,c}`:                           "",
		`npm ci --cache /c/d; rm -rf --one-file-system /c/e /b`:        "/c/d",
		`npm ci --cache /c/d; tar cf /x.tar --directory=/c d`:          "",
		`npm ci --cache /c/d; mkdir -p /c/d; ls /c/d; echo "x /c/d y"`: "/c/d",
	} {
		got, _ := Find(shell(line), env, "", "/app")
		target := ""
		if len(got) == 1 {
			target = got[0].Target
		}
		if len(got) > 1 || target != want {
			t.Errorf("%s: %s, want %s", line, texts(got), want)
		}
	}
}
