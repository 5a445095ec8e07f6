package build

import (
	"errors"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/proto"

	"larder/internal/solve"
)

func cached(dest, id string) llb.RunOption {
	return llb.AddMount(dest, llb.Scratch(), llb.AsPersistentCacheDir(id, llb.CacheMountShared))
}

func definition(t *testing.T, s llb.State) *pb.Definition {
	t.Helper()
	def, err := s.Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	return def.ToPB()
}

func listed(t *testing.T, def *pb.Definition) string {
	t.Helper()
	found, err := declaredCaches(def)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range found {
		out = append(out, d.mount.Dest+"="+d.mount.CacheOpt.ID)
		if d.platform.GetArchitecture() != "amd64" {
			t.Errorf("%s is of %v", d.mount.Dest, d.platform)
		}
	}
	return strings.Join(out, " ")
}

func TestDeclaredCaches(t *testing.T) {
	base := llb.Image("base")
	below := base.Run(llb.Shlex("x"), cached("/a", "low"), cached("/b", "b"), llb.Dir("/in/here"), cached("rel", "rel")).Root()
	other := base.Run(llb.Shlex("other"), cached("/other", "other")).Root()
	copied := below.File(llb.Mkdir("/d", 0o755).Copy(other, "/x", "/y").Mkfile("/f", 0o644, nil).Copy(other, "/z", "/z"))
	linked := llb.Merge([]llb.State{copied, llb.Scratch().File(llb.Copy(other, "/l", "/l"))})
	run := linked.Run(llb.Shlex("z"), cached("/a", "high"), llb.AddMount("/src", other))
	want := "/a=high /in/here/rel=rel /b=b"
	for name, s := range map[string]llb.State{"a RUN": run.Root(), "files upon it": run.Root().File(llb.Mkdir("/q", 0o755))} {
		if got := listed(t, definition(t, s)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, s := range map[string]llb.State{"an image": base, "files of another stage": llb.Scratch().File(llb.Copy(other, "/x", "/"))} {
		if got := listed(t, definition(t, s)); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if found, err := declaredCaches(nil); err != nil || found != nil {
		t.Errorf("scratch: %v, %v", found, err)
	}
}

// TestDeclaredCachesInput: what a mount is filled with is a definition of its own.
func TestDeclaredCachesInput(t *testing.T) {
	full := llb.Scratch().File(llb.Mkdir("/cache", 0o700, llb.WithUIDGID(7, 8)))
	mount := llb.AddMount("/c", full, llb.AsPersistentCacheDir("c", llb.CacheMountLocked), llb.SourcePath("/cache"))
	found, err := declaredCaches(definition(t, llb.Image("base").Run(llb.Shlex("x"), mount).Root()))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	in := found[0].input
	last := new(pb.Op)
	if err := proto.Unmarshal(in.Def[len(in.Def)-1], last); err != nil {
		t.Fatal(err)
	}
	want := definition(t, full)
	wanted := new(pb.Op)
	if err := proto.Unmarshal(want.Def[len(want.Def)-1], wanted); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(last.Inputs[0], wanted.Inputs[0]) || last.Op != nil {
		t.Errorf("the input is %v, want %v", last, wanted)
	}
}

// TestDeclaredCachesDamaged: what is no definition is an error, not a panic.
func TestDeclaredCachesDamaged(t *testing.T) {
	whole := definition(t, llb.Image("base").Run(llb.Shlex("x"), cached("/c", "c")).Root().File(llb.Mkdir("/d", 0o755)))
	for n := range whole.Def {
		def := &pb.Definition{}
		for i, op := range whole.Def {
			if i != n {
				def.Def = append(def.Def, op)
			}
		}
		if _, err := declaredCaches(def); n < len(whole.Def)-1 && !errors.Is(err, solve.ErrDefinition) {
			t.Errorf("without operation %d: %v", n, err)
		}
	}
	if _, err := declaredCaches(&pb.Definition{Def: [][]byte{[]byte("no operation")}}); !errors.Is(err, solve.ErrDefinition) {
		t.Errorf("got %v", err)
	}
}
