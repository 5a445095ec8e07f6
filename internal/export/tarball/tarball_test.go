package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

func part(t *testing.T, dir, text string) Part {
	d := key.Bytes([]byte(text))
	file := &tree.Node{Kind: tree.File, Meta: tree.Meta{Mode: 0o600, MTime: 2e18}, Size: int64(len(text)), Content: d}
	root, err := tree.NewDir(tree.Meta{Mode: 0o755}, false, []tree.Entry{{Name: "file", Node: file}})
	if err != nil {
		t.Fatal(err)
	}
	return Part{Dir: dir, Root: root, Src: layer.Literal(map[key.Digest][]byte{d: []byte(text)})}
}

func TestWrite(t *testing.T) {
	epoch := time.Unix(1e9, 0)
	for want, parts := range map[string][]Part{
		"file=a": {part(t, "", "a")},
		"linux_amd64/ linux_amd64/file=a linux_arm64/ linux_arm64/file=b": {part(t, "linux_arm64", "b"), part(t, "linux_amd64", "a")},
	} {
		var buf bytes.Buffer
		if err := Write(context.Background(), &buf, parts, &epoch); err != nil {
			t.Fatal(err)
		}
		var got []string
		for tr := tar.NewReader(&buf); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(tr)
			if h.Typeflag == tar.TypeReg {
				h.Name += "=" + string(b)
			}
			if h.ModTime.After(epoch) {
				t.Error(h.Name, h.ModTime)
			}
			got = append(got, h.Name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s, want %s", s, want)
		}
	}
	if err := Write(context.Background(), io.Discard, []Part{part(t, "", "a"), part(t, "", "b")}, nil); err == nil {
		t.Error("platforms wrote over each other")
	}
}
