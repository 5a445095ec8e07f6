package runstep

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
)

// everything runs a step with several kinds of mounts in a place.
func (p *place) everything() {
	p.t.Helper()
	base := p.busybox()
	res := p.mustRun(op("cat /m/part/passwd /m/secret; echo x >> /m/cache/x; echo x > /x; rm -r /usr/old; ls /m/all",
		&pb.Mount{Dest: "/m/part", Input: 0, Selector: "/etc", Readonly: true, Output: -1},
		&pb.Mount{Dest: "/m/all", Input: 0, Output: -1},
		&pb.Mount{Dest: "/m/cache", Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "c"}},
		&pb.Mount{Dest: "/m/secret", Input: -1, Output: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token"}},
		&pb.Mount{Dest: "/m/mem", Input: -1, Output: -1, MountType: pb.MountType_TMPFS}), base)
	if !strings.HasPrefix(p.out.String(), "root:x:0:0") || !strings.Contains(p.out.String(), "s3cret") {
		p.t.Errorf("got %q", &p.out)
	}
	p.mustRun(op("cat /x; test ! -e /usr/old"), res.Outputs[0].State)
	if p.out.String() != "x\n" {
		p.t.Errorf("got %q", &p.out)
	}
}

// TestOddRoots runs steps on root paths that mount options and other formats could stumble over.
func TestOddRoots(t *testing.T) {
	for _, rt := range []string{"runc", "crun"} {
		for _, name := range []string{"a:b,c=d", `back\slash "quoted" {brace} %s`, "ümläut ☃", strings.Repeat("long", 50)} {
			t.Run(rt+" "+name, func(t *testing.T) {
				openPlace(t, filepath.Join(t.TempDir(), name), Options{Runtime: rt}).everything()
			})
		}
	}
}

// TestInContainer has its root on an overlay, as in a container without volumes.
func TestInContainer(t *testing.T) {
	newPlace(t, Options{}) // or skip
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "container"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", dir+"/container", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir+"/container", unix.MNT_DETACH) })
	p := openPlaceOnly(t, dir+"/container/root", Options{})
	defer os.RemoveAll(p.store.Base())
	t.Log("layers are in", p.store.Base())
	p.everything()
	if err := p.runner.Close(); err != nil {
		t.Error(err)
	}
	if err := p.store.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, p.store.Base())
}

// TestManyLayers runs a step on an image of 127 layers.
func TestManyLayers(t *testing.T) {
	for _, rt := range []string{"runc", "crun"} {
		p := newPlace(t, Options{Runtime: rt})
		st := p.busybox()
		for i := range 126 {
			st = st.Push(p.imageLayer(file{name: fmt.Sprintf("n/%d", i), body: fmt.Sprint(i), mode: 0o644}, file{name: "last", body: fmt.Sprint(i), mode: 0o644}))
		}
		res := p.mustRun(op("ls /n | wc -l; cat /last; rm /n/0"), st)
		if p.out.String() != "126\n125" {
			t.Errorf("%s: got %q", rt, &p.out)
		}
		if got := listing(t, res.Outputs[0].Layers[0]); !strings.Contains(got, "n/0 0 0:0 whiteout") {
			t.Errorf("%s: got %s", rt, got)
		}
	}
}
