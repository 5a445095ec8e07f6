package automount

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

// TestAsWritten compares what Attach makes with what the Dockerfile frontend makes of the same mounts written out. In
// each Dockerfile <...> stands for what is only in the second.
func TestAsWritten(t *testing.T) {
	for name, c := range map[string]struct{ namespace, text string }{
		"one": {"", `FROM node
WORKDIR /app
COPY package.json package-lock.json ./
RUN <--mount=type=cache,target=/root/.npm> npm ci
COPY . .
RUN npm run build
`},
		"namespace": {"team", `FROM node
RUN <--mount=type=cache,target=/root/.npm> npm ci
`},
		"stages": {"", `FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN <--mount=type=cache,target=/go/pkg/mod> go mod download
COPY . .
RUN <--mount=type=cache,target=/go/pkg/mod> <--mount=type=cache,target=/root/.cache/go-build> go build -o /app .
FROM python AS tools
RUN <--mount=type=cache,target=/root/.cache/pip> pip install build
FROM scratch
COPY --from=build --link /app /app
COPY --from=tools /usr/local/lib/python /lib
`},
		"beside others": {"", `FROM node
WORKDIR /app
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc --mount=type=ssh --mount=type=bind,target=/src --mount=type=tmpfs,target=/zzz \
  --mount=type=cache,target=/app/node_modules/.cache <--mount=type=cache,target=/root/.npm> npm ci
`},
		"owner": {"", `FROM node
ENV HOME=/home/node
USER 1000
WORKDIR /app
RUN --mount=type=bind,target=/src <--mount=type=cache,target=/home/node/.npm,uid=1000,gid=0> npm ci
USER 1000:1001
RUN --mount=type=bind,target=/aaa <--mount=type=cache,target=/home/node/.npm,uid=1000,gid=1001> npm ci
RUN <--mount=type=cache,target=/home/node/.npm,uid=1000,gid=1001> npm i -g x
`},
		"locked": {"", `FROM maven
RUN <--mount=type=cache,target=/root/.m2/repository,sharing=locked> mvn package
`},
		"here-document": {"", `FROM node
RUN <--mount=type=cache,target=/root/.npm> <<EOF
set -e
npm ci
EOF
RUN <--mount=type=cache,target=/root/.npm> <<EOF
#!/usr/bin/env bash
npm ci
EOF
`},
		"exec form": {"", `FROM node
RUN <--mount=type=cache,target=/root/.npm> ["npm", "ci"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN <--mount=type=cache,target=/root/.npm> npm ci | cat
`},
		"becomes the same": {"", `FROM node AS a
RUN <--mount=type=cache,target=/root/.npm> npm ci
FROM node AS b
RUN --mount=type=cache,target=/root/.npm npm ci
RUN touch /b
FROM scratch
COPY --from=a /usr/lib/node_modules /a
COPY --from=b /b /b
`},
		"nothing": {"", "FROM node\nRUN echo npm ci\nCOPY . /app\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, arch := range []string{"amd64", "arm64"} {
				got, _ := attach(t, compile(t, spelled(c.text, false), c.namespace, arch), c.namespace)
				same(t, got, compile(t, spelled(c.text, true), c.namespace, arch))
			}
		})
	}
}

// spelled gives a Dockerfile with or without what is in <...>. The places in the text stay the same.
func spelled(text string, with bool) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "<--")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		in, behind, _ := strings.Cut(rest, ">")
		if with {
			b.WriteString("--" + in)
		} else {
			b.WriteString(strings.Repeat(" ", len(in)+2))
		}
		text = behind
	}
}

// TestApt looks at the file that makes apt keep what it downloads.
func TestApt(t *testing.T) {
	for text, want := range map[string]bool{
		"RUN apt-get update && apt-get install -y curl":                                                                true,
		"RUN rm -f /etc/apt/apt.conf.d/docker-clean\nRUN apt-get install -y curl":                                      false,
		"RUN rm -f /etc/apt/apt.conf.d/docker-clean && apt-get install -y curl":                                        false,
		"RUN rm -f /etc/apt/apt.conf.d/* && apt-get install -y curl":                                                   false,
		"RUN --mount=type=bind,target=/etc/apt apt-get install -y curl":                                                false,
		"RUN --mount=type=bind,source=x,target=/etc/apt/apt.conf.d/docker-clean apt-get install -y curl":               false,
		"RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked apt-get update && apt-get install -y curl jq": true,
	} {
		def, notes := attach(t, compile(t, "FROM debian\n"+text+"\n", "", "amd64"), "")
		all := ops(t, def)
		cache, beside := false, false
		for _, op := range decoded(t, def) {
			for _, m := range op.GetExec().GetMounts() {
				cache = cache || m.Dest == "/var/cache/apt" && m.CacheOpt.ID == "//var/cache/apt" && m.CacheOpt.Sharing == pb.CacheSharingOpt_LOCKED
				if m.Dest == "/etc/apt/apt.conf.d/docker-clean" && m.Selector == "/docker-clean" {
					beside = m.Readonly && m.Output == -1 && strings.Contains(all[op.Inputs[m.Input].Digest], "Keep-Downloaded-Packages")
				}
			}
		}
		if !cache || beside != want {
			t.Errorf("%s: cache %v, file %v, want %v: %v", text, cache, beside, want, notes)
		}
	}
}

