package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/system"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/layer"
)

// Made tells when and how a layer came to be, for the history entries that a config leaves out or gives no time.
type Made struct {
	At time.Time
	By string
}

// comment marks history entries that the exporter had to invent; BuildKit's own word, so that configs compare equal.
const comment = "buildkit.exporter.image.v0"

// defaultConfig is the config of an image whose frontend gave none.
func defaultConfig(p ocispecs.Platform) ([]byte, error) {
	img := ocispecs.Image{Platform: platforms.Normalize(p)}
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	img.Config.Env = []string{"PATH=" + system.DefaultPathEnv(img.OS)}
	return json.Marshal(img)
}

// finishConfig puts layers, history and times into a frontend's config. Everything else in it stays.
func finishConfig(config []byte, blobs []*layer.Blob, history []ocispecs.History, epoch *time.Time, base []byte) ([]byte, error) {
	var img ocispecs.Image
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	if img.OS == "" || img.Architecture == "" {
		return nil, errors.New("image config: os or architecture is missing")
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	set := func(name string, v any) error {
		b, err := json.Marshal(v)
		fields[name] = b
		return err
	}
	rootfs := ocispecs.RootFS{Type: "layers"}
	for _, b := range blobs {
		rootfs.DiffIDs = append(rootfs.DiffIDs, b.DiffID)
	}
	if err := set("rootfs", rootfs); err != nil {
		return nil, err
	}
	if epoch != nil {
		if err := clampHistory(history, *epoch, base); err != nil {
			return nil, err
		}
	}
	if err := set("history", history); err != nil {
		return nil, err
	}
	if err := setCreated(fields, set, history, epoch); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// reserved are the fields of a config that have a meaning of their own.
var reserved = []string{"architecture", "os", "os.version", "os.features", "variant", "config", "rootfs", "history", "created", "author"}

// addFields adds what extra gives for part i to its config.
func addFields(config []byte, i int, blobs []*layer.Blob, extra func(int, []*layer.Blob) (map[string]json.RawMessage, error)) ([]byte, error) {
	more, err := extra(i, blobs)
	if err != nil || len(more) == 0 {
		return config, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	for name, value := range more {
		if slices.Contains(reserved, name) {
			return nil, fmt.Errorf("image config: the field %q is not to be replaced", name)
		}
		fields[name] = value
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	return b, nil
}

// setCreated gives the image a time: the last of its history if it has none, and none after the epoch.
func setCreated(fields map[string]json.RawMessage, set func(string, any) error, history []ocispecs.History, epoch *time.Time) error {
	if have, ok := fields["created"]; ok {
		if epoch == nil {
			return nil
		}
		var at time.Time
		if err := json.Unmarshal(have, &at); err != nil {
			return fmt.Errorf("image config: created: %w", err)
		}
		if at.After(*epoch) {
			return set("created", epoch)
		}
		return nil
	}
	var last *time.Time
	for _, h := range history {
		if h.Created != nil {
			last = h.Created
		}
	}
	return set("created", last)
}

// clampHistory lets no entry be younger than the epoch, but leaves those of the base image as they are
// (moby/buildkit#4614).
func clampHistory(history []ocispecs.History, epoch time.Time, base []byte) error {
	var img ocispecs.Image
	if len(base) > 0 {
		if err := json.Unmarshal(base, &img); err != nil {
			return fmt.Errorf("base image's config: %w", err)
		}
	}
	ours := false
	for i, h := range history {
		if !ours && i < len(img.History) && reflect.DeepEqual(h, img.History[i]) {
			continue
		}
		ours = true
		if h.Created == nil || h.Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
	return nil
}

// finishHistory makes a config's history fit its layers: as many entries that are not empty as there are layers, each
// with a time.
func finishHistory(history []ocispecs.History, made []Made) []ocispecs.History {
	out := make([]ocispecs.History, 0, len(history)+len(made))
	layers := 0
	for _, h := range history {
		if !h.EmptyLayer && layers == len(made) {
			h.EmptyLayer = true // the config claims layers that are not there
		}
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = at(made[layers])
			}
			layers++
		}
		out = append(out, h)
	}
	for _, m := range made[layers:] {
		out = append(out, ocispecs.History{Created: at(m), CreatedBy: m.By, Comment: comment})
	}
	if len(out) == 0 {
		return history // nil and empty look different in JSON
	}
	fillTimes(out)
	return out
}

// fillTimes gives entries without a layer (ENV, CMD ...) a time: that of the entry before, and for those before the first
// new layer that layer's, because the one before is the base image's, which may be years old.
func fillTimes(history []ocispecs.History) {
	var now *time.Time
	gap := false
	for _, h := range history {
		if h.Created == nil {
			gap = true
			continue
		}
		now = h.Created
		if gap {
			break
		}
	}
	gap = false
	for i := range history {
		h := &history[i]
		switch {
		case h.Created == nil:
			gap = true
			h.Created = now
		case gap:
			now = h.Created
		}
	}
}

func at(m Made) *time.Time {
	if m.At.IsZero() {
		return nil
	}
	t := m.At
	return &t
}

// configHistory reads the history of a config.
func configHistory(config []byte) ([]ocispecs.History, error) {
	var img struct {
		History []ocispecs.History `json:"history"`
	}
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	return img.History, nil
}
