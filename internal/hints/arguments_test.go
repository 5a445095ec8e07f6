package hints

import (
	"fmt"
	"strings"
	"testing"
)

// args are Dockerfiles as people write them, with the lines of the ARGs that come too early and the RUNs that each warning has to name.
var args = []struct{ name, file, want, lines string }{
	{"labels at the top", `FROM debian:buster
ARG BUILD_DATE
ARG VERSION
LABEL build_version="${VERSION} Build-date:- ${BUILD_DATE}"
RUN apt-get update && apt-get install -y calibre && mkdir /library
EXPOSE 8080
`, "[2 ArgTooEarly]", "line 5,"},
	{"label and vcs-ref", `FROM jenkins/jenkins:lts
ARG VERSION
ARG VCS_REF
ARG BUILD_DATE
LABEL org.label-schema.vcs-ref="$VCS_REF" org.label-schema.build-date="$BUILD_DATE"
COPY plugins.txt /ref/plugins.txt
RUN /usr/local/bin/install-plugins.sh < /ref/plugins.txt
`, "[3 ArgTooEarly 4 ArgTooEarly]", "line 7,"},
	{"unknown by default", `FROM python:3.12-slim
ARG GIT_COMMIT_SHA=unknown
ARG BUILD_TIME=unknown
WORKDIR /app
RUN apt-get update && apt-get install -y build-essential
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN chmod +x configure build || true
ENV GIT_COMMIT_SHA=${GIT_COMMIT_SHA} BUILD_TIME=${BUILD_TIME}
`, "[2 ArgTooEarly 3 ArgTooEarly]", "lines 5 and 7,"},
	{"before the modules", `FROM golang:1.21-alpine AS builder
ARG VERSION=dev
ARG BUILD_DATE
ARG GIT_COMMIT=unknown
WORKDIR /app
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -ldflags="-X main.BuildDate=${BUILD_DATE} -X main.GitCommit=${GIT_COMMIT}" -o /app/server ./cmd/server
`, "[3 ArgTooEarly 4 ArgTooEarly]", "line 7,"},
	{"a build that does not need it", "FROM a:1\nARG COMMIT_SHA\nRUN npm run build\nLABEL rev=$COMMIT_SHA\n", "[2 ArgTooEarly]", "line 3,"},
	{"in a stage that others stand on", "FROM a:1 AS base\nARG CI_COMMIT_SHA\nENV SHA=$CI_COMMIT_SHA\nFROM base\nRUN apt-get update && apt-get install -y x\n", "[2 ArgTooEarly]", "line 5,"},
	{"many on one line", "FROM a:1\nARG A=1 BUILD_NUMBER=0 \\\n  REVISION\nRUN yarn\nRUN echo $REVISION $BUILD_NUMBER > v\n", "[2 ArgTooEarly 3 ArgTooEarly]", "line 4,"},
	{"lower case, with a suffix", "FROM a:1\nARG build_date_arg\nRUN npm ci\n", "[2 ArgTooEarly]", "line 3,"},
	{"a here-document", "FROM a:1\nARG GITHUB_SHA\nRUN <<EOF\napk add git\nEOF\nRUN echo ${GITHUB_SHA} > v\n", "[2 ArgTooEarly]", "line 3,"},
	{"a global one that is declared again", "ARG BUILD_ID=0\nFROM a:1\nARG BUILD_ID\nRUN bundle install\n", "[3 ArgTooEarly]", "line 4,"},
	{"eight RUNs", "FROM a:1\nARG NOW\n" + strings.Repeat("RUN npm ci\n", 8), "[2 ArgTooEarly]", "lines 3, 4, 5, 6, 7, 8 and 2 more,"},
	{"printed where something is installed", `FROM ubuntu:24.04
ARG BUILD_DATE
LABEL build_version="Build-date: ${BUILD_DATE}"
RUN \
  apt-get update && apt-get install -y udev && \
  if [ -z ${V+x} ]; then V=$(curl -sX GET 'https://example.org/v.json' | jq -r .v); fi && \
  printf "Build-date: ${BUILD_DATE}" > /build_version && \
  rm -rf /tmp/*
`, "[2 ArgTooEarly]", "line 4,"},

	{"installed by it", "FROM a:1\nARG BUILD_ID\nRUN apt-get update && apt-get install -y x=$BUILD_ID && echo $BUILD_ID > v\n", "[]", ""},
	{"printed by itself", "FROM a:1\nRUN npm ci\nARG BUILD_ID\nRUN echo $BUILD_ID > v && chmod 644 v\n", "[]", ""},
	{"last", "FROM a:1\nRUN npm ci\nARG GIT_SHA\nLABEL rev=$GIT_SHA\n", "[]", ""},
	{"just before what uses it", "FROM a:1\nRUN go mod download\nARG BUILD_TIME\nARG GIT_COMMIT\nRUN go build -ldflags \"-X main.t=${BUILD_TIME} -X main.c=${GIT_COMMIT}\" -o a ./a\n" +
		"RUN go build -ldflags \"-X main.t=${BUILD_TIME} -X main.c=${GIT_COMMIT}\" -o b ./b\n", "[]", ""},
	{"a program may look it up", "FROM a:1\nRUN npm ci\nARG VITE_GIT_SHA\nRUN npm run build\n", "[]", ""},
	{"under another name", "FROM a:1\nARG GIT_SHA\nENV VITE_SHA=$GIT_SHA\nRUN npm run build\n", "[]", ""},
	{"before FROM only", "ARG GIT_COMMIT=rainbow\nFROM a:1\nRUN dotnet restore\nRUN dotnet publish /p:V=$GIT_COMMIT\n", "[]", ""},
	{"a version", "FROM a:1\nARG VERSION\nARG NODE_VERSION=22\nARG TARGETARCH\nRUN apt-get update && apt-get install -y x\n", "[]", ""},
	{"meant to", "FROM a:1\nARG CACHEBUST=1\nRUN npm ci\n", "[]", ""},
	{"a pinned commit", "FROM a:1\nARG COMMIT=1a2b3c4d5e6f\nRUN apt-get update && apt-get install -y git\nRUN make\n", "[]", ""},
	{"a pinned date", "FROM a:1\nARG BUILD_DATE=2024-05-01\nRUN npm ci\n", "[]", ""},
	{"pinned above", "ARG REVISION=v1.2.3\nFROM a:1\nARG REVISION\nRUN npm ci\n", "[]", ""},
	{"what is fetched", "FROM a:1\nARG COMMIT=master\nRUN apt-get update && apt-get install -y git\nRUN git clone https://h/r /r && git -C /r checkout ${COMMIT}\n", "[]", ""},
	{"what is downloaded", "FROM a:1\nARG REVISION\nRUN npm ci\nRUN curl -fsSL https://example.org/archive/${REVISION}.tgz | tar xz\n", "[]", ""},
	{"what is added", "FROM a:1\nARG GIT_COMMIT\nRUN npm ci\nADD https://h/r.git#${GIT_COMMIT} /r\n", "[]", ""},
	{"cheap", "FROM a:1\nARG BUILD_DATE\nLABEL d=$BUILD_DATE\nRUN chmod g+x /entrypoint.sh && mkdir -p /data && useradd me\n", "[]", ""},
	{"another stage", "FROM a:1 AS x\nARG GIT_SHA\nRUN echo $GIT_SHA > /v\nFROM a:1\nRUN npm ci\nCOPY --from=x /v /v\n", "[]", ""},
	{"the epoch", "FROM a:1\nARG SOURCE_DATE_EPOCH\nRUN npm ci\n", "[]", ""},
	{"a dependency's", "FROM a:1\nARG OPENSSL_COMMIT\nARG LLVM_REVISION\nRUN npm ci\n", "[]", ""},
	{"no shell reads it", "FROM a:1\nARG GIT_SHA\nLABEL a=$GIT_SHA\nRUN <<EOF\n#!/usr/bin/env python3\nprint()\nEOF\nRUN if broken\n", "[]", ""},
}

