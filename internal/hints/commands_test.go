package hints

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// check gives what is said of a Dockerfile as "LINE RULE", by line.
func check(t *testing.T, r Request) []string {
	t.Helper()
	found, err := Check(r)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Dockerfile)
	}
	var out []string
	for _, w := range found.Warnings {
		if w.Description == "" || w.Detail == "" || strings.ContainsAny(w.Detail, "\n\x00") || len(w.Where) == 0 {
			t.Errorf("%+v", w)
		}
		out = append(out, fmt.Sprintf("%d %s", first(w.Where), strings.TrimPrefix(w.Rule, "Cache")))
	}
	return out
}

// lines checks RUN lines one by one: each in a stage that has the build context, with its .git.
func lines(t *testing.T, rule string, bad, good []string) {
	t.Helper()
	if len(bad) < 5 || len(good) < 10 {
		t.Errorf("%s: %d lines that have it, %d that have not", rule, len(bad), len(good))
	}
	for i, l := range append(slices.Clone(bad), good...) {
		said := check(t, Request{Dockerfile: []byte("FROM debian:12\nWORKDIR /src\nCOPY . .\nRUN " + l + "\n")})
		if i >= len(bad) && len(said) > 0 || i < len(bad) && (len(said) != 1 || !strings.HasSuffix(said[0], " "+rule)) {
			t.Errorf("%s\n  got %v", l, said)
		}
	}
}

func TestTimestamp(t *testing.T) {
	lines(t, "Timestamp", []string{
		`date -u > BUILD_TIME`,
		`date +%s >> /etc/image-info`,
		`echo "built $(date)" > /version.txt`,
		"echo built `date -u +%Y%m%d` | tee /etc/motd",
		`CGO_ENABLED=0 go build -ldflags "-s -w -X main.buildTime=$(date -u +%Y-%m-%dT%H:%M:%SZ)" -o /app ./cmd/app`,
		`NOW=$(date -u +%FT%TZ) && go build -ldflags="-X main.date=${NOW}" .`,
		`export BUILD_DATE=$(date +%F); npm run build`,
		`VITE_BUILD_TIME="$(date)" npm run build`,
		`sed -i "s/@DATE@/$(date +%Y-%m-%d)/" index.html`,
		`set -ex; STAMP=$(date +%Y%m%d); make dist VERSION=1.0.$STAMP`,
		`printf '{"built":"%s"}' "$(date -Iseconds)" > /usr/share/app/build.json`,
		`mkdir -p "/releases/$(date +%Y%m%d%H%M%S)"`,
		`sh -c "date > /stamp"`,
		`bash -lc 'echo $(date) > /stamp'`,
		`env BUILD_TIME=$(date +%s) make`,
		`node -e "console.log(new Date().toISOString())" > build-time.txt`,
		`python3 -c 'import datetime; print(datetime.datetime.now())' > /stamp`,
		`if [ -f x ]; then echo 1; else date; fi > /stamp`,
		`stamp() { date -u; }; stamp > /stamp`,
		"<<EOF\nset -e\nnpm run build\ndate > /stamp\nEOF",
		"cat <<EOF > /stamp\nbuilt at $(date)\nEOF",
		`date -d "now" +%F > /stamp`,
		`date -d '1 hour ago' > /stamp`,
		`date | sed 's/ /_/g' | tee -a /stamp`,
		`echo "$(date)" | xargs -I{} git commit --allow-empty -m {}`,
	}, []string{
		`date`,
		`echo "started at $(date)" && make && echo "done at $(date)"`,
		`START=$(date +%s); make -j8; echo "took $(( $(date +%s) - START )) s"`,
		`start=$(date +%s) && make && end=$(date +%s) && echo $((end-start)) seconds`,
		`date > /dev/null`,
		`date >&2; make`,
		`echo "[$(date)] building" > /dev/stderr && make`,
		`date -r Cargo.toml +%s > /stamp`,
		`date -u -d "@${EPOCH}" +%F > /stamp`,
		`date --date=2024-01-01 > /stamp`,
		`date -u -d "@$SOURCE_DATE_EPOCH" +%F > /stamp`,
		`BUILD_DATE=$(date --utc --date="@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%F) && make DATE=$BUILD_DATE`,
		`[ "$(date +%Y)" -gt 2020 ] && make`,
		`curl -fsS "https://example.org/list?t=$(date +%s)" -o list`,
		`find . -newermt "$(date -d '1 day ago')" -delete`,
		`touch -d "$(date)" x`,
		`touch -t 202401010000 x && touch y`,
		`apt-get -o Acquire::Check-Valid-Until=false update && apt-get install -y tzdata`,
		`ln -sf /usr/share/zoneinfo/UTC /etc/localtime`,
		`npm install date-fns && npm run update-date`,
		`echo "date" > words.txt`,
		`echo 'run $(date) > /stamp' > /entrypoint.sh`,
		"cat <<'EOF' > /entrypoint.sh\n#!/bin/sh\nexport BUILD_DATE=$(date)\nexec \"$@\"\nEOF",
		`cp candidate.txt update/ && ./validate > out`,
		`log() { echo "[$(date +%T)] $*"; }; log start; make; log done`,
		`time make > build.log`,
		`T=$(date +%s); while [ $(( $(date +%s) - T )) -lt 5 ]; do sleep 1; done`,
		`pip install python-dateutil==2.9.0 && python -c "import dateutil"`,
		`unterminated "quote $(date) > x`,
		"<<EOF python3\nimport datetime\nprint(datetime.datetime.now())\nEOF",
		`date --reference=go.mod +%F > /stamp`,
	})
}

