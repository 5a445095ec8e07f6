package automount

import (
	"slices"
	"strings"
	"testing"
)

// images are the variables that well-known base images set.
var images = map[string][]string{
	"":         {"PATH=/usr/local/bin:/usr/bin:/bin"},
	"golang":   {"GOLANG_VERSION=1.24", "GOTOOLCHAIN=local", "GOPATH=/go", "PATH=/go/bin:/usr/local/go/bin:/usr/bin:/bin"},
	"rust":     {"RUSTUP_HOME=/usr/local/rustup", "CARGO_HOME=/usr/local/cargo", "PATH=/usr/local/cargo/bin:/usr/bin:/bin"},
	"ruby":     {"LANG=C.UTF-8", "GEM_HOME=/usr/local/bundle", "BUNDLE_SILENCE_ROOT_WARNING=1", "BUNDLE_APP_CONFIG=/usr/local/bundle"},
	"composer": {"COMPOSER_ALLOW_SUPERUSER=1", "COMPOSER_HOME=/tmp", "COMPOSER_CACHE_DIR=/tmp/cache"},
	"pnpm":     {"PNPM_HOME=/pnpm", "PATH=/pnpm:/usr/local/bin:/usr/bin"},
	"maven":    {"JAVA_HOME=/opt/java/openjdk", "MAVEN_HOME=/usr/share/maven", "MAVEN_CONFIG=/root/.m2"},
	"gradle":   {"GRADLE_HOME=/opt/gradle", "JAVA_HOME=/opt/java/openjdk"},
}

const (
	npm    = "npm /root/.npm"
	pip    = "pip /root/.cache/pip"
	uv     = "uv /root/.cache/uv"
	yarn   = "yarn /usr/local/share/.cache/yarn"
	apt    = "apt /var/cache/apt"
	goMod  = "go /go/pkg/mod"
	goBoth = "go /go/pkg/mod, go /root/.cache/go-build"
	cargo  = "cargo /usr/local/cargo/git/db, cargo /usr/local/cargo/registry"
	maven  = "maven /root/.m2/repository"
	gradle = "gradle /root/.gradle/caches"
	poetry = "poetry /root/.cache/pypoetry/artifacts, poetry /root/.cache/pypoetry/cache"
	pnpm   = "pnpm /pnpm/store"
	gems   = "bundler /usr/local/bundle/cache"
	php    = "composer /root/.cache/composer, composer /root/.composer/cache"
)

