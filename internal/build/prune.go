package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/internal/cachemount"
	"larder/internal/content"
	"larder/internal/disk"
	"larder/internal/export/store"
	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/ledger"
	"larder/internal/record"
	"larder/internal/snapshot"
)

// Use is one thing in the local root that takes up space.
type Use struct {
	Kind   string    `json:"kind"` // "layer", "cache mount", "image", "blob", "tree", "record", "ledger" or "build"
	Name   string    `json:"name"` // digest, id of a cache mount, name of an image or of a file
	Size   int64     `json:"size"` // bytes
	Used   time.Time `json:"last_used"`
	InUse  bool      `json:"in_use"` // by a build that runs now
	remove func(ctx context.Context) (bool, error)
}

// Usage lists what the local root holds, the least recently used first.
func (e *Engine) Usage(ctx context.Context) ([]Use, error) {
	var all []Use
	for _, list := range []func(context.Context) ([]Use, error){e.layerUse, e.mountUse, e.imageUse, e.blobUse, e.recordUse, e.ledgerUse, e.buildUse} {
		part, err := list(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	slices.SortStableFunc(all, func(a, b Use) int { return a.Used.Compare(b.Used) })
	return all, nil
}

func (e *Engine) layerUse(ctx context.Context) ([]Use, error) {
	list, err := e.layers.Usage(ctx)
	var out []Use
	for _, l := range list {
		out = append(out, Use{
			Kind: "layer", Name: l.Identity.String(), Size: l.Size, Used: l.LastUsed, InUse: l.InUse,
			remove: func(ctx context.Context) (bool, error) {
				err := e.layers.Remove(ctx, l.Identity)
				if errors.Is(err, snapshot.ErrInUse) {
					return false, nil
				}
				return err == nil, err
			},
		})
	}
	return out, err
}

func (e *Engine) mountUse(ctx context.Context) ([]Use, error) {
	list, err := e.caches.Usage(ctx)
	var out []Use
	for _, m := range list {
		out = append(out, Use{
			Kind: "cache mount", Name: m.ID, Size: m.Size, Used: m.LastUsed, InUse: m.InUse,
			remove: func(context.Context) (bool, error) {
				err := e.caches.Remove(m.Name)
				if errors.Is(err, cachemount.ErrInUse) {
					return false, nil
				}
				return err == nil, err
			},
		})
	}
	return out, err
}

// images are those that --output type=image keeps.
func (e *Engine) images() *store.Images {
	return &store.Images{Dir: filepath.Join(e.root, "images"), Blobs: e.blobs}
}

// imageUse lists the names of images. What they hold are blobs, which stay for as long as an image names them.
func (e *Engine) imageUse(context.Context) ([]Use, error) {
	list, err := e.images().List()
	var out []Use
	for _, i := range list {
		out = append(out, Use{Kind: "image", Name: i.Name, Used: i.At, remove: func(context.Context) (bool, error) {
			return true, e.images().Remove(i.Name)
		}})
	}
	return out, err
}

func (e *Engine) blobUse(context.Context) ([]Use, error) {
	var out []Use
	err := e.blobs.Walk(func(i content.Info) error {
		out = append(out, Use{
			Kind: "blob", Name: string(i.Digest), Size: i.Size, Used: i.Used,
			remove: func(ctx context.Context) (bool, error) {
				kept, err := e.images().Kept()
				if err != nil || kept[i.Digest] {
					return false, err
				}
				freed, err := e.blobs.Collect(ctx, func(o content.Info) bool { return o.Digest != i.Digest })
				return freed.Blobs > 0, err
			},
		})
		return nil
	})
	return out, err
}

// recordUse lists records, and trees as recently used as the records that name them. A record is used as well when one is that names it as
// what helped on the way to it.
func (e *Engine) recordUse(context.Context) ([]Use, error) {
	type kept struct {
		size int64
		at   time.Time
		with []key.Digest
	}
	records := map[key.Digest]*kept{}
	trees := map[key.Digest]time.Time{}
	err := e.records.Walk(func(r *record.Record, size int64, at time.Time) error {
		for _, o := range r.Outputs {
			for _, l := range o.Layers {
				if at.After(trees[l.Tree]) {
					trees[l.Tree] = at
				}
			}
		}
		records[r.Key] = &kept{size, at, r.With}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var use func(k key.Digest, at time.Time)
	use = func(k key.Digest, at time.Time) {
		if r := records[k]; r != nil && at.After(r.at) { // so it ends, whoever names whom
			r.at = at
			for _, with := range r.with {
				use(with, at)
			}
		}
	}
	for _, r := range records {
		for _, with := range r.with {
			use(with, r.at)
		}
	}
	var out []Use
	for k, r := range records {
		out = append(out, Use{Kind: "record", Name: k.String(), Size: r.size, Used: r.at, remove: func(context.Context) (bool, error) {
			return true, e.records.Delete(k)
		}})
	}
	err = e.records.WalkTrees(func(d key.Digest, size int64, at time.Time) error {
		if trees[d].After(at) {
			at = trees[d]
		}
		out = append(out, Use{Kind: "tree", Name: d.String(), Size: size, Used: at, remove: func(context.Context) (bool, error) {
			return true, e.records.DeleteTree(d)
		}})
		return nil
	})
	return out, err
}

// ledgers is where the times of contexts are kept, see times.go.
func (e *Engine) ledgers() string { return filepath.Join(e.root, "ledgers") }

// ledgerUse lists the ledgers of contexts.
func (e *Engine) ledgerUse(context.Context) ([]Use, error) { return fileUse("ledger", e.ledgers()) }

// buildUse lists what is known of earlier builds.
func (e *Engine) buildUse(context.Context) ([]Use, error) {
	return fileUse("build", pastOf(e.root).dir)
}

// fileUse lists the files of a directory, and what builds that were killed left of them.
func fileUse(kind, dir string) ([]Use, error) {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Use
	for _, f := range list {
		st, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // a temporary file that came to its place
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Use{Kind: kind, Name: f.Name(), Size: st.Size(), Used: st.ModTime(), remove: func(context.Context) (bool, error) {
			err := os.Remove(filepath.Join(dir, f.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		}})
	}
	return out, nil
}

// ofRecords tells whether something is looked up before it is read.
func (u Use) ofRecords() bool { return u.Kind == "tree" || u.Kind == "record" || u.ofBuilds() }

// ofBuilds tells what builds write as files of its own.
func (u Use) ofBuilds() bool { return u.Kind == "ledger" || u.Kind == "build" }

// leftover tells whether something is of no use to anybody while nothing is built.
func (u Use) leftover() bool {
	return u.ofBuilds() && (strings.HasPrefix(u.Name, disk.Temporary) || strings.HasSuffix(u.Name, ledger.LockSuffix))
}

// Prune says what Engine.Prune is to remove. The zero value removes all that no running build uses.
type Prune struct {
	// Unused keeps what was used within this time.
	Unused time.Duration
	// MaxSize, where it is not negative, removes the least recently used until no more than so many bytes are left.
	MaxSize int64
}

// Freed says what a pruning removed.
type Freed struct {
	Things int   `json:"removed"`
	Bytes  int64 `json:"bytes"`
}

// Prune removes what was not used for long. What a running build uses stays; a record whose layers are gone is a miss.
func (e *Engine) Prune(ctx context.Context, p Prune, now time.Time) (Freed, error) {
	var freed Freed
	if err := e.layers.Sweep(ctx); err != nil {
		return freed, err
	}
	// Records, trees, ledgers and builds are looked up before they are read: they go only while nothing is built.
	alone, err := flock.Try(e.usingFile(), flock.Exclusive)
	if err != nil && !errors.Is(err, flock.ErrBusy) {
		return freed, err
	}
	if alone != nil {
		defer alone.Unlock()
	}
	all, err := e.Usage(ctx)
	if err != nil {
		return freed, err
	}
	var left int64
	for _, u := range all {
		left += u.Size
	}
	// Images first: they keep blobs. Then the least recently used first.
	slices.SortStableFunc(all, func(a, b Use) int { return cmp.Compare(btoi(b.Kind == "image"), btoi(a.Kind == "image")) })
	for _, u := range all {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		if alone == nil && u.ofRecords() || !u.leftover() && (now.Sub(u.Used) < p.Unused || p.MaxSize >= 0 && left <= p.MaxSize) {
			continue
		}
		removed, err := u.remove(ctx)
		if err != nil {
			return freed, fmt.Errorf("remove %s %s: %w", u.Kind, u.Name, err)
		}
		if removed {
			freed.Things++
			freed.Bytes += u.Size
			left -= u.Size
		}
	}
	return freed, layer.PruneIndex(e.blobs)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