func TestGitWithoutObservation(t *testing.T) {
	lines(t, "ReadsGit", []string{
		`git rev-parse HEAD > /version`,
		`git describe --tags --always --dirty | tee VERSION`,
		`go build -ldflags "-X main.commit=$(git rev-parse --short HEAD)" ./...`,
		`VERSION=$(git describe --tags) && make VERSION=$VERSION`,
		`make COMMIT=$(git -C /src log -1 --format=%h)`,
		`export GIT_COMMIT=$(git rev-list -1 HEAD) && npm run build`,
		`git config --global --add safe.directory /src && git log -1 --pretty=%ct > /stamp`,
		`if [ -n "$(git status --porcelain)" ]; then echo dirty > /state; fi`,
		`bash -c 'git show -s --format=%H > commit.txt'`,
		`sudo git branch --show-current`,
	}, []string{
		`git clone --depth 1 https://example.org/lib.git /lib && cd /lib && git rev-parse HEAD > /lib.version`,
		`git clone https://example.org/lib.git /lib && git -C /lib checkout v1.2.3 && git -C /lib log -1`,
		`git init && git add -A && git commit -m x && git log`,
		`git --version`,
		`git config --global user.email ci@example.org`,
		`git lfs install`,
		`apt-get update && apt-get install -y git`,
		`echo "git rev-parse HEAD" > hint.txt`,
		`cat .gitignore .gitattributes > /dev/null`,
		`cd "$(git rev-parse --show-toplevel)" && make`,
		`pip install git+https://example.org/lib.git@v1`,
		`rm -rf .git`,
		`npm install --ignore-scripts`,
		`--mount=type=bind,source=.git,target=.git git describe --tags > /version`,
		`git submodule update --init`,
		`digit describe`,
		`git add -A && cp -r /out/* . && [ -z "$(git status --porcelain)" ]`,
	})
	for df, want := range map[string]string{
		// No .git is there to be read.
		"FROM a:1\nCOPY src/ /src/\nRUN git describe\n":                                    "[]",
		"FROM a:1\nCOPY .git /src/.git\nRUN git -C /src describe\n":                        "[3 ReadsGit]",
		"FROM a:1\nRUN --mount=type=bind,target=/src cd /src && git describe > /v\n":       "[2 ReadsGit]",
		"FROM a:1\nRUN --mount=type=bind,from=x:1,target=/s cd /s && git describe > /v\n":  "[]",
		"FROM a:1\nRUN git clone https://h/r /r\nCOPY . .\nRUN cd /r && git describe\n":    "[]",
		"FROM a:1 AS s\nCOPY . /s\nFROM s\nRUN git describe\n":                             "[4 ReadsGit]",
		"FROM a:1\nADD --keep-git-dir=true https://h/r.git#v1 /r\nCOPY . .\nRUN git log\n": "[]",
		"FROM a:1\nCOPY . .\nRUN make && \\\n  # the version\n  git describe > v\n":        "[5 ReadsGit]",
	} {
		if got := fmt.Sprint(check(t, Request{Dockerfile: []byte(df)})); got != want {
			t.Errorf("%s got %s, want %s", df, got, want)
		}
	}
}