// corpus are RUN lines as people write them, with the mounts that they should have.
var corpus = []struct {
	image, line, want string
}{
	// node
	{"", "npm ci", npm},
	{"", "npm ci --omit=dev && npm run build", npm},
	{"", "npm install -g npm@11 && npm install --production --loglevel warn", npm},
	{"", "set -ex; npm i --no-audit --no-fund; npm run build", npm},
	{"", "cd /app && npm ci --prefer-offline --ignore-scripts", npm},
	{"", "npx --yes playwright install --with-deps chromium", npm},
	{"", "NODE_ENV=production npm --prefix frontend install", npm},
	{"", "npm ci --cache /tmp/npm-cache", "npm /tmp/npm-cache"},
	{"", "npm_config_cache=/cache/npm npm ci", "npm /cache/npm"},
	{"", "npm config set cache /opt/npm-cache && npm ci", "npm /opt/npm-cache"},
	{"", "yarn install --frozen-lockfile --network-timeout 600000", yarn},
	{"", "yarn --frozen-lockfile && yarn build", yarn},
	{"", "YARN_CACHE_FOLDER=/tmp/yarn yarn --cwd web install", "yarn /tmp/yarn"},
	{"", "export YARN_NODE_LINKER=node-modules; corepack enable && yarn install --immutable", "yarn /root/.yarn/berry/cache"},
	{"pnpm", "corepack enable && pnpm install --frozen-lockfile", pnpm},
	{"pnpm", "corepack pnpm -r install --prod", pnpm},
	{"", "npx pnpm@9 i --frozen-lockfile", "pnpm /root/.local/share/pnpm/store, npm /root/.npm"},
	{"pnpm", `if [ -f yarn.lock ]; then yarn --frozen-lockfile; \
  elif [ -f package-lock.json ]; then npm ci; \
  elif [ -f pnpm-lock.yaml ]; then corepack enable pnpm && pnpm i --frozen-lockfile; \
  else echo "Lockfile not found." && exit 1; \
  fi`, "pnpm /pnpm/store, npm /root/.npm, yarn /usr/local/share/.cache/yarn"},
	// go
	{"golang", "go mod download", goMod},
	{"golang", "go mod download && go mod verify", goMod},
	{"golang", "CGO_ENABLED=0 GOOS=linux go build -ldflags='-s -w' -o /out/app ./cmd/app", goBoth},
	{"golang", `CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(git describe --tags)" -o /bin/app .`, goBoth},
	{"golang", "set -eux; for os in linux darwin; do GOOS=$os go build -o out/$os ./...; done", goBoth},
	{"golang", "go install github.com/go-delve/delve/cmd/dlv@latest", goBoth},
	{"golang", "go vet ./... && go test -race -timeout 5m ./...", goBoth},
	{"", "/usr/lib/go-1.24/bin/go build ./...", "go /root/.cache/go-build, go /root/go/pkg/mod"},
	{"golang", "GOMODCACHE=/cache/mod GOCACHE=/cache/build go build ./...", "go /cache/build, go /cache/mod"},
	{"golang", "export GOPATH=/gopath; go get ./... ; go generate ./...", "go /root/.cache/go-build, go /gopath/pkg/mod"},
	// python
	{"", "pip install -r requirements.txt", pip},
	{"", "python -m pip install --upgrade pip setuptools wheel && pip install .", pip},
	{"", "python3 -m venv /venv && /venv/bin/pip install --disable-pip-version-check -r requirements.txt", pip},
	{"", ". /venv/bin/activate && pip3.12 install gunicorn==23.0.0", pip},
	{"", "curl -sf https://sh.example.org | sh -s -- -y && . \"$HOME/.cargo/env\" && cargo build", "cargo /root/.cargo/git/db, cargo /root/.cargo/registry"},
	{"", "pip wheel --no-deps --wheel-dir /wheels -r requirements.txt", pip},
	{"", "pip install poetry==1.8.3 && poetry config virtualenvs.create false && poetry install --no-root --only main", pip + ", " + poetry},
	{"", "uv sync --frozen --no-install-project --no-dev", uv},
	{"", "pip install uv && uv pip install --system -r requirements.txt", pip + ", " + uv},
	{"", "uvx --from build pyproject-build --installer uv", uv},
	{"", "POETRY_CACHE_DIR=/tmp/poetry_cache poetry install --without dev --no-root", "poetry /tmp/poetry_cache/artifacts, poetry /tmp/poetry_cache/cache"},
	// rust
	{"rust", "cargo build --release --locked", cargo},
	{"rust", "cargo chef cook --release --recipe-path recipe.json", cargo},
	{"rust", "rustup target add x86_64-unknown-linux-musl && cargo +nightly install --path . --target x86_64-unknown-linux-musl", cargo},
	{"rust", "mkdir src && echo 'fn main() {}' > src/main.rs && cargo build --release && rm -rf src", cargo},
	// java
	{"maven", "mvn -B -e -C -T 1C dependency:go-offline", maven},
	{"maven", "mvn -f /home/app/pom.xml clean package -DskipTests", maven},
	{"", "chmod +x mvnw && ./mvnw -B package", maven},
	{"maven", "MAVEN_OPTS=-Dmaven.repo.local=/m2 mvn -q verify", "maven /m2"},
	{"gradle", "gradle build --no-daemon -x test", gradle},
	{"", "./gradlew --no-daemon bootJar", gradle + ", gradle /root/.gradle/wrapper/dists"},
	{"gradle", "GRADLE_USER_HOME=/cache gradle assemble", "gradle /cache/caches"},
	// apt
	{"", "apt-get update && apt-get install -y --no-install-recommends curl ca-certificates && rm -rf /var/lib/apt/lists/*", apt},
	{"", "apt update && apt install -y git", apt},
	{"", "set -eux; apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 install gcc make; apt-get purge -y --auto-remove", apt},
	{"", "sudo apt-get update && sudo -E apt-get dist-upgrade -y", apt},
	{"", "savedAptMark=\"$(apt-mark showmanual)\"; apt-get update; apt-get install -y gcc; pip install psycopg2; apt-mark auto '.*' > /dev/null; apt-mark manual $savedAptMark", pip + ", " + apt},
	{"", "curl -fsSL https://deb.example.org/setup_22.x | bash - && apt-get install -y nodejs && npm install -g yarn", npm + ", " + apt},
	// ruby, php
	{"ruby", "bundle install --jobs 4 --retry 3", gems},
	{"ruby", "gem install bundler -v 2.6.2 && bundle config set without 'development test' && bundle install", gems},
	{"ruby", "bundle config set --global global_gem_cache true && bundle", "bundler /root/.bundle/cache"},
	{"composer", "composer install --no-dev --prefer-dist --no-interaction --optimize-autoloader", "composer /tmp/cache"},
	{"", "php composer.phar install --no-scripts", php},
	{"", "COMPOSER_ALLOW_SUPERUSER=1 composer global require phpunit/phpunit", "composer /root/.cache/composer"},
	// behind other words
	{"", `bash -lc "npm ci && pip install -r requirements.txt"`, pip + ", " + npm},
	{"", `/bin/bash -euxo pipefail -c 'npm ci | tee log'`, npm},
	{"", "env -u FOO NODE_ENV=test npm ci", npm},
	{"", "time nice -n 19 npm ci", npm},
	{"", "exec npm ci", npm},
	{"", "timeout -k 5 600 npm ci || npm ci --verbose", npm},
	{"", "cat packages.txt | xargs -n 10 apt-get install -y", apt},
	{"", "(cd web && npm ci) && (cd docs && yarn)", npm + ", " + yarn},
	{"", "find . -name package.json -execdir npm ci \\;", npm},
	{"", "<<EOF bash\nset -e\nnpm ci\nEOF\n", npm},
	{"", "set -e\n# the front end\nnpm ci\n\nfor d in a b; do\n  (cd $d && pip install .)\ndone\n", pip + ", " + npm},
	{"", `eval "npm ci"`, npm},
	{"", "build() { npm ci; }; build", npm},
	{"", "while ! npm ci; do sleep 5; done", npm},
	{"", "case $(uname -m) in x86_64) npm ci;; *) yarn;; esac", npm + ", " + yarn},
}

