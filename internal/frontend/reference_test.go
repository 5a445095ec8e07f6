package frontend

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
)

// looked gives a reference to the bench's context.
func (b *bench) looked() gwclient.Reference {
	b.t.Helper()
	def, err := LocalInput(b.t.Context(), "context")
	if err != nil {
		b.t.Fatal(err)
	}
	req := b.request(nil)
	res, err := (&gateway{req: &req}).Solve(b.t.Context(), gwclient.SolveRequest{Definition: def, Evaluate: true})
	if err != nil {
		b.t.Fatal(err)
	}
	return res.Ref
}

func TestReferenceReads(t *testing.T) {
	b := newBench(t, map[string]string{"a.txt": "0123456789", "d/b.txt": "", "d/c.md": "", "e/f/g.txt": ""})
	for name, target := range map[string]string{"l": "d/../a.txt", "up": "../../../a.txt", "loop": "loop", "dir": "/d"} {
		if err := os.Symlink(target, filepath.Join(b.locals["context"], name)); err != nil {
			t.Fatal(err)
		}
	}
	ref := b.looked()
	for _, c := range []struct {
		name string
		part *gwclient.FileRange
		want string
	}{
		{"a.txt", nil, "0123456789"},
		{"/a.txt", &gwclient.FileRange{Offset: 3, Length: 4}, "3456"},
		{"l", &gwclient.FileRange{Offset: 8, Length: 100}, "89"},
		{"up", &gwclient.FileRange{Offset: 100, Length: 1}, ""},
		{"dir/b.txt", nil, ""},
	} {
		got, err := ref.ReadFile(t.Context(), gwclient.ReadRequest{Filename: c.name, Range: c.part})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q %v", c.name, got, err)
		}
	}
	if _, err := ref.ReadFile(t.Context(), gwclient.ReadRequest{Filename: "none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, name := range []string{"d", "loop", "a.txt/b", ""} {
		if _, err := ref.ReadFile(t.Context(), gwclient.ReadRequest{Filename: name}); err == nil {
			t.Errorf("%q can be read", name)
		}
	}
	if _, err := ref.ReadFile(t.Context(), gwclient.ReadRequest{Filename: "a.txt", Range: &gwclient.FileRange{Offset: -1}}); err == nil {
		t.Error("a negative offset is taken")
	}
	st, err := ref.StatFile(t.Context(), gwclient.StatRequest{Path: "up"})
	if err != nil || st.Path != "a.txt" || st.Size != 10 || fs.FileMode(st.Mode) != 0o644 {
		t.Errorf("%v %v", st, err)
	}
	for _, c := range []struct{ dir, pattern, want string }{
		{"/", "", "a.txt d dir e l loop up"},
		{"dir", "", "b.txt c.md"},
		{"", "*.txt", "a.txt"},
		{"", "*/*.md", "d"},
		{"e", "f/g.txt", "f"},
	} {
		list, err := ref.ReadDir(t.Context(), gwclient.ReadDirRequest{Path: c.dir, IncludePattern: c.pattern})
		var names []string
		for _, st := range list {
			names = append(names, st.Path)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s %s: %s %v", c.dir, c.pattern, got, err)
		}
	}
	if _, err := ref.ReadDir(t.Context(), gwclient.ReadDirRequest{Path: "a.txt"}); err == nil {
		t.Error("a file is listed")
	}
	st2, err := ref.ToState()
	if err != nil {
		t.Fatal(err)
	}
	if def, err := st2.Marshal(t.Context()); err != nil || len(def.Def) != 2 {
		t.Errorf("%v", err)
	}
}