func TestMovingDownloads(t *testing.T) {
	lines(t, "MovingDownload", []string{
		`curl -fsSL https://raw.githubusercontent.com/nvm-sh/nvm/master/install.sh | bash`,
		`wget -q https://github.com/x/y/releases/latest/download/y-linux-amd64 -O /usr/local/bin/y`,
		`VERSION=$(curl -s https://api.github.com/repos/x/y/releases/latest | jq -r .tag_name) && echo "$VERSION" > v`,
		`curl -L https://nodejs.org/dist/latest-v20.x/SHASUMS256.txt -o sums`,
		`wget "https://example.org/${ARCH}/latest.tar.gz"`,
		`curl -sSfL https://raw.githubusercontent.com/x/y/HEAD/install.sh | sh -s -- -b /bin`,
		`curl -LO https://github.com/x/y/archive/refs/heads/main.tar.gz`,
		`pip install https://github.com/x/y/archive/master.zip`,
		`sh -c "curl -o x https://gitlab.com/g/p/-/raw/main/x.sh"`,
		`apt-get update && apt-get install -y curl && curl https://builds.example.org/nightly/tool.deb -o t.deb`,
	}, []string{
		`curl -fsSL https://deb.nodesource.com/setup_22.x | bash -`,
		`curl -sSL https://install.python-poetry.org | python3 -`,
		`curl -fsSL https://github.com/x/y/releases/download/v1.2.3/y.tar.gz | tar xz`,
		`wget https://raw.githubusercontent.com/x/y/v1.0.0/master.key`,
		`wget https://raw.githubusercontent.com/x/y/5f3d0ab/main/a.sh`,
		`curl -L https://github.com/x/y/releases/latest/download/y -o y && echo "$SUM  y" | sha256sum -c -`,
		`curl -L https://github.com/x/y/releases/latest/download/y -o y && sha256sum --check sums`,
		`echo "deb https://deb.example.org/debian latest main" > /etc/apt/sources.list.d/x.list`,
		`npm install typescript@latest`,
		`go install example.org/tool@latest`,
		`curl -fsS http://localhost:8080/health`,
		`curl -L https://example.org/translatest/file.tar.gz -o f`,
		`curl -L https://mirrors.example.org/debian/dists/bookworm/main/x.gz -o x`,
		`git clone https://github.com/x/y`,
		`echo https://example.org/latest/x`,
		`curl "https://example.org/dl?channel=latestish" -o x`,
	})
	found, err := Check(Request{Dockerfile: []byte("FROM a:1\nRUN curl -o x https://me:secret@example.org/latest/x\n")})
	if err != nil || len(found.Warnings) != 1 || strings.Contains(found.Warnings[0].Detail, "secret") {
		t.Errorf("%v %+v", err, found)
	}
}

