package automount

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
)

// registry has every image, with the variables of the one that it is named like.
type registry struct{}

func (registry) ResolveImageConfig(_ context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	name := strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/library/"), "docker.io/")
	name, _, _ = strings.Cut(name, ":")
	env := slices.Clone(images[name])
	if len(env) == 0 {
		env = slices.Clone(images[""])
	}
	p := ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		p = *opt.ImageOpt.Platform
	}
	config, err := json.Marshal(ocispecs.Image{
		Platform: p, Config: ocispecs.ImageConfig{Env: env}, RootFS: ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString(name)}},
	})
	return ref, digest.FromString(ref), config, err
}

// compile makes LLB of a Dockerfile, as the frontend does.
func compile(t testing.TB, dockerfile, namespace, arch string) *pb.Definition {
	t.Helper()
	caps := pb.Caps.CapSet(pb.Caps.All())
	st := llb.Local("context", llb.LocalUniqueID("one")) // the client would make one up
	src := llb.NewSourceMap(&st, "Dockerfile", "Dockerfile", []byte(dockerfile))
	opt := dockerfile2llb.ConvertOpt{
		MetaResolver: registry{}, LLBCaps: &caps, TargetPlatform: &ocispecs.Platform{OS: "linux", Architecture: arch}, SourceMap: src, MainContext: &st,
	}
	opt.CacheIDNamespace = namespace
	res, err := dockerfile2llb.Dockerfile2LLB(t.Context(), []byte(dockerfile), opt)
	if err != nil {
		t.Fatalf("%v in\n%s", err, dockerfile)
	}
	def, err := res.State.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

// serving is the config of an image that runs nothing of what the tests' Dockerfiles say.
const serving = `{"config": {"Entrypoint": ["nginx"]}}`

// plain are the options of a build whose sources have nothing anywhere.
func plain(namespace, config string) Options {
	return Options{Namespace: namespace, Config: []byte(config), Occupied: func(context.Context, *pb.Definition, string) (bool, error) { return false, nil }}
}

// attach attaches, and checks what holds of every definition: the given one stays, and a second time changes nothing.
func attach(t testing.TB, def *pb.Definition, namespace string) (*pb.Definition, []Attached) {
	t.Helper()
	return attachWith(t, def, plain(namespace, serving))
}

func attachWith(t testing.TB, def *pb.Definition, opt Options) (*pb.Definition, []Attached) {
	t.Helper()
	before := def.CloneVT()
	out, notes, err := Attach(t.Context(), def, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, def) {
		t.Error("the given definition was changed")
	}
	again, second, err := Attach(t.Context(), out, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(again, out) {
		t.Error("attaching twice changes more")
	}
	have := map[string]*pb.Op{}
	for i, op := range decoded(t, out) {
		for _, in := range op.Inputs {
			if have[in.Digest] == nil {
				t.Errorf("input %s stands behind its user, or nowhere", in.Digest)
			}
		}
		have[string(digest.FromBytes(out.Def[i]))] = op
	}
	for _, a := range second {
		if len(a.Mounts) > 0 {
			t.Errorf("attached again: %v", a.Mounts)
		}
	}
	for _, a := range notes {
		if have[string(a.Vertex)].GetExec() == nil {
			t.Errorf("%s is no exec op of the new definition", a.Vertex)
		}
	}
	for d := range out.Source.GetLocations() {
		if have[d] == nil {
			t.Errorf("a location of %s, which is not there", d)
		}
	}
	return out, notes
}

// mounted lists what was attached to each exec op: its command's first words, then mounts.
func mounted(t testing.TB, dockerfile string) ([]string, []Attached) {
	t.Helper()
	return mountedWith(t, dockerfile, plain("", serving))
}

func mountedWith(t testing.TB, dockerfile string, opt Options) ([]string, []Attached) {
	t.Helper()
	def, notes := attachWith(t, compile(t, dockerfile, "", "amd64"), opt)
	var out []string
	for _, op := range decoded(t, def) {
		for _, m := range op.GetExec().GetMounts() {
			if m.MountType == pb.MountType_CACHE {
				args := op.GetExec().Meta.Args
				out = append(out, args[len(args)-1]+": "+m.Dest)
			}
		}
	}
	slices.Sort(out)
	return out, notes
}

// same compares definitions: operations, what they need, where they come from; not the words that describe them.
func same(t *testing.T, got, want *pb.Definition) {
	t.Helper()
	g, w := ops(t, got), ops(t, want)
	for d := range w {
		if g[d] == "" {
			t.Errorf("missing %s", w[d])
		}
	}
	for d := range g {
		if w[d] == "" {
			t.Errorf("too many: %s", g[d])
		}
	}
	if string(got.Def[len(got.Def)-1]) != string(want.Def[len(want.Def)-1]) {
		t.Error("the outputs are different")
	}
	for d, m := range want.Metadata {
		if o := got.Metadata[d]; o == nil || !maps.Equal(o.Caps, m.Caps) || (o.ProgressGroup == nil) != (m.ProgressGroup == nil) || o.IgnoreCache != m.IgnoreCache {
			t.Errorf("metadata of %s:\n got  %v\n want %v", w[d], o, m)
		}
	}
	if len(got.Metadata) != len(want.Metadata) {
		t.Errorf("%d pieces of metadata, want %d", len(got.Metadata), len(want.Metadata))
	}
	for d, l := range want.Source.Locations {
		if len(l.Locations) > 0 && !proto.Equal(got.Source.Locations[d], l) {
			t.Errorf("locations of %s: got %v, want %v", w[d], got.Source.Locations[d], l)
		}
	}
}

// ops gives the operations of a definition as text, by digest.
func ops(t testing.TB, def *pb.Definition) map[string]string {
	out := map[string]string{}
	for i, op := range decoded(t, def) {
		out[string(digest.FromBytes(def.Def[i]))] = op.String()
	}
	if len(out) != len(def.Def) {
		t.Error("a vertex is there twice")
	}
	return out
}

func decoded(t testing.TB, def *pb.Definition) []*pb.Op {
	var out []*pb.Op
	for _, raw := range def.Def {
		op := new(pb.Op)
		if err := op.UnmarshalVT(raw); err != nil {
			t.Fatal(err)
		}
		out = append(out, op)
	}
	return out
}
