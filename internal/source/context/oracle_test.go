package context

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"larder/internal/tree"
)

// pipe is a stream between fsutil's sender and receiver in one process.
type pipe struct {
	ctx context.Context
	in  <-chan *types.Packet
	out chan<- *types.Packet
}

func (p pipe) Context() context.Context { return p.ctx }

func (p pipe) RecvMsg(m any) error {
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case got, ok := <-p.in:
		if !ok {
			return io.EOF
		}
		data, err := got.MarshalVT()
		if err != nil {
			return err
		}
		return m.(*types.Packet).UnmarshalVT(data)
	}
}

func (p pipe) SendMsg(m any) error {
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case p.out <- m.(*types.Packet).CloneVT():
		return nil
	}
}

// opener lists one file system and opens the files of another. fsutil's filter decides anew when a file is opened, by another
// function than when it walked, and refuses some that it has listed: their copies are empty. That we do not imitate.
type opener struct {
	fsutil.FS
	files fsutil.FS
}

func (o opener) Open(name string) (io.ReadCloser, error) { return o.files.Open(name) }

// transfer copies a context as BuildKit does: a client that resets owners and filters sends, the daemon receives.
func transfer(ctx context.Context, from, to string, opt Options) error {
	src, err := fsutil.NewFS(from)
	if err != nil {
		return err
	}
	src, err = fsutil.NewFilterFS(src, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		st.Uid, st.Gid = 0, 0
		return fsutil.MapResultKeep
	}})
	if err != nil {
		return err
	}
	plain := src
	src, err = fsutil.NewFilterFS(src, &fsutil.FilterOpt{
		IncludePatterns: opt.Include, ExcludePatterns: opt.Exclude, FollowPaths: opt.FollowPaths,
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	there, back := make(chan *types.Packet, 64), make(chan *types.Packet, 64)
	group.Go(func() error {
		defer close(there)
		return fsutil.Send(ctx, pipe{ctx, back, there}, opener{src, plain}, nil)
	})
	group.Go(func() error {
		defer close(back)
		return fsutil.Receive(ctx, pipe{ctx, there, back}, to, fsutil.ReceiveOpt{})
	})
	return group.Wait()
}

// describe lists a tree with everything that a layer keeps. Hard links show the first of their names.
func describe(root *tree.Node) (string, error) {
	var b strings.Builder
	first := map[uint64]string{}
	err := tree.Walk(root, func(path string, n *tree.Node) error {
		if path == "" {
			return nil
		}
		fmt.Fprintf(&b, "%q kind=%d mode=%o own=%d:%d size=%d rdev=%d link=%q %s", path, n.Kind, n.Mode, n.UID, n.GID, n.Size, n.Rdev, n.Link, n.Content.Hex()[:8])
		if n.Kind != tree.Dir { // a receiver's directories get their times later, and not all of them
			fmt.Fprintf(&b, " mtime=%d", n.MTime)
		}
		for _, x := range n.Xattrs {
			fmt.Fprintf(&b, " %s=%q", x.Name, x.Value)
		}
		if n.Group != 0 {
			if first[n.Group] == "" {
				first[n.Group] = path
			} else {
				fmt.Fprintf(&b, " same as %q", first[n.Group])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	return b.String(), err
}

var (
	names    = []string{"a", "b", "src", "lib", "a.go", "b.md", "x.log", "node_modules", ".git", "é", "sp ace", "we[ird", "back\\s"}
	segments = append([]string{"*", "**", "?", "*.go", "*.md", "**.log", "[ab]", "a*", "*b*", "s?c", "n*s", `we\[ird`, "^a", "*[!a]", "..", "."}, names...)
)

// paths of up to three segments, plus what decorates patterns in real files.
func genPattern(exceptions bool) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		from := segments
		if !exceptions { // of links to follow: fsutil lets ".." leave the context, we do not
			from = slices.DeleteFunc(slices.Clone(segments), func(s string) bool { return s == ".." })
		}
		p := strings.Join(rapid.SliceOfN(rapid.SampledFrom(from), 1, 3).Draw(t, "segments"), "/")
		p = rapid.SampledFrom([]string{"", "", "", "/", "./", " "}).Draw(t, "before") + p
		p += rapid.SampledFrom([]string{"", "", "", "/", "/**", "/*", " "}).Draw(t, "after")
		if exceptions && rapid.IntRange(0, 2).Draw(t, "exception") == 0 {
			p = "!" + p
		}
		return p
	})
}

// populate makes a random directory.
func populate(t *rapid.T, dir string, root bool) {
	dirs, files := []string{""}, []string{}
	for i := range rapid.IntRange(0, 14).Draw(t, "entries") {
		path := filepath.Join(rapid.SampledFrom(dirs).Draw(t, "in"), rapid.SampledFrom(names).Draw(t, "name"))
		full := filepath.Join(dir, path)
		if _, err := os.Lstat(full); err == nil {
			continue
		}
		var err error
		switch kind := rapid.IntRange(0, 13).Draw(t, "kind"); {
		case kind < 5:
			err = os.Mkdir(full, 0o755)
			dirs = append(dirs, path)
		case kind == 5 && len(files) > 0:
			err = os.Link(filepath.Join(dir, rapid.SampledFrom(files).Draw(t, "other name of")), full)
		case kind == 6 || kind == 7:
			up := strings.Repeat("../", rapid.IntRange(0, 3).Draw(t, "up"))
			abs := rapid.SampledFrom([]string{"", "", "/"}).Draw(t, "absolute")
			err = os.Symlink(abs+up+strings.Join(rapid.SliceOfN(rapid.SampledFrom(names), 1, 2).Draw(t, "target"), "/"), full)
		case kind == 8:
			err = unix.Mkfifo(full, 0o640)
		case kind == 9 && root:
			err = unix.Mknod(full, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(i))))
		case kind == 10:
			var l net.Listener
			if len(full) < 100 {
				if l, err = net.Listen("unix", full); err == nil {
					l.(*net.UnixListener).SetUnlinkOnClose(false)
					l.Close()
				}
			}
		default:
			mode := rapid.SampledFrom([]fs.FileMode{0o644, 0o755, 0o600, 0o755 | fs.ModeSetuid, 0o777 | fs.ModeSticky}).Draw(t, "mode")
			body := bytes.Repeat([]byte{byte('a' + i)}, rapid.SampledFrom([]int{0, 1, 10, 100_000}).Draw(t, "size"))
			if err = os.WriteFile(full, body, 0o600); err == nil {
				err = os.Chmod(full, mode)
			}
			if err == nil && rapid.IntRange(0, 3).Draw(t, "xattr") == 0 {
				err = unix.Setxattr(full, "user.larder", []byte{byte(i)}, 0)
			}
			files = append(files, path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestScanAgreesWithFsutil scans random directories through random filters, cold and warm, and compares with what
// BuildKit's own transfer puts on disk for them.
func TestScanAgreesWithFsutil(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("setting owners needs root")
	}
	top := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		dir, to := filepath.Join(top, fmt.Sprint("from", run)), filepath.Join(top, fmt.Sprint("to", run))
		for _, d := range []string{dir, to} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(d)
		}
		populate(t, dir, true)
		opt := Options{
			Include: rapid.SliceOfN(genPattern(true), 0, rapid.SampledFrom([]int{0, 0, 3}).Draw(t, "includes")).Draw(t, "include"),
			Exclude: rapid.SliceOfN(genPattern(true), 0, rapid.SampledFrom([]int{0, 2, 5}).Draw(t, "excludes")).Draw(t, "exclude"),
		}
		if rapid.IntRange(0, 1).Draw(t, "follow") == 0 {
			opt.FollowPaths = rapid.SliceOfN(genPattern(false), 0, 3).Draw(t, "followpaths")
		}
		wantErr := transfer(context.Background(), dir, to, opt)
		opt.Cache = &StatCache{filepath.Join(top, fmt.Sprint("cache", run)), inAMinute}
		defer os.RemoveAll(opt.Cache.dir)
		for _, pass := range []string{"cold", "warm"} {
			l, _, err := Scan(context.Background(), dir, opt)
			if (err != nil) != (wantErr != nil) {
				t.Fatalf("%s: error %v, fsutil's %v", pass, err, wantErr)
			}
			if err != nil {
				return
			}
			wantLayer, _, err := Scan(context.Background(), to, Options{KeepOwner: true})
			if err != nil {
				t.Fatal(err)
			}
			var text [2]string
			for i, l := range []interface {
				Tree(context.Context) (*tree.Node, error)
			}{l, wantLayer} {
				root, err := l.Tree(context.Background())
				if err == nil {
					text[i], err = describe(root)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if text[0] != text[1] {
				t.Fatalf("%s scan has\n%s\nfsutil has\n%s", pass, text[0], text[1])
			}
		}
	})
}