func TestStaleLists(t *testing.T) {
	for df, want := range map[string]string{
		"FROM ubuntu:20.04\nRUN apt-get update\nRUN apt-get install -y wget\n":                                               "[2 StaleLists]",
		"FROM ubuntu:20.04\nRUN apt update\n\nENV A=b\nRUN apt install -y wget && rm -rf /var/lib/apt/lists/*\n":             "[2 StaleLists]",
		"FROM ubuntu:20.04\nRUN sudo apt-get -qq update && sudo apt-get upgrade -y\nRUN sudo apt-get -y install vim\n":       "[2 StaleLists]",
		"FROM alpine:3.20\nRUN apk update\nRUN apk add git\n":                                                                "[2 StaleLists]",
		"FROM debian:12 AS base\nRUN apt-get update\nFROM base\nRUN make\nRUN apt-get install -y gcc\n":                      "[2 StaleLists]",
		"FROM debian:12\nRUN set -ex; \\\n apt-get update;\nRUN apt-get -o Acquire::Retries=3 build-dep -y nginx\n":          "[3 StaleLists]",
		"FROM debian:12\nRUN [\"apt-get\", \"update\"]\nRUN [\"apt-get\", \"install\", \"-y\", \"gcc\"]\n":                   "[2 StaleLists]",
		"FROM debian:12\nRUN apt-get update && apt-get install -y gcc\nRUN apt-get install -y make\n":                        "[]",
		"FROM debian:12\nRUN apt-get update && apt-get install -y gcc\n":                                                     "[]",
		"FROM debian:12\nRUN apt-get update\n":                                                                               "[]",
		"FROM debian:12\nRUN apt-get update\nRUN make\n":                                                                     "[]",
		"FROM debian:12\nRUN apt-get update\nRUN apt-get update && apt-get install -y gcc\n":                                 "[]",
		"FROM alpine:3.20\nRUN apk update\nRUN apk add --no-cache git\n":                                                     "[]",
		"FROM alpine:3.20\nRUN apk upgrade --update-cache --available\nRUN apk add ghc\n":                                    "[]",
		"FROM debian:12\nRUN --mount=type=cache,target=/var/lib/apt apt-get update\nRUN apt-get install -y gcc\n":            "[]",
		"FROM debian:12 AS a\nRUN apt-get update\nFROM debian:12\nRUN apt-get install -y gcc\n":                              "[]",
		"FROM debian:12\nRUN echo apt-get update\nRUN apt-get install -y gcc\n":                                              "[]",
		"FROM debian:12\nRUN apt-get update; apt-get install -y --no-install-recommends a \\\n  b\nRUN apt-get purge -y a\n": "[]",
		"FROM debian:12\nRUN pip install apt && npm update\nRUN apt-get install -y gcc\n":                                    "[]",
	} {
		if got := fmt.Sprint(check(t, Request{Dockerfile: []byte(df)})); got != want {
			t.Errorf("%s got %s, want %s", df, got, want)
		}
	}
}

func TestMovingBases(t *testing.T) {
	for from, want := range map[string]string{
		"FROM alpine":                                        "[1 MovingBase]",
		"FROM node:latest":                                   "[1 MovingBase]",
		"FROM registry.example:5000/a/b":                     "[1 MovingBase]",
		"FROM --platform=linux/amd64 nginx":                  "[1 MovingBase]",
		"ARG V=latest\nFROM node:$V":                         "[2 MovingBase]",
		"ARG I=node\nFROM ${I}":                              "[2 MovingBase]",
		"FROM ghcr.io/x/y:latest AS z":                       "[1 MovingBase]",
		"FROM scratch":                                       "[]",
		"FROM node:22":                                       "[]",
		"FROM ubuntu:rolling":                                "[]",
		"FROM node@sha256:" + strings.Repeat("a", 64):        "[]",
		"FROM node:latest@sha256:" + strings.Repeat("a", 64): "[]",
		"ARG I\nFROM $I":                                     "[]",
		"ARG I\nFROM ${I:-node:20}":                          "[]",
		"ARG V=22\nFROM node:$V":                             "[]",
		"FROM node:22 AS a\nFROM a":                          "[]",
		"FROM node:22 AS Base\nFROM base":                    "[]",
		"FROM named":                                         "[]",
		"FROM registry.example:5000/a/b:1.0":                 "[]",
	} {
		df := from + "\nRUN make\n"
		if got := fmt.Sprint(check(t, Request{Dockerfile: []byte(df), Contexts: []string{"named"}})); got != want {
			t.Errorf("%s got %s, want %s", df, got, want)
		}
	}
	// Nothing runs on it, or it is not built.
	for df, target := range map[string]string{"FROM nginx\nCOPY . /\n": "", "FROM a:1 AS x\nRUN y\nFROM b\nRUN z\n": "x"} {
		if got := check(t, Request{Dockerfile: []byte(df), Target: target}); len(got) > 0 {
			t.Errorf("%s %v", df, got)
		}
	}
	if got := check(t, Request{Dockerfile: []byte("ARG V=1\nFROM a:$V\nRUN b\n"), Args: map[string]string{"V": "latest"}}); len(got) != 1 {
		t.Error(got)
	}
}