func TestArguments(t *testing.T) {
	for _, c := range args {
		found, err := Check(Request{Dockerfile: []byte(c.file)})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := fmt.Sprint(check(t, Request{Dockerfile: []byte(c.file)}))
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		for _, w := range found.Warnings {
			if !strings.Contains(w.Detail, c.lines) {
				t.Errorf("%s: %q does not name %s", c.name, w.Detail, c.lines)
			}
		}
	}
}

// setups are commands that have no use for a variable that they do not name.
var setups = []struct {
	line string
	want bool
}{
	{"apt-get install -y curl", true}, {"npm ci", true}, {"npm --prefix web ci", true}, {"yarn", true}, {"yarn install --immutable", true},
	{"python3 -m pip install -r r.txt", true}, {"pip3.12 install x", true}, {"python3.11 -m venv /v", true}, {"cargo chef cook --release", true},
	{"go build ./...", true}, {"bundle", true}, {"env A=b npm ci", true}, {"sudo -E apt-get update", true}, {"timeout 60 npm ci", true},
	{"npm run build", false}, {"yarn build", false}, {"make", false}, {"./configure", false}, {"python setup.py build", false},
	{"python3 -m build", false}, {"cargo build", false}, {"mvn package", false}, {"gradle build", false}, {"go generate ./...", false},
	{"npx vite build", false}, {"pipeline install", false}, {"bash build.sh", false}, {"$TOOL install", false},
}

func TestSetsUp(t *testing.T) {
	for _, c := range setups {
		s := readScript(c.line)
		if len(s.calls) != 1 || s.opaque {
			t.Errorf("%s: %q", c.line, s.calls)
		} else if got := s.calls[0].setsUp(); got != c.want {
			t.Errorf("%s: %v", c.line, got)
		}
	}
}