// TestAsWrittenApt compares the file beside apt's cache with what LLB's own client makes of it.
func TestAsWrittenApt(t *testing.T) {
	base := llb.Image("docker.io/library/debian")
	run := func(opts ...llb.RunOption) *pb.Definition {
		opts = append(opts, llb.Args([]string{"apt-get", "install", "curl"}), llb.Dir("/"), llb.Network(llb.NetModeSandbox))
		def, err := base.Run(opts...).Root().File(llb.Mkdir("/x", 0o755)).Marshal(t.Context(), llb.LinuxArm64)
		if err != nil {
			t.Fatal(err)
		}
		return def.ToPB()
	}
	conf := llb.Scratch().File(llb.Mkfile("/docker-clean", 0o644, []byte(keepDebs)), llb.WithCustomName("conf"))
	want := run(
		llb.AddMount("/etc/apt/apt.conf.d/docker-clean", conf, llb.SourcePath("/docker-clean"), llb.Readonly),
		llb.AddMount("/var/cache/apt", llb.Scratch(), llb.AsPersistentCacheDir("//var/cache/apt", llb.CacheMountLocked)),
	)
	got, _ := attach(t, run(), "")
	same(t, got, want)
}

// TestLines looks at what people read.
func TestLines(t *testing.T) {
	a := Attached{
		Mounts:  []Mount{{Tool: "npm", Target: "/root/.npm"}},
		Skipped: []Skipped{{"pip", "", "why"}, {"go", "/go/pkg/mod", "why not"}},
	}
	want := []string{"auto-mounts: npm /root/.npm", "auto-mounts: not pip: why", "auto-mounts: not go /go/pkg/mod: why not"}
	if got := a.Lines(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestCorpusAttached writes each line of the corpus into a Dockerfile: what Find says is what the step gets.
func TestCorpusAttached(t *testing.T) {
	for _, c := range corpus {
		image := c.image
		if image == "" {
			image = "plain"
		}
		text := fmt.Sprintf("FROM %s\nWORKDIR /app\nCOPY . .\nRUN <<LINE\n%s\nLINE\nFROM scratch\nCOPY --from=0 /app /app\n", image, c.line)
		want, _ := Find(shell(c.line), images[c.image], "", "/app")
		_, notes := attach(t, compile(t, text, "", "amd64"), "")
		var got []Mount
		for _, a := range notes {
			got = append(got, a.Mounts...)
		}
		if texts(got) != texts(want) {
			t.Errorf("%s\n got  %s\n want %s", c.line, texts(got), texts(want))
		}
	}
}

// TestNoDefinition looks at what is no LLB, or none to attach to.
func TestNoDefinition(t *testing.T) {
	for _, def := range []*pb.Definition{nil, {}} {
		if out, notes, err := Attach(t.Context(), def, plain("", serving)); out != def || notes != nil || err != nil {
			t.Errorf("%v %v %v", out, notes, err)
		}
	}
	good := compile(t, "FROM node\nRUN npm ci\n", "", "amd64")
	raw := func(e *pb.ExecOp) []byte {
		b, err := marshal(&pb.Op{Op: &pb.Op_Exec{Exec: e}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	meta := &pb.Meta{Args: []string{"npm", "ci"}}
	for name, list := range map[string][][]byte{
		"rubbish":       {bytes.Repeat([]byte{0xff}, 9)},
		"no input":      good.Def[1:],
		"wrong input":   {raw(&pb.ExecOp{Meta: meta, Mounts: []*pb.Mount{{Input: 3, Dest: "/"}}})},
		"end is inside": {good.Def[1], good.Def[2], good.Def[0]},
	} {
		if _, _, err := Attach(t.Context(), &pb.Definition{Def: list}, plain("", serving)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, e := range map[string]*pb.ExecOp{
		"no command": {}, "no arguments": {Meta: &pb.Meta{}}, "no root": {Meta: meta}, "a hole": {Meta: &pb.Meta{Args: []string{hole, hole}, Cwd: hole}},
		"read-only": {Meta: meta, Mounts: []*pb.Mount{{Input: -1, Dest: "/", Readonly: true}}},
		"no script": {Meta: &pb.Meta{Args: []string{"/dev/pipes/EOF"}}, Mounts: []*pb.Mount{{Input: -1, Dest: "/dev/pipes/"}}},
	} {
		def := &pb.Definition{Def: [][]byte{raw(e)}}
		out, notes, err := Attach(t.Context(), def, plain("", serving))
		if err != nil || len(out.Def) != 1 || !bytes.Equal(out.Def[0], def.Def[0]) || len(notes) > 0 && len(notes[0].Mounts) > 0 {
			t.Errorf("%s: %v %v", name, notes, err)
		}
	}
}
