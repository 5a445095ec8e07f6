package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/layer"
	contextsrc "larder/internal/source/context"
)

// bench is a fake of what is below the frontend: a solver that knows local sources only, and a registry that has
// every image.
type bench struct {
	t      testing.TB
	locals map[string]string

	mu       sync.Mutex
	scans    []contextsrc.Options
	resolved []string
	warnings []string
	notices  []string
}

func (b *bench) Evaluate(ctx context.Context, def *pb.Definition) (*layer.State, error) {
	list, err := Vertices(def)
	if err != nil {
		return nil, err
	}
	if len(list) != 2 {
		return nil, errors.New("the frontend evaluates more than a source")
	}
	op := list[0].Op.GetSource()
	name, ok := strings.CutPrefix(op.GetIdentifier(), "local://")
	if !ok {
		return nil, errors.New("no local source: " + op.GetIdentifier())
	}
	opt, err := contextsrc.Parse(op.Attrs)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.scans = append(b.scans, opt)
	b.mu.Unlock()
	dir, ok := b.locals[name]
	if !ok {
		return nil, errors.New("no local directory " + name)
	}
	l, _, err := contextsrc.Scan(ctx, dir, opt)
	if err != nil {
		return nil, err
	}
	return layer.Stack(l), nil
}

func (b *bench) ResolveSourceMetadata(_ context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resolved = append(b.resolved, op.Identifier)
	if strings.Contains(op.Identifier, "missing") {
		return nil, errors.New("no such image")
	}
	p := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		p = *opt.ImageOpt.Platform
	}
	config, err := json.Marshal(ocispecs.Image{
		Platform: p,
		RootFS:   ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("layer")}},
		Config:   ocispecs.ImageConfig{Env: []string{"PATH=/bin", "FROM=" + op.Identifier}, WorkingDir: "/base"},
	})
	return &sourceresolver.MetaResponse{
		Op:    op,
		Image: &sourceresolver.ResolveImageResponse{Digest: digest.FromString(op.Identifier), Config: config},
	}, err
}

// newBench makes a context directory of files.
func newBench(t testing.TB, files map[string]string) *bench {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return &bench{t: t, locals: map[string]string{"context": dir, "dockerfile": dir}}
}

func (b *bench) request(opts map[string]string) Request {
	return Request{
		Opts: opts, Solver: b, Resolver: b,
		Warn: func(w *bkclient.VertexWarning) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.warnings = append(b.warnings, string(w.Short))
		},
		Notice: func(msg string) { b.notices = append(b.notices, msg) },
	}
}

func (b *bench) build(opts map[string]string) (*Result, error) {
	return Build(b.t.Context(), b.request(opts))
}

// lines gives a definition's operations in short.
func lines(t testing.TB, def *pb.Definition) []string {
	t.Helper()
	list, err := Vertices(def)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	slices.Sort(out)
	return out
}

const multiStage = `
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache go mod download
COPY . .
RUN go build -o /out/app .

FROM golang:1.26 AS unused
RUN touch /never

FROM scratch
COPY --from=build --link /out/app /app
ENV A=b
ENTRYPOINT ["/app"]
`

