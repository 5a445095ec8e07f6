package catalog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/remote"
)

var epoch = time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)

func keyOf(name string) key.Digest { return key.Bytes([]byte(name)) }

// step makes the change of a build that ran one step: a pinned layer with one copy and a tree, all named after the step. by
// says who did it.
func step(name, by string) Change {
	identity, treeDigest := keyOf("layer "+name+by), keyOf("tree "+name+by)
	return Change{
		Put: []Put{{Record: &record.Record{
			Key: keyOf(name), Name: "RUN " + name + " # " + by, Created: epoch, Duration: time.Second,
			Outputs: []record.Output{{Base: 0, Layers: []record.Layer{{Identity: identity, Pinned: true, Tree: treeDigest}}}},
		}}},
		Trees:  map[key.Digest]ocispecs.Descriptor{treeDigest: descOf("tree blob "+name+by, MediaTypeTree)},
		Layers: map[key.Digest][]Blob{identity: {copyOf(name+by, "gzip")}},
	}
}

func copyOf(name, how string) Blob {
	return Blob{Key: keyOf(how), Desc: descOf("blob "+name+how, ocispecs.MediaTypeImageLayerGzip), DiffID: digest.FromString("tar " + name)}
}

func descOf(content, mediaType string) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
}

// join makes one change of several.
func join(list ...Change) Change {
	all := Change{Trees: map[key.Digest]ocispecs.Descriptor{}, Layers: map[key.Digest][]Blob{}}
	for _, c := range list {
		all.Put = append(all.Put, c.Put...)
		for d, t := range c.Trees {
			all.Trees[d] = t
		}
		for id, copies := range c.Layers {
			all.Layers[id] = append(all.Layers[id], copies...)
		}
		all.Used = append(all.Used, c.Used...)
		all.Gone = append(all.Gone, c.Gone...)
	}
	return all
}

// steps makes a change of n steps.
func steps(prefix, by string, n int) Change {
	var list []Change
	for i := range n {
		list = append(list, step(fmt.Sprintf("%s %d", prefix, i), by))
	}
	return join(list...)
}

// stock puts the blobs of changes made by step into a store: each is the text that its digest was made of.
func stock(ctx context.Context, store remote.Store, names ...string) error {
	for _, n := range names {
		for _, content := range []string{"tree blob " + n, "blob " + n + "gzip", "blob " + n + "zstd"} {
			up := remote.Upload{Desc: descOf(content, ""), Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader([]byte(content))), nil
			}}
			if _, err := store.Put(ctx, up); err != nil {
				return err
			}
		}
	}
	return nil
}

// stocked is stock without requests, for the blobs of a change that steps made.
func (m *memory) stocked(prefix, by string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range n {
		name := fmt.Sprintf("%s %d%s", prefix, i, by)
		for _, content := range []string{"tree blob " + name, "blob " + name + "gzip"} {
			m.blobs[digest.FromString(content)] = []byte(content)
		}
	}
}