// decoys are RUN lines that speak of tools and want no mount.
var decoys = []struct{ image, line string }{
	{"", `echo "npm ci"`},
	{"", "# npm ci\ntrue"},
	{"", "cp npm /usr/bin && chmod +x /usr/bin/npm"},
	{"", "rm -rf /root/.npm /root/.cache/pip"},
	{"golang", "which go && go version && go env && go fmt ./..."},
	{"", "command -v pip"},
	{"", "cmd='npm ci'"},
	{"", "cat <<EOF > /entrypoint.sh\n#!/bin/sh\nnpm ci\npip install .\nEOF\n"},
	{"", "cat <<'EOF' | tee build.sh\nnpm ci\nEOF\n"},
	{"", "npm --version && npm -v && npm run build && npm test && npm start"},
	{"", "npm ci && npm cache clean --force"},
	{"", "npm ci && rm -rf ~/.npm"},
	{"", "npm ci && rm -rf /root/.[!.]*"},
	{"", "npm ci && cp -r /root/.npm /out"},
	{"", "npm ci --offline"},
	{"", "npm config set registry https://npm.example.org && npm pkg get version"},
	{"", "yarn build && yarn run test && yarn --version"},
	{"", "yarn install && yarn cache clean"},
	{"", "yarn install --immutable"}, // Plug'n'Play runs from the cache
	{"pnpm", "pnpm run build && pnpm --version && pnpm exec vite"},
	{"pnpm", "pnpm install --offline --frozen-lockfile"},
	{"", "pip install --no-cache-dir -r requirements.txt"},
	{"", "PIP_NO_CACHE_DIR=off pip install flask"}, // "off" switches it off as well
	{"", "pip --version; pip freeze; pip list; pip uninstall -y x; pip check"},
	{"", "pip install --no-cache /wheels/*"},
	{"", "pip install --no-index --find-links=/wheels app"},
	{"", "pip install flask && pip cache purge"},
	{"", "pip install flask && rm -rf ~/.cache"},
	{"", "pip install flask && rm -rf /root/.cache/*"},
	{"", "pip install flask && rm -rf \"$(pip cache dir)\""},
	{"", "uv venv && uv --version && uv cache clean"},
	{"", "UV_LINK_MODE=symlink uv sync"},
	{"", "poetry run python manage.py collectstatic && poetry --version"},
	{"", "poetry install && poetry cache clear --all pypi"},
	{"golang", "go build ./... && go clean -modcache -cache"},
	{"golang", "gofmt -l . && golangci-lint run"},
	{"golang", "go build -o /app . && rm -rf /go/pkg /root/.cache"},
	{"rust", "cargo --version && cargo fmt --check && cargo new x && cargo clean"},
	{"rust", "cargo build --frozen"},
	{"rust", "cargo build && rm -rf $CARGO_HOME/registry $CARGO_HOME/git"},
	{"maven", "mvn --version && mvn -v"},
	{"maven", "mvn -o package"},
	{"gradle", "gradle --version && gradle --stop"},
	{"gradle", "gradle build --offline"},
	{"", "apt-get update"},
	{"", "apt-get update && apt-get install -y curl && apt-get clean && rm -rf /var/lib/apt/lists/*"},
	{"", "apt-get install -y curl && rm -rf /var/cache/apt/*"},
	{"", "apt-cache search curl; apt-mark hold curl; apt-key add key; apt-get remove -y curl; apt-get autoremove"},
	{"", "apt-get install -d curl; apt-get -s install curl; apt-get download curl"},
	{"ruby", "bundle exec rake assets:precompile && bundle --version && bundle config"},
	{"ruby", "BUNDLE_PATH=vendor/bundle bundle install"},
	{"ruby", "gem list && gem --version"},
	{"composer", "composer dump-autoload -o && composer --version && composer run-script build"},
	{"composer", "composer install && composer clear-cache"},
	{"composer", "composer install --no-cache"},
	{"", "su node -c 'npm ci'"},
	{"", "gosu node npm ci"},
	{"", "npm ci &&"}, // what cannot be read is left alone
	{"", "for f in npm pip; do echo $f install; done"},
	{"", "[ -x /usr/bin/npm ] || exit 1"},
	{"", "ln -s /usr/lib/node_modules/npm/bin/npm-cli.js /usr/bin/npm"},
	{"", "printf '%s\\n' 'pip install x' > Makefile"},
	{"", "alias npm='npm ci'"},
	{"", "trap 'npm ci' EXIT"},
	{"", "npm() { true; }; npm ci"},
	{"", "cd ~/.npm && npm ci"},
	{"", ". ./settings.sh && npm ci"}, // which may set anything
	{"", "$PACKAGE_MANAGER"},
	{"", "npm $(cat command)"},
	{"", "pip install --cache-dir \"$(mktemp -d)\" flask"},
	{"", "apt-get -o Dir::Cache::archives=/tmp install curl"},
}