func TestBuildMultiStage(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": multiStage, ".dockerignore": "*.md\n", "go.mod": "", "go.sum": ""})
	res, err := b.build(map[string]string{"platform": "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Outputs) != 1 || res.Multi {
		t.Fatalf("%+v", res)
	}
	out := res.Outputs[0]
	got := strings.Join(lines(t, out.Def), "\n")
	want := strings.Join([]string{
		"exec /bin/sh -c go build -o /out/app .",
		"exec /bin/sh -c go mod download",
		"file copy / /src/",
		"file copy /go.mod /src/, copy /go.sum /src/",
		"file copy /out/app /app",
		"file mkdir /src",
		"output",
		"source docker-image://docker.io/library/golang:1.26@" + digest.FromString("docker-image://docker.io/library/golang:1.26").String(),
		"source local://context",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var img ocispecs.Image
	if err := json.Unmarshal(out.Config, &img); err != nil {
		t.Fatal(err)
	}
	if img.Architecture != "amd64" || !slices.Equal(img.Config.Entrypoint, []string{"/app"}) || !slices.Contains(img.Config.Env, "A=b") {
		t.Errorf("%s", out.Config)
	}
	if len(b.resolved) != 1 {
		t.Errorf("resolved %q", b.resolved)
	}
	for _, v := range out.Def.Def {
		op := new(pb.Op)
		if err := op.UnmarshalVT(v); err != nil {
			t.Fatal(err)
		}
		if src := op.GetSource(); src != nil && src.Identifier == "local://context" && !strings.Contains(src.Attrs[pb.AttrExcludePatterns], "*.md") {
			t.Errorf("%v", src.Attrs)
		}
	}
}

func TestBuildForSeveralPlatforms(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "FROM busybox\nRUN true\n"})
	res, err := b.build(map[string]string{"platform": "linux/arm64,linux/amd64", "build-arg:SOURCE_DATE_EPOCH": "1700000000"})
	if err != nil {
		t.Fatal(err)
	}
	if !res.Multi || len(res.Outputs) != 2 || res.Outputs[0].ID != "linux/arm64" || res.Outputs[1].ID != "linux/amd64" {
		t.Fatalf("%+v", res)
	}
	for _, o := range res.Outputs {
		if !strings.Contains(string(o.Config), `"architecture":"`+o.Platform.Architecture+`"`) || o.BaseConfig == nil {
			t.Errorf("%s: %s", o.ID, o.Config)
		}
		if o.Epoch == nil || o.Epoch.Unix() != 1700000000 {
			t.Errorf("%s: epoch %v", o.ID, o.Epoch)
		}
	}
}

func TestBuildScratch(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "FROM scratch\nLABEL a=b\n"})
	res, err := b.build(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Outputs) != 1 || res.Outputs[0].Def != nil {
		t.Fatalf("%+v", res)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct {
		name, dockerfile string
		message          string
		start, end       int
	}{
		{"unknown instruction", "FROM scratch\nCOPPY a b\n", "unknown instruction: COPPY (did you mean COPY?)", 2, 2},
		{"unknown stage", "FROM scratch\n\nCOPY --from=missing a b\n", "no such image", 3, 3},
		{"unknown image", "FROM missing:1\nRUN \\\n true\n", "no such image", 1, 1},
		{"bad flag", "FROM scratch\nRUN --mont=x \\\n  a\n", "unknown flag: --mont", 2, 3},
		{"other frontend", "# syntax=example.com/own:1\nFROM scratch\n", "the frontend image example.com/own:1 cannot be run", 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, map[string]string{"Dockerfile": c.dockerfile})
			_, err := b.build(nil)
			if err == nil {
				t.Fatal("no error")
			}
			f := Describe(err)
			if !strings.Contains(f.Message, c.message) {
				t.Errorf("message %s", f.Message)
			}
			if len(f.Places) != 1 || f.Places[0].File != "Dockerfile" || f.Places[0].Start != c.start || f.Places[0].End != c.end {
				t.Fatalf("%s: %+v", f.Message, f.Places)
			}
			var text strings.Builder
			if err := f.Places[0].Print(&text); err != nil {
				t.Fatal(err)
			}
			if marker := fmt.Sprintf("%4d | >>> ", c.start); !strings.Contains(text.String(), marker) {
				t.Errorf("no %q in %s", marker, text.String())
			}
		})
	}
}

func TestMissingDockerfile(t *testing.T) {
	_, err := newBench(t, map[string]string{"a": ""}).build(nil)
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "name the Dockerfile with -f") {
		t.Fatal(err)
	}
}

func TestSyntaxLineIsServed(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "# syntax=docker/dockerfile:1.7-labs\nFROM scratch\nCOPY <<EOF /a\nhi\nEOF\n"})
	res, err := b.build(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Outputs) != 1 || len(b.notices) != 1 || !strings.Contains(b.notices[0], "docker/dockerfile:1.7-labs") {
		t.Fatalf("%+v %q", res, b.notices)
	}
}

func TestWarningsAndSubrequests(t *testing.T) {
	b := newBench(t, map[string]string{"Dockerfile": "FROM scratch AS a\nENV k v\nCOPY a /\nFROM a\n"})
	if _, err := b.build(nil); err != nil {
		t.Fatal(err)
	}
	if len(b.warnings) == 0 || !strings.Contains(strings.Join(b.warnings, " "), "LegacyKeyValueFormat") {
		t.Errorf("%q", b.warnings)
	}
	for call, want := range map[string]string{
		"frontend.lint":                 "LegacyKeyValueFormat",
		"frontend.outline":              "",
		"frontend.targets":              "a",
		"frontend.subrequests.describe": "List all targets",
	} {
		res, err := b.build(map[string]string{"requestid": call, "frontend.caps": "moby.buildkit.frontend.subrequests"})
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		if len(res.Outputs) != 0 || !strings.Contains(string(res.Metadata["result.txt"]), want) || len(res.Metadata["result.json"]) == 0 {
			t.Errorf("%s: %s", call, res.Metadata["result.txt"])
		}
	}
	if _, err := b.build(map[string]string{"requestid": "frontend.unknown"}); err == nil {
		t.Error("an unknown subrequest passes")
	}
}

func BenchmarkBuild(b *testing.B) {
	w := newBench(b, map[string]string{"Dockerfile": multiStage, ".dockerignore": "*.md\n", "go.mod": "", "go.sum": ""})
	for b.Loop() {
		if _, err := w.build(map[string]string{"platform": "linux/amd64"}); err != nil {
			b.Fatal(err)
		}
	}
}