func TestReadFileNoticesAnEdit(t *testing.T) {
	b := newBench(t, map[string]string{"a": "old"})
	ref := b.looked()
	if err := os.WriteFile(filepath.Join(b.locals["context"], "a"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ref.ReadFile(t.Context(), gwclient.ReadRequest{Filename: "a"}); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Error(err)
	}
}

func TestNamedContexts(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "FROM base\nCOPY --from=other a /\nCOPY --from=in a /\n"})
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, ".dockerignore"), []byte("*.log\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.locals["other"] = other
	in, err := LocalInput(t.Context(), "in")
	if err != nil {
		t.Fatal(err)
	}
	req := b.request(map[string]string{
		"context:base": "docker-image://busybox", "context:other": "local:other", "context:in": "input:in",
	})
	req.Inputs = map[string]*pb.Definition{"in": in}
	res, err := Build(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(lines(t, res.Outputs[0].Def), "\n")
	for _, want := range []string{"docker-image://docker.io/library/busybox:latest", "local://other", "local://in"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if !slices.ContainsFunc(res.Outputs[0].Def.Def, func(op []byte) bool { return bytes.Contains(op, []byte(`["*.log"]`)) }) {
		t.Error(".dockerignore of a named context is not used")
	}
}

func TestContextFromAnArchive(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"})
	def, err := ArchiveInput(t.Context(), "stdin", "context")
	if err != nil {
		t.Fatal(err)
	}
	req := b.request(nil)
	req.Inputs = map[string]*pb.Definition{"context": def}
	res, err := Build(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines(t, res.Outputs[0].Def), "\n"); got != "file copy / /\nfile copy /context /\noutput\nsource local://stdin" {
		t.Error(got)
	}
}

func TestIsArchive(t *testing.T) {
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "a", Mode: 0o644}), tw.Close()); err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(&packed)
	zw.Write(plain.Bytes())
	zw.Close()
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"tar":        {plain.Bytes()[:ArchiveHeader], true},
		"gzip":       {packed.Bytes(), true},
		"zstd":       {[]byte("\x28\xb5\x2f\xfd...."), true},
		"dockerfile": {[]byte("FROM scratch\n"), false},
		"empty":      {nil, false},
		"zeros":      {make([]byte, 100), false},
	} {
		if IsArchive(c.data) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	llbCaps, gwCaps := LLBCaps(), gatewayCaps()
	for _, id := range []apicaps.CapID{
		pb.CapMergeOp, pb.CapDiffOp, pb.CapExecMountCacheSharing, pb.CapFileSymlinkCreate, pb.CapExecMetaUlimit, pb.CapExecMetaCDI,
		pb.CapSourceLocalFollowPaths,
	} {
		if err := llbCaps.Supports(id); err != nil {
			t.Errorf("%s is refused: %v", id, err)
		}
	}
	err := llbCaps.Supports(pb.CapSourceMetadataTransfer)
	if err == nil || !strings.Contains(err.Error(), notNeeded) {
		t.Error(err)
	}
	if gwCaps.Supports(gwpb.CapGatewayExec) == nil || gwCaps.Supports(gwpb.CapFrontendInputs) != nil {
		t.Error("gateway capabilities")
	}
	for id := range refusedLLB {
		if !llbCaps.Contains(id) {
			t.Errorf("%s does not exist", id)
		}
	}
	for id := range refusedGateway {
		if !gwCaps.Contains(id) {
			t.Errorf("%s does not exist", id)
		}
	}
}

func TestWhatAFrontendMayNotAsk(t *testing.T) {
	req := newBench(t, nil).request(nil)
	c := &gateway{req: &req}
	if _, err := c.Solve(t.Context(), gwclient.SolveRequest{Frontend: "gateway.v0"}); err == nil {
		t.Error("another frontend is served")
	}
	if _, err := c.NewContainer(t.Context(), gwclient.NewContainerRequest{}); err == nil {
		t.Error("a container is served")
	}
	if _, err := c.Solve(t.Context(), gwclient.SolveRequest{CacheImports: []gwclient.CacheOptionsEntry{{Type: "registry"}}}); err == nil {
		t.Error("a cache is imported")
	}
	if res, err := c.Solve(t.Context(), gwclient.SolveRequest{}); err != nil || res.Ref != nil {
		t.Errorf("scratch: %v %v", res, err)
	}
	for _, opts := range []map[string]string{{"attest:sbom": "generator=x"}, {"cache-from": "x"}, {"frontend.caps": "moby.buildkit.frontend.unknown"}} {
		b := newBench(t, map[string]string{"Dockerfile": "FROM scratch\n"})
		if _, err := b.build(opts); err == nil {
			t.Errorf("%v passes", opts)
		}
	}
}

func TestImagesAreResolvedOnce(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "FROM busybox AS a\nFROM busybox AS b\nRUN x\nFROM busybox:latest\nCOPY --from=a /x /\nCOPY --from=b /x /\nCOPY --from=busybox /y /\n"})
	if _, err := b.build(nil); err != nil {
		t.Fatal(err)
	}
	if len(b.resolved) != 1 {
		t.Errorf("%q", b.resolved)
	}
}

func TestIsDockerfile(t *testing.T) {
	for image, want := range map[string]bool{
		"docker/dockerfile": true, "docker/dockerfile:1": true, "docker/dockerfile:1.4-labs": true, "docker/dockerfile:latest": true,
		"docker/dockerfile-upstream:master": true, "docker.io/docker/dockerfile:0.6": true, "mirror.example:5000/hub/docker/dockerfile:1.7": true,
		"docker/dockerfile:1@sha256:" + strings.Repeat("a", 64): true,
		"docker/dockerfile:2": false, "docker/dockerfile:v3.1": false, "other/dockerfile:1": false, "dockerfile": false, "UP:1": false, "": false,
	} {
		if isDockerfile(image) != want {
			t.Errorf("%s: %v", image, !want)
		}
	}
}
