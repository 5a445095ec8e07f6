package solve_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/cache"
	"larder/internal/cachemount"
	"larder/internal/content"
	"larder/internal/fileop"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/record"
	"larder/internal/report"
	"larder/internal/runstep"
	"larder/internal/snapshot"
	"larder/internal/solve"
	buildcontext "larder/internal/source/context"
	"larder/internal/tree"
)

// kit is what all scenarios share.
type kit struct {
	programs *layer.Layer // a base image's: busybox and the probe, for scripts to call
	probe    string       // the probe on this machine, see executor.run
}

func newKit(t testing.TB) *kit {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	for name, mode := range map[string]os.FileMode{"bin": 0o755, "etc": 0o755, "tmp": 0o777, "w": 0o777, "out": 0o777, "t": 0o777, "mnt": 0o755, "mnt/m1": 0o755, "mnt/m2": 0o755} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		must(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	for name, body := range map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/:/bin/sh\n", "mnt/f1": "", "mnt/f2": ""} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644))
	}
	data, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755))
	for _, name := range strings.Fields("sh cat chmod chown cmp cp cut dd diff du echo find grep head ln ls md5sum mkdir mv pwd readlink realpath rm rmdir sed sort stat tar test touch truncate true wc") {
		must(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
	source, err := os.ReadFile("testdata/probe.go.txt")
	must(t, err)
	main := filepath.Join(t.TempDir(), "main.go")
	must(t, os.WriteFile(main, source, 0o644))
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "bin/probe"), main)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	return &kit{pinned(t, dir), filepath.Join(dir, "bin/probe")}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func scan(t testing.TB, dir string) *layer.Layer {
	t.Helper()
	l, _, err := buildcontext.Scan(t.Context(), dir, buildcontext.Options{KeepOwner: true})
	must(t, err)
	return l
}

// pinned makes a layer of a base image out of a directory.
func pinned(t testing.TB, dir string) *layer.Layer {
	t.Helper()
	l := scan(t, dir)
	root, err := l.Tree(t.Context())
	must(t, err)
	return layer.New(l.Identity, true, root, l.Contents)
}

// files are the sources of one version of a scenario, as they lie on the disk.
type files struct {
	base     *layer.State
	contexts map[string]*layer.State
}

// Load implements solve.Sources.
func (f *files) Load(_ context.Context, op *pb.SourceOp, _ *pb.Platform) (*layer.State, error) {
	if strings.HasPrefix(op.Identifier, "docker-image://") {
		return f.base, nil
	}
	if st, ok := f.contexts[strings.TrimPrefix(op.Identifier, "local://")]; ok {
		return st, nil
	}
	return nil, fmt.Errorf("no source %s", op.Identifier)
}

// site is a local root.
type site struct {
	t       testing.TB
	kit     *kit
	dir     string
	layers  *snapshot.Store
	records *record.Store
	blobs   *content.Store
}

func openSite(t testing.TB, k *kit, dir string) *site {
	t.Helper()
	s := &site{t: t, kit: k, dir: dir}
	must(t, os.MkdirAll(dir, 0o711))
	var err error
	s.layers, err = snapshot.Open(dir, snapshot.Options{Warn: func(msg string) { t.Log(msg) }})
	must(t, err)
	s.records, err = record.Open(dir)
	must(t, err)
	s.blobs, err = content.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	return s
}

func (s *site) close() {
	s.t.Helper()
	if err := s.layers.Close(); err != nil {
		s.t.Errorf("close %s: %v", s.dir, err)
	}
	if err := s.blobs.Close(); err != nil {
		s.t.Errorf("close %s: %v", s.dir, err)
	}
}

// outcome is what a build came to.
type outcome struct {
	err    error
	failed *step              // the one that failed
	end    *tree.Node         // merged; nil where the build failed
	runs   map[string]*runEnd // by the names of the steps; those that the build came to
}

// runEnd is what became of a RUN.
type runEnd struct {
	ran    bool
	said   string // what the command wrote, where it ran
	top    *tree.Node
	merged *tree.Node
	how    report.How
	seen   string // what it, or who made what it was spared by, looked at
}

// build builds a version of a scenario, with the Solver, the Runner and the stores of a real build.
func (s *site) build(sc *scenario, src *files) *outcome {
	t := s.t
	t.Helper()
	stream := progress.NewStream()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range stream.Events() {
		}
	}()
	session := cache.Open(t.Context(), cache.Config{
		Records: s.records, Layers: s.layers, Blobs: s.blobs, Warn: func(msg string) { t.Error("cache: " + msg) },
	})
	out := &outcome{runs: map[string]*runEnd{}}
	x := &executor{probe: s.kit.probe, said: map[string]string{}}
	runner := runstep.New(s.layers, cachemount.Open(filepath.Join(s.dir, "cachemounts")), runstep.Options{Execute: x.run})
	solver := solve.New(t.Context(), solve.Options{
		Sources: src, Files: &fileop.Applier{Temp: s.dir}, Runner: runner, Layers: session, Records: session, Progress: stream,
	})
	defer func() {
		solver.Close()
		must(t, runner.Close())
		session.Close()
		stream.Close()
		<-drained
	}()
	defer func() {
		for _, st := range solver.Steps() {
			if end := out.runs[st.Name]; end != nil {
				end.how, end.seen = st.How, seen(st)
			}
		}
	}()
	targets, err := sc.targets(t.Context())
	must(t, err)
	for _, want := range targets {
		st := want.step
		state, err := solver.Evaluate(t.Context(), want.def)
		if st.kind == "run" {
			said, ran := x.result(st.name)
			out.runs[st.name] = &runEnd{ran: ran, said: said}
		}
		if err != nil {
			out.err, out.failed = err, st
			return out
		}
		merged, err := state.Merged(t.Context())
		must(t, err)
		switch st.kind {
		case "end":
			out.end = merged
		case "run":
			end := out.runs[st.name]
			end.merged = merged
			end.top, err = state.Top().Tree(t.Context())
			must(t, err)
		}
	}
	return out
}

// seen lists what a step looked at.
func seen(st report.Step) string {
	var b strings.Builder
	for _, in := range st.Inputs {
		for n, g := range in.Groups {
			for _, l := range g.Seen {
				fmt.Fprintf(&b, "\n    %s, group %d: %q %b", in.Place, n, l.Path, l.Kind)
			}
		}
	}
	return b.String()
}
