package main

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
)

// layersOf applies layers in order and returns the tree as its listing of names, or the first error.
func layersOf(t *testing.T, layers ...*tarLayer) (*node, error) {
	t.Helper()
	root := newRoot()
	for i, l := range layers {
		data, err := l.bytes()
		if err != nil {
			t.Fatal(err)
		}
		if err := applyLayer(root, i, tar.NewReader(bytes.NewReader(data))); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func names(root *node) string {
	var list []string
	walk("", root, func(name string, _ *node) { list = append(list, name) })
	return strings.Join(list[1:], " ")
}

func TestApplyLayers(t *testing.T) {
	lower := func() *tarLayer {
		return newTarLayer().dir("d", 0o755).file("d/f", 0o644, "f").dir("d/e", 0o755).file("d/e/g", 0o644, "g")
	}
	hard := tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "d/f"}
	for _, c := range []struct {
		name  string
		upper *tarLayer
		want  string
	}{
		{"whiteout", newTarLayer().dir("d", 0o755).file("d/.wh.e", 0, ""), "/d /d/f"},
		{"whiteout of what is not there", newTarLayer().file(".wh.x", 0, ""), "/d /d/e /d/e/g /d/f"},
		{"opaque before its entries", newTarLayer().dir("d", 0o755).file("d/"+opaqueMarker, 0, "").file("d/n", 0o644, ""), "/d /d/n"},
		{"opaque after its entries", newTarLayer().dir("d", 0o755).dir("d/e", 0o755).file("d/"+opaqueMarker, 0, ""), "/d /d/e"},
		{"file for a directory", newTarLayer().file("d", 0o644, ""), "/d"},
		{"directory for a file", newTarLayer().dir("d", 0o755).dir("d/f", 0o755).file("d/f/x", 0o644, ""), "/d /d/e /d/e/g /d/f /d/f/x"},
		{"parents implied", newTarLayer().file("d/n/m/f", 0o644, ""), "/d /d/e /d/e/g /d/f /d/n /d/n/m /d/n/m/f"},
		{"hard link to a lower file", newTarLayer().add(hard, ""), "/d /d/e /d/e/g /d/f /h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, err := layersOf(t, lower(), c.upper)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(root); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// An entry whose place depends on who unpacks it is an error, not a guess.
func TestApplyRefuses(t *testing.T) {
	for name, l := range map[string]*tarLayer{
		"parent is a link":              newTarLayer().dir("d", 0o755).link("l", "d").file("l/x", 0o644, ""),
		"hard link to nothing":          newTarLayer().add(tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "x"}, ""),
		"hides an entry of its own":     newTarLayer().file("f", 0o644, "").file(".wh.f", 0, ""),
		"entry of an unknown kind":      newTarLayer().add(tar.Header{Typeflag: '9', Name: "f"}, ""),
		"hard link to a directory":      newTarLayer().dir("d", 0o755).add(tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "d"}, ""),
		"hard link through a lower one": newTarLayer().add(tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../etc"}, ""),
	} {
		if _, err := layersOf(t, l); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func differences(want, got *image) []string {
	c := comparison{want: "BuildKit", got: "larder"}
	c.images([]*image{want}, []*image{got})
	return c.diffs
}

// Every property that the comparison promises must be seen when it alone differs.
func TestCompareSeesEachProperty(t *testing.T) {
	file := tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644}
	base := func(h tar.Header, content string) *tarLayer {
		return newTarLayer().add(h, content).file("g", 0o644, "g").link("l", "f").
			add(tar.Header{Typeflag: tar.TypeChar, Name: "n", Mode: 0o600, Devmajor: 1, Devminor: 3}, "")
	}
	linked := file
	linked.Typeflag, linked.Name, linked.Linkname = tar.TypeLink, "h", "f"
	other := func(change func(*tar.Header)) tar.Header {
		h := file
		change(&h)
		return h
	}
	for name, c := range map[string]struct {
		a, b *tarLayer
		want string
	}{
		"same":     {base(file, "x"), base(file, "x"), ""},
		"mode":     {base(file, "x"), base(other(func(h *tar.Header) { h.Mode = 0o4644 }), "x"), `"/f" mode: BuildKit 0644, larder 4644`},
		"owner":    {base(file, "x"), base(other(func(h *tar.Header) { h.Gid = 5 }), "x"), `"/f" owner: BuildKit 0:0, larder 0:5`},
		"content":  {base(file, "x"), base(file, "y"), `"/f" content`},
		"type":     {base(file, ""), base(other(func(h *tar.Header) { h.Typeflag = tar.TypeFifo }), ""), `"/f" type: BuildKit file, larder fifo`},
		"missing":  {base(file, "x").file("z", 0o644, ""), base(file, "x"), `"/z": BuildKit has a file, larder has none`},
		"too much": {base(file, "x"), base(file, "x").dir("z", 0o755), `"/z": BuildKit has none, larder has a dir`},
		"xattr": {base(file, "x"), base(other(func(h *tar.Header) { h.PAXRecords = map[string]string{paxXattr + "user.a": ""} }), "x"),
			`"/f" xattrs: BuildKit null, larder {"user.a":""}`},
		"target": {base(file, "x").link("m", "a"), base(file, "x").link("m", "b"), `"/m" link target: BuildKit a, larder b`},
		"device": {base(file, "x").add(tar.Header{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 1, Devminor: 1}, ""),
			base(file, "x").add(tar.Header{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 1, Devminor: 2}, ""), `"/b" device: BuildKit 1:1, larder 1:2`},
		"hard links": {base(file, "x").add(linked, ""), base(file, "x").file("h", 0o644, "x"), `"/f" hard links: BuildKit /f /h, larder none`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := layersOf(t, c.a)
			if err != nil {
				t.Fatal(err)
			}
			b, err := layersOf(t, c.b)
			if err != nil {
				t.Fatal(err)
			}
			diffs := differences(&image{root: a}, &image{root: b})
			switch {
			case c.want == "" && len(diffs) > 0:
				t.Errorf("differences: %q", diffs)
			case c.want != "" && (len(diffs) == 0 || !strings.HasPrefix(diffs[0], c.want)):
				t.Errorf("got %q, want %q first", diffs, c.want)
			}
		})
	}
}

func TestCompareConfig(t *testing.T) {
	config := func(change func(map[string]any)) *image {
		c := map[string]any{
			"created": "now", "os": "linux", "config": map[string]any{"Env": []any{"A=1"}},
			"rootfs":  map[string]any{"type": "layers", "diff_ids": []any{"sha256:1"}},
			"history": []any{map[string]any{"created": "then", "created_by": "RUN x"}},
		}
		change(c)
		return &image{root: newRoot(), config: c}
	}
	want := config(func(map[string]any) {})
	for name, c := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"times": {func(c map[string]any) {
			c["created"] = "later"
			c["history"] = []any{map[string]any{"created_by": "RUN x"}}
			c["rootfs"] = map[string]any{"type": "layers", "diff_ids": []any{"sha256:2"}}
		}, ""},
		"layers":  {func(c map[string]any) { c["rootfs"] = map[string]any{"type": "layers", "diff_ids": []any{}} }, "config.rootfs.diff_ids: BuildKit 1, larder 0"},
		"env":     {func(c map[string]any) { c["config"] = map[string]any{"Env": []any{"A=2"}} }, `config.config.Env[0]: BuildKit "A=1", larder "A=2"`},
		"missing": {func(c map[string]any) { delete(c, "os") }, `config.os: BuildKit "linux", larder has none`},
		"more":    {func(c map[string]any) { c["variant"] = "v8" }, `config.variant: BuildKit has none, larder "v8"`},
		"history": {func(c map[string]any) { c["history"] = []any{} }, "config.history: BuildKit [{"},
	} {
		diffs := differences(want, config(c.change))
		if c.want == "" && len(diffs) > 0 || c.want != "" && (len(diffs) != 1 || !strings.HasPrefix(diffs[0], c.want)) {
			t.Errorf("%s: got %q, want %q", name, diffs, c.want)
		}
	}
}
