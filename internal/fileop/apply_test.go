package fileop

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/solver/pb"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// TestDestination is what a COPY's layer takes from where it lands (DESIGN section 3).
func TestDestination(t *testing.T) {
	w := newWorld(t)
	ctx := w.fs("/tool 755 run", "/dir/x 644 one")
	t.Run("through a link", func(t *testing.T) {
		base := w.fs("/bin -> usr/bin", "/usr/bin/sh 755 sh")
		res := w.apply(copyOp("/tool", "/bin/"), base, ctx)
		top, _ := res.Outputs[0].Layers[0].Tree(context.Background())
		if n, _ := top.Lookup("bin"); n != nil {
			t.Errorf("the layer has a bin of its own, %v: it would hide the link", n.Kind)
		}
		if w.at(res.Outputs[0].State, "/bin/sh") == nil || w.says(res, "/usr/bin/tool") != "run" {
			t.Error("bin lost something")
		}
	})
	t.Run("modes of parents", func(t *testing.T) {
		base := w.fs("/tmp/ 1777", "/root/ 700")
		res := w.apply(copyOp("/tool", "/tmp/new/tool"), base, ctx)
		st := res.Outputs[0].State
		if got := w.at(st, "/tmp").Mode; got != 0o1777 {
			t.Errorf("/tmp is %o now", got)
		}
		if got := w.at(st, "/tmp/new").Mode; got != 0o755 {
			t.Errorf("/tmp/new is %o", got)
		}
		top, _ := res.Outputs[0].Layers[0].Tree(context.Background())
		if n, _ := top.Lookup("root"); n != nil {
			t.Error("the layer holds a directory that was not touched")
		}
	})
	t.Run("a file onto a directory", func(t *testing.T) {
		base := w.fs("/app/old 644 x")
		res := w.apply(copyOp("/tool", "/app"), base, ctx)
		if w.says(res, "/app/tool") != "run" || w.at(res.Outputs[0].State, "/app/old") == nil {
			t.Error("the file did not go into the directory")
		}
	})
	t.Run("a directory onto a file", func(t *testing.T) {
		base := w.fs("/app 644 x")
		_, err := Apply(context.Background(), copyOp("/dir", "/app"), []*layer.State{base, ctx})
		if err == nil || !strings.Contains(err.Error(), "cannot copy to non-directory: /app") {
			t.Error(err)
		}
		replace := func(c *pb.FileActionCopy) { c.AlwaysReplaceExistingDestPaths = true }
		if got := w.says(w.apply(copyOp("/dir", "/app", replace), base, ctx), "/app/x"); got != "one" {
			t.Errorf("/app/x says %q", got)
		}
	})
	t.Run("owner by name", func(t *testing.T) {
		chown := func(c *pb.FileActionCopy) {
			c.Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "app", Input: 0}}}}
		}
		var keys []key.Digest
		for _, id := range []string{"7", "8"} {
			res := w.apply(copyOp("/tool", "/", chown), w.fs("/etc/passwd 644 app:x:"+id+":"+id+"::/:/"), ctx)
			if n := w.at(res.Outputs[0].State, "/tool"); fmt.Sprint(n.UID, n.GID) != id+" "+id {
				t.Errorf("owner %d:%d, want %s", n.UID, n.GID, id)
			}
			keys = append(keys, res.Content)
		}
		if keys[0] == keys[1] {
			t.Error("two bases that number the name differently share a key")
		}
	})
}

// TestContentKey says what enters the key of a copy and what does not.
func TestContentKey(t *testing.T) {
	w := newWorld(t)
	src := w.fs("/a/x 644 one", "/other 644 two")
	base := w.fs("/app/old 644 x", "/lib/y 644 y")
	op := copyOp("/a", "/app/")
	want := w.apply(op, base, src).Content
	for _, c := range []struct {
		name      string
		op        *pb.FileOp
		base, src *layer.State
		same      bool
	}{
		{"the same", op, base, src, true},
		{"another file of the context", op, base, w.fs("/a/x 644 one", "/other 644 three"), true},
		{"another file of the base", op, w.fs("/app/old 644 zzz", "/lib/y 755 y", "/new/ 755"), src, true},
		{"the copied file", op, base, w.fs("/a/x 644 two"), false},
		{"the copied file's mode", op, base, w.fs("/a/x 755 one"), false},
		{"a file more", op, base, w.fs("/a/x 644 one", "/a/z 644 one"), false},
		{"the target's mode", op, w.fs("/app/ 700"), src, false},
		{"something in the way", op, w.fs("/app/x 644 x"), src, false},
		{"no target", op, w.fs("/lib/y 644 y"), src, false},
		{"a link as the target", op, w.fs("/app -> lib", "/lib/y 644 y"), src, false},
		{"another target", copyOp("/a", "/app2/"), base, src, false},
		{"another place of the source", copyOp("/b/a", "/app/"), base, w.fs("/b/a/x 644 one"), true},
	} {
		if got := w.apply(c.op, c.base, c.src).Content == want; got != c.same {
			t.Errorf("%s: same key is %v, want %v", c.name, got, c.same)
		}
	}
	a, err := SourceKey(context.Background(), op, []*layer.State{base, src})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := SourceKey(context.Background(), op, []*layer.State{nil, src}); err != nil || a != b {
		t.Error("a source key looked at the base", err)
	}
}

