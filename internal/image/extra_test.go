package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"larder/internal/layer"
)

func TestExtraFields(t *testing.T) {
	config := func(os string) []byte {
		return []byte(`{"architecture":"amd64","os":"` + os + `","x-cache":"of the base image"}`)
	}
	parts := []Part{{Platform: amd64, Config: config("linux"), State: stack(3)}, {Platform: arm64, Config: config("linux"), State: stack(1)}, {Platform: amd64}}
	opt := Options{Index: true, Parallel: 2, Extra: func(part int, layers []*layer.Blob) (map[string]json.RawMessage, error) {
		if part == 2 {
			return nil, nil
		}
		var list []digest.Digest
		for _, b := range layers {
			list = append(list, b.Desc.Digest)
		}
		b, err := json.Marshal(list)
		return map[string]json.RawMessage{"x-cache": b, "x-part": json.RawMessage(fmt.Sprintf(" [ %d ]", part))}, err
	}}
	img := assemble(t, opt, parts...)
	for i, n := range []int{3, 1} {
		m := img.Manifests[i]
		var got struct {
			Cache []digest.Digest `json:"x-cache"`
			Part  []int           `json:"x-part"`
			OS    string          `json:"os"`
		}
		if err := json.Unmarshal(m.Config, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Cache) != n || len(got.Part) != 1 || got.Part[0] != i || got.OS != "linux" {
			t.Errorf("%s", m.Config)
		}
		for j, d := range got.Cache {
			if d != m.Layers[j].Desc.Digest {
				t.Errorf("part %d, layer %d: %s", i, j, d)
			}
		}
		if m.ConfigDesc.Digest != digest.FromBytes(m.Config) || m.ConfigDesc.Size != int64(len(m.Config)) || !bytes.Contains(m.Bytes, []byte(m.ConfigDesc.Digest)) {
			t.Error("the manifest names another config")
		}
	}
	plain := assemble(t, Options{Index: true}, parts...)
	if !bytes.Equal(plain.Manifests[2].Config, img.Manifests[2].Config) {
		t.Error("no fields, and yet another config")
	}
	if again := assemble(t, opt, parts...); again.Desc.Digest != img.Desc.Digest {
		t.Error("the same fields give another image")
	}
}

func TestExtraFieldsRefused(t *testing.T) {
	failure := errors.New("no fields today")
	for name, extra := range map[string]func(int, []*layer.Blob) (map[string]json.RawMessage, error){
		"an error": func(int, []*layer.Blob) (map[string]json.RawMessage, error) { return nil, failure },
		"not JSON": func(int, []*layer.Blob) (map[string]json.RawMessage, error) {
			return map[string]json.RawMessage{"x": json.RawMessage("{")}, nil
		},
		"the layers": func(int, []*layer.Blob) (map[string]json.RawMessage, error) {
			return map[string]json.RawMessage{"rootfs": json.RawMessage("{}")}, nil
		},
	} {
		_, err := Assemble(context.Background(), []Part{{Platform: amd64, State: stack(1)}}, Options{Blob: blobOf, Extra: extra})
		if err == nil || name == "an error" && !errors.Is(err, failure) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
