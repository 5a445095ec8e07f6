package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

var (
	amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	day   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// stack makes a state of n layers that all differ.
func stack(n int) *layer.State {
	var s *layer.State
	for i := range n {
		s = s.Push(layer.New(key.Bytes([]byte{byte(i)}), true, tree.Empty(), nil))
	}
	return s
}

func blobOf(_ context.Context, l *layer.Layer) (*layer.Blob, error) {
	return &layer.Blob{
		Desc: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromString("blob " + l.Identity.String()), Size: 7,
			Annotations: map[string]string{"containerd.io/uncompressed": "x", "toc": "y"}},
		DiffID: digest.FromString("tar " + l.Identity.String()),
	}, nil
}

func made(minutes ...int) func(*layer.Layer) Made {
	return func(l *layer.Layer) Made {
		for i, m := range minutes {
			if l.Identity == key.Bytes([]byte{byte(i)}) {
				return Made{At: day.Add(time.Duration(m) * time.Minute), By: fmt.Sprintf("step %d", i)}
			}
		}
		return Made{}
	}
}

func assemble(t *testing.T, opt Options, parts ...Part) *Image {
	t.Helper()
	if opt.Blob == nil {
		opt.Blob = blobOf
	}
	img, err := Assemble(context.Background(), parts, opt)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func minute(h ocispecs.History) string {
	if h.Created == nil {
		return "-"
	}
	return fmt.Sprint(int(h.Created.Sub(day).Minutes()))
}

func TestHistory(t *testing.T) {
	at := func(m int) string {
		return fmt.Sprintf(`"created":%q,`, day.Add(time.Duration(m)*time.Minute).Format(time.RFC3339))
	}
	for name, tc := range map[string]struct {
		history string
		layers  []int // minutes at which they were made
		epoch   int   // minute, 0 for none
		base    string
		times   string
		empty   string
		created string
	}{
		"as the frontend leaves it": {
			// two entries of the base with times, then ENV, COPY, CMD
			history: `[{` + at(-100) + `"created_by":"base"},{` + at(-99) + `"empty_layer":true},{"empty_layer":true},{"created_by":"COPY"},{"empty_layer":true}]`,
			layers:  []int{-5, 10}, times: "-100 -99 10 10 10", empty: "01101", created: "10",
		},
		"only metadata":     {history: `[{` + at(-100) + `"created_by":"base"},{"empty_layer":true}]`, layers: []int{-5}, times: "-100 -100", empty: "01", created: "-100"},
		"entries missing":   {history: `[{"created_by":"a"}]`, layers: []int{1, 2, 3}, times: "1 2 3", empty: "000", created: "3"},
		"entries too many":  {history: `[{"created_by":"a"},{"created_by":"b"}]`, layers: []int{1}, times: "1 1", empty: "01", created: "1"},
		"none":              {history: `[]`, layers: nil, times: "", empty: "", created: "-"},
		"epoch":             {history: `[{"created_by":"a"},{"created_by":"b"}]`, layers: []int{1, 20}, epoch: 5, times: "1 5", empty: "00", created: "5"},
		"epoch, older base": {history: `[{` + at(30) + `"created_by":"base"},{"created_by":"b"}]`, layers: []int{1, 20}, epoch: 5, base: `[{` + at(30) + `"created_by":"base"}]`, times: "30 5", empty: "00", created: "5"},
	} {
		t.Run(name, func(t *testing.T) {
			opt := Options{Made: made(tc.layers...)}
			if tc.epoch != 0 {
				e := day.Add(time.Duration(tc.epoch) * time.Minute)
				opt.Epoch = &e
			}
			part := Part{Platform: amd64, Config: []byte(`{"os":"linux","architecture":"amd64","history":` + tc.history + `}`), State: stack(len(tc.layers))}
			if tc.base != "" {
				part.Base = []byte(`{"history":` + tc.base + `}`)
			}
			img := assemble(t, opt, part)
			var got struct {
				Created *time.Time
				History []ocispecs.History
				RootFS  ocispecs.RootFS
			}
			if err := json.Unmarshal(img.Manifests[0].Config, &got); err != nil {
				t.Fatal(err)
			}
			var times []string
			empty := ""
			for _, h := range got.History {
				times = append(times, minute(h))
				empty += map[bool]string{false: "0", true: "1"}[h.EmptyLayer]
			}
			created := minute(ocispecs.History{Created: got.Created})
			if s := strings.Join(times, " "); s != tc.times || empty != tc.empty || created != tc.created {
				t.Errorf("times %q, empty %q, created %s\n%s", s, empty, created, img.Manifests[0].Config)
			}
			if len(got.RootFS.DiffIDs) != len(tc.layers) {
				t.Error(got.RootFS)
			}
		})
	}
}

func TestConfigKeepsWhatNobodyKnows(t *testing.T) {
	img := assemble(t, Options{}, Part{Platform: amd64, Config: []byte(`{"architecture":"amd64","os":"linux","config":{"Healthcheck":{"Test":["x"]}},"x-new":[1,{"a":2}]}`)})
	want := `{"architecture":"amd64","config":{"Healthcheck":{"Test":["x"]}},"created":null,"history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null},"x-new":[1,{"a":2}]}`
	if got := string(img.Manifests[0].Config); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, bad := range []string{`null`, `[]`, `{`, `{"os":"linux"}`, `{"os":"linux","architecture":"amd64","created":5}`} {
		epoch := day
		if _, err := Assemble(context.Background(), []Part{{Platform: amd64, Config: []byte(bad)}}, Options{Blob: blobOf, Epoch: &epoch}); err == nil {
			t.Error(bad)
		}
	}
}

func TestManifest(t *testing.T) {
	part := Part{Platform: amd64, State: stack(2)}
	img := assemble(t, Options{Parallel: 4}, part)
	m := img.Manifests[0]
	var doc ocispecs.Manifest
	if err := json.Unmarshal(m.Bytes, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.MediaType != ocispecs.MediaTypeImageManifest || doc.Config.Digest != digest.FromBytes(m.Config) || len(doc.Layers) != 2 ||
		doc.Layers[0].Annotations["toc"] != "y" || len(doc.Layers[0].Annotations) != 1 || img.Desc.Digest != digest.FromBytes(m.Bytes) {
		t.Errorf("%s", m.Bytes)
	}
	if md := img.Metadata([]string{"a:1", "b:1"}); md["image.name"] != "a:1,b:1" || md["containerimage.config.digest"] != m.ConfigDesc.Digest.String() {
		t.Error(md)
	}
	again := assemble(t, Options{Parallel: 1}, part)
	if !bytes.Equal(again.Manifests[0].Bytes, m.Bytes) {
		t.Error("the same parts give another manifest")
	}
	img = assemble(t, Options{Docker: true}, part)
	if !bytes.Contains(img.Manifests[0].Bytes, []byte(dockerLayerGzip)) || bytes.Contains(img.Manifests[0].Bytes, []byte("vnd.oci")) ||
		bytes.Contains(img.Manifests[0].Bytes, []byte("toc")) || img.Desc.MediaType != dockerManifest {
		t.Errorf("%s", img.Manifests[0].Bytes)
	}
}

func TestIndexAndAnnotations(t *testing.T) {
	var opt Options
	for _, a := range []string{"all=1", "manifest[linux/arm64]:only=2", "index,manifest-descriptor:both=3", "index-descriptor:root=4", "manifest:all=5"} {
		if err := opt.Annotations.AddFlag(a); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := opt.Annotations.AddField("annotation-index.field", "6"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, _ := opt.Annotations.AddField("compression", "zstd"); ok {
		t.Error("compression is no annotation")
	}
	var calls atomic.Int64
	opt.Index = true
	opt.Blob = func(ctx context.Context, l *layer.Layer) (*layer.Blob, error) { calls.Add(1); return blobOf(ctx, l) }
	shared := stack(3)
	img := assemble(t, opt, Part{Platform: amd64, State: shared}, Part{Platform: arm64, State: shared})
	if calls.Load() != 3 {
		t.Errorf("%d layers made for 3", calls.Load())
	}
	var index ocispecs.Index
	if err := json.Unmarshal(img.Index, &index); err != nil {
		t.Fatal(err)
	}
	var first, second ocispecs.Manifest
	json.Unmarshal(img.Manifests[0].Bytes, &first)
	json.Unmarshal(img.Manifests[1].Bytes, &second)
	for what, got := range map[string]string{
		"index":    fmt.Sprint(index.Annotations) + "map[both:3 field:6]",
		"entry":    fmt.Sprint(index.Manifests[1].Annotations) + "map[both:3]",
		"root":     fmt.Sprint(img.Desc.Annotations) + "map[root:4]",
		"amd64":    fmt.Sprint(first.Annotations) + "map[all:5]",
		"arm64":    fmt.Sprint(second.Annotations) + "map[all:5 only:2]",
		"platform": index.Manifests[1].Platform.Architecture + "arm64",
	} {
		if got[:len(got)/2] != got[len(got)/2:] {
			t.Error(what, got)
		}
	}
	for name, o := range map[string]Options{"no index": {Annotations: opt.Annotations}, "docker": {Annotations: opt.Annotations, Docker: true, Index: true}} {
		o.Blob = blobOf
		if _, err := Assemble(context.Background(), []Part{{Platform: arm64}}, o); fault.Of(err) != fault.Usage {
			t.Error(name, err)
		}
	}
	for _, bad := range []string{"x", "=1", "weird:a=1", "manifest[]:a=1", "manifest[l$]:a=1"} {
		if err := (&Annotations{}).AddFlag(bad); err == nil {
			t.Error(bad)
		}
	}
}

func TestBlobFails(t *testing.T) {
	_, err := Assemble(context.Background(), []Part{{Platform: amd64, State: stack(1)}}, Options{
		Blob: func(context.Context, *layer.Layer) (*layer.Blob, error) { return nil, context.Canceled }})
	if fault.Of(err) != fault.Interrupted {
		t.Error(err)
	}
}