func shell(line string) []string { return []string{"/bin/sh", "-c", line} }

func texts(list []Mount) string {
	var out []string
	for _, m := range list {
		out = append(out, m.Tool+" "+m.Target)
	}
	return strings.Join(out, ", ")
}

// TestCorpus looks at lines as people write them.
func TestCorpus(t *testing.T) {
	if len(corpus) < 40 {
		t.Errorf("%d lines, fewer than 40", len(corpus))
	}
	for _, c := range corpus {
		got, skipped := Find(shell(c.line), images[c.image], "", "/app")
		want := strings.Split(c.want, ", ")
		slices.SortFunc(want, func(a, b string) int {
			return strings.Compare(a[strings.IndexByte(a, ' ')+1:], b[strings.IndexByte(b, ' ')+1:])
		})
		if texts(got) != strings.Join(want, ", ") {
			t.Errorf("%s\n got  %s\n want %s\n notes %v", c.line, texts(got), strings.Join(want, ", "), skipped)
		}
		for _, m := range got {
			if m.ID != m.Target || m.Owner != nil {
				t.Errorf("%s: %+v", c.line, m)
			}
		}
	}
}

// TestDecoys looks at lines that want none.
func TestDecoys(t *testing.T) {
	if len(decoys) < 25 {
		t.Errorf("%d lines, fewer than 25", len(decoys))
	}
	for _, c := range decoys {
		if got, _ := Find(shell(c.line), images[c.image], "", "/app"); len(got) > 0 {
			t.Errorf("%s\n got %s", c.line, texts(got))
		}
	}
}