func TestFilteredKey(t *testing.T) {
	w := newWorld(t)
	only := func(c *pb.FileActionCopy) { c.IncludePatterns = []string{"**/*.txt"} }
	op := copyOp("/", "/app/", only)
	a := w.apply(op, w.fs(), w.fs("/d/a.txt 644 one", "/d/b.go 644 x"))
	b := w.apply(op, w.fs(), w.fs("/d/a.txt 644 one", "/d/b.go 644 y", "/e/c.go 644 z"))
	if a.Content != b.Content {
		t.Error("a file that no pattern includes enters the key")
	}
	if w.at(b.Outputs[0].State, "/app/e") != nil || w.at(b.Outputs[0].State, "/app/d/b.go") != nil {
		t.Error("a file that no pattern includes was copied")
	}
}

func TestReplay(t *testing.T) {
	w := newWorld(t)
	base := w.fs("/app/old 644 x", "/app/sub/ 700", "/bin -> usr/bin", "/usr/bin/ 755")
	op := copyOp("/", "/app/")
	res := w.apply(op, base, w.fs("/sub/x 644 one", "/n 644 n"))
	b, err := res.Resolution.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var known Resolution
	if err := known.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if known.Digest() != res.Resolution.Digest() {
		t.Fatal("another resolution after storing it")
	}
	// The base is gone: only its identity is known.
	gone := layer.Stack(layer.Lazy(key.Bytes(nil), true, nil, func(context.Context) (*tree.Node, error) {
		return nil, errors.New("the base was looked at")
	}))
	src := w.fs("/sub/x 644 changed", "/n 644 n")
	again, err := (&Applier{}).Replay(context.Background(), op, []*layer.State{gone, src}, &known)
	if err != nil {
		t.Fatal(err)
	}
	if want := w.apply(op, base, src); again.Content != want.Content || again.Outputs[0].Layers[0].Identity != want.Outputs[0].Layers[0].Identity {
		t.Error("a replay made something else")
	}
	_, err = (&Applier{}).Replay(context.Background(), op, []*layer.State{gone, w.fs("/new 644 n")}, &known)
	if !errors.Is(err, ErrUnresolved) {
		t.Errorf("a name that was never looked up: %v", err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if err := new(Resolution).UnmarshalBinary(bad); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

func TestMissing(t *testing.T) {
	w := newWorld(t)
	inputs := []*layer.State{w.fs("/f 644 x"), w.fs("/a/b 644 x", "/out -> ../../etc/passwd", "/loop -> loop")}
	for _, c := range []struct {
		op   *pb.FileOp
		text string
	}{
		{copyOp("/nope", "/"), `"/nope": not found`},
		{copyOp("a/nope/deep", "/"), `"/a/nope/deep": not found`},
		{copyOp("/a/b/c", "/"), `"/a/b/c": not found`},
		{copyOp("/out", "/"), `"/out": not found`},
		{copyOp("/*.go", "/", func(c *pb.FileActionCopy) { c.AllowEmptyWildcard = false }), `/*.go not found`},
		{&pb.FileOp{Actions: []*pb.FileAction{{SecondaryInput: -1, Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/gone"}}}}}, `"/gone": not found`},
	} {
		_, err := Apply(context.Background(), c.op, inputs)
		if err == nil || !strings.Contains(err.Error(), c.text) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", describe(c.op), err)
		}
	}
	if _, err := Apply(context.Background(), copyOp("/loop", "/"), inputs); err == nil || !strings.Contains(err.Error(), "/loop") {
		t.Error(err)
	}
}

func TestRequiredPaths(t *testing.T) {
	w := newWorld(t)
	inputs := []*layer.State{w.fs(), w.fs("/a/b/c.txt 644 x")}
	parents := func(required string) *pb.FileOp {
		return copyOp("/", "/", func(c *pb.FileActionCopy) {
			c.IncludePatterns, c.RequiredPaths = []string{"a/b/*.txt", "a/n/*.txt"}, []string{required}
		})
	}
	w.apply(parents("/a/b"), inputs...)
	if _, err := Apply(context.Background(), parents("/a/n"), inputs); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestBadGraphs(t *testing.T) {
	mk := func(in, second, out int64) *pb.FileAction {
		return &pb.FileAction{Input: in, SecondaryInput: second, Output: out, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/d"}}}
	}
	for _, c := range []struct {
		text    string
		actions []*pb.FileAction
	}{
		{"no actions", nil},
		{"is empty", []*pb.FileAction{nil}},
		{"is empty", []*pb.FileAction{{}}},
		{"invalid input index 9", []*pb.FileAction{mk(9, -1, 0)}},
		{"invalid secondary input index -2", []*pb.FileAction{mk(0, -2, 0)}},
		{"duplicate output 0", []*pb.FileAction{mk(0, -1, 0), mk(0, -1, 0)}},
		{"no outputs", []*pb.FileAction{mk(0, -1, -1)}},
		{"missing output index 0", []*pb.FileAction{mk(0, -1, 1)}},
		{"loop", []*pb.FileAction{mk(2, -1, -1), mk(1, -1, 0)}},
		{"loop", []*pb.FileAction{mk(1, -1, 0)}},
	} {
		_, err := Apply(context.Background(), &pb.FileOp{Actions: c.actions}, []*layer.State{nil})
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("want %q, got %v", c.text, err)
		}
	}
}

// TestBranches has one action written over by two others, and read.
func TestBranches(t *testing.T) {
	w := newWorld(t)
	file := func(in, out int64, name string) *pb.FileAction {
		return &pb.FileAction{Input: in, SecondaryInput: -1, Output: out, Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: name, Mode: 0o600, Data: []byte(name), Timestamp: -1}}}
	}
	op := &pb.FileOp{Actions: []*pb.FileAction{file(0, 2, "/a"), file(1, 0, "/b"), file(1, 1, "/c")}}
	res := w.apply(op, w.fs("/base 644 x"))
	for i, want := range []string{"/a /b /base", "/a /base /c", "/a /base"} {
		root, err := res.Outputs[i].State.Merged(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		entries, _ := root.Entries()
		for _, e := range entries {
			got = append(got, "/"+e.Name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("output %d has %s, want %s", i, s, want)
		}
	}
}

func TestArchives(t *testing.T) {
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, h := range []*tar.Header{
		{Name: "d/f", Mode: 0o640, Uid: 5, Gid: 6, Size: 2, ModTime: time.Unix(100, 0)},
		{Name: "../../up", Mode: 0o600, Size: 2},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "old", Mode: 0o600},
	} {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			tw.Write([]byte("hi"))
		}
	}
	tw.Close()
	w := newWorld(t)
	add := func(c *pb.FileActionCopy) { c.AttemptUnpackDockerCompatibility = true }
	for name, pack := range map[string]func(t *testing.T) []byte{
		"plain": func(*testing.T) []byte { return plain.Bytes() },
		"gzip":  func(t *testing.T) []byte { return filterThrough(t, plain.Bytes(), "gzip") },
		"bzip2": func(t *testing.T) []byte { return filterThrough(t, plain.Bytes(), "bzip2") },
		"xz":    func(t *testing.T) []byte { return filterThrough(t, plain.Bytes(), "xz") },
		"zstd": func(t *testing.T) []byte {
			e, _ := zstd.NewWriter(nil)
			return e.EncodeAll(plain.Bytes(), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t, w.contents}
			b := pack(t)
			w.contents[key.Bytes(b)] = b
			src := w.fs()
			src = src.Push(layer.New(key.Bytes(b), false, mustDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: "x.tar", Node: &tree.Node{
				Kind: tree.File, Meta: tree.Meta{Mode: 0o644}, Size: int64(len(b)), Content: key.Bytes(b)}}), layer.Literal(w.contents)))
			res := w.apply(copyOp("/x.tar", "/to/", add), w.fs("/to/old 644 of the base"), src)
			st := res.Outputs[0].State
			if n := w.at(st, "/to/d/f"); n == nil || n.Mode != 0o640 || n.UID != 5 || n.GID != 6 || n.MTime != 100e9 {
				t.Fatalf("%+v", n)
			}
			if w.says(res, "/to/d/f") != "hi" || w.says(res, "/to/up") != "hi" || w.at(st, "/up") != nil || w.at(st, "/to/x.tar") != nil {
				t.Error("not unpacked where it should be")
			}
			if a, b := w.at(st, "/to/hard"), w.at(st, "/to/old"); a.Group == 0 || a.Group != b.Group || w.says(res, "/to/hard") != "of the base" {
				t.Error("a hard link to a file of the base is none")
			}
		})
	}
	t.Run("no archive", func(t *testing.T) {
		w := &world{t, w.contents}
		if got := w.says(w.apply(copyOp("/x", "/", add), w.fs(), w.fs("/x 644 text")), "/x"); got != "text" {
			t.Error(got)
		}
	})
}

func filterThrough(t *testing.T, b []byte, program string) []byte {
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s", program)
	}
	cmd := exec.Command(program, "-c")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEditedArchiveIsNoticed(t *testing.T) {
	w := newWorld(t)
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	tw.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir})
	tw.Close()
	b := buf.Bytes()
	d := key.Bytes([]byte("what it was"))
	src := layer.Stack(layer.New(d, false, mustDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: "x.tar", Node: &tree.Node{
		Kind: tree.File, Size: int64(len(b)), Content: d}}), layer.Literal(map[key.Digest][]byte{d: b})))
	_, err := Apply(context.Background(), copyOp("/x.tar", "/", func(c *pb.FileActionCopy) { c.AttemptUnpackDockerCompatibility = true }), []*layer.State{w.fs(), src})
	var changed *layer.ChangedError
	if !errors.As(err, &changed) {
		t.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	chown := func(c *pb.FileActionCopy) { c.Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: 3}}} }
	if _, err := Apply(ctx, copyOp("/", "/x/", chown), []*layer.State{w.fs(), w.fs("/d/f 644 x")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
