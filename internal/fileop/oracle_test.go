package fileop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// The oracle is BuildKit's own file operation, run on overlay mounts. Its cache manager and worker are reduced to what
// it asks of them here.

// oracle makes snapshots below dir.
type oracle struct {
	cache.Manager // panics on what is not needed
	dir           string
}

// snap is a snapshot: directories, the lowest first.
type snap struct {
	cache.ImmutableRef
	id   string
	dirs []string
}

func (s *snap) ID() string                                   { return s.id }
func (s *snap) Clone() cache.ImmutableRef                    { return s }
func (s *snap) Release(context.Context) error                { return nil }
func (s *snap) Extract(context.Context, session.Group) error { return nil }
func (s *snap) Mount(_ context.Context, _ bool, _ session.Group) (snapshot.Mountable, error) {
	return overlay(s.dirs, "", ""), nil
}

// active is a snapshot that is written to.
type active struct {
	cache.MutableRef
	below       []string
	upper, work string
}

func (a *active) Release(context.Context) error { return nil }
func (a *active) SetCachePolicyDefault() error  { return nil }
func (a *active) Commit(context.Context) (cache.ImmutableRef, error) {
	return &snap{id: identity.NewID(), dirs: append(append([]string{}, a.below...), a.upper)}, nil
}

func (a *active) Mount(_ context.Context, _ bool, _ session.Group) (snapshot.Mountable, error) {
	return overlay(a.below, a.upper, a.work), nil
}

func (o *oracle) New(_ context.Context, parent cache.ImmutableRef, _ session.Group, _ ...cache.RefOption) (cache.MutableRef, error) {
	dir, err := os.MkdirTemp(o.dir, "s")
	if err != nil {
		return nil, err
	}
	a := &active{upper: filepath.Join(dir, "u"), work: filepath.Join(dir, "w")}
	if s, ok := parent.(*snap); ok && s != nil {
		a.below = s.dirs
	}
	if err := os.Mkdir(a.upper, 0o755); err != nil {
		return nil, err
	}
	if n := len(a.below); n > 0 { // a snapshotter gives an upper its parent's root metadata
		if err := likeRoot(a.below[n-1], a.upper); err != nil {
			return nil, err
		}
	}
	return a, os.Mkdir(a.work, 0o755)
}

func likeRoot(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Mtim, st.Mtim}, 0)
}

type mountable []mount.Mount

func (m mountable) Mount() ([]mount.Mount, func() error, error) {
	return m, func() error { return nil }, nil
}
func (m mountable) IdentityMapping() *user.IdentityMapping { return nil }

func overlay(below []string, upper, work string) snapshot.Mountable {
	if len(below) == 0 {
		return mountable{{Type: "bind", Source: upper, Options: []string{"rbind", "rw"}}}
	}
	if len(below) == 1 && upper == "" {
		return mountable{{Type: "bind", Source: below[0], Options: []string{"rbind", "ro"}}}
	}
	top := make([]string, len(below))
	for i, d := range below {
		top[len(below)-1-i] = d
	}
	opts := []string{"index=off", "redirect_dir=off", "metacopy=off", "lowerdir=" + strings.Join(top, ":")}
	if upper != "" {
		opts = append(opts, "upperdir="+upper, "workdir="+work)
	}
	return mountable{{Type: "overlay", Source: "overlay", Options: opts}}
}

// worker, vertex and job are what an operation is handed around with.
type fakeWorker struct{ worker.Worker }

func (fakeWorker) ID() string { return "w" }

type vertex struct {
	solver.Vertex
	inputs int
}

func (vertex) Name() string            { return "op" }
func (v vertex) Inputs() []solver.Edge { return make([]solver.Edge, v.inputs) }

type job struct{ solver.JobContext }

func (job) Session() session.Group { return nil }

// solve runs an operation on directories and gives each output's directories, the lowest first.
func (o *oracle) solve(ctx context.Context, op *pb.FileOp, inputs []string) ([][]string, error) {
	f, err := ops.NewFileOp(vertex{inputs: len(inputs)}, &pb.Op_File{File: op}, o, nil, fakeWorker{})
	if err != nil {
		return nil, err
	}
	var in []solver.Result
	for _, dir := range inputs {
		in = append(in, worker.NewWorkerRefResult(&snap{id: dir, dirs: []string{dir}}, fakeWorker{}))
	}
	res, err := f.Exec(ctx, job{}, in)
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, r := range res {
		ref, ok := r.Sys().(*worker.WorkerRef).ImmutableRef.(*snap)
		if !ok {
			return nil, fmt.Errorf("%T", r.Sys())
		}
		out = append(out, ref.dirs)
	}
	return out, nil
}

// mounted shows directories as one file system while fn runs.
func mounted(t testing.TB, dirs []string, fn func(dir string)) {
	t.Helper()
	lm := snapshot.LocalMounter(overlay(dirs, "", ""))
	dir, err := lm.Mount()
	if err != nil {
		t.Fatal(err)
	}
	defer lm.Unmount()
	fn(dir)
}
