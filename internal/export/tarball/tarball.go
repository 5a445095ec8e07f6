// Package tarball writes the files of a result as one tar.
package tarball

import (
	"context"
	"errors"
	"io"
	"time"

	"larder/internal/layer"
	"larder/internal/tree"
)

// Part is the file system of one platform.
type Part struct {
	Dir  string     // directory in the tar that its files go to, "" for none
	Root *tree.Node // merged: without whiteouts
	Src  layer.Source
}

// Write writes parts as a tar, deterministically. epoch, where set, is the time of every file.
func Write(ctx context.Context, w io.Writer, parts []Part, epoch *time.Time) error {
	root, src, err := join(parts, epoch)
	if err != nil {
		return err
	}
	return layer.Write(ctx, w, root, src, layer.WriteOptions{Epoch: epoch})
}

// join makes one tree of all parts.
func join(parts []Part, epoch *time.Time) (*tree.Node, layer.Source, error) {
	if len(parts) == 1 && parts[0].Dir == "" {
		return parts[0].Root, parts[0].Src, nil
	}
	var entries []tree.Entry
	var sources []layer.Source
	for _, p := range parts {
		if p.Dir == "" {
			return nil, nil, errors.New("several platforms would write over each other: platform-split=false is for one")
		}
		meta := p.Root.Meta
		if epoch != nil {
			meta.MTime = epoch.UnixNano()
		}
		entries = append(entries, tree.Entry{Name: p.Dir, Node: p.Root.WithMeta(meta)})
		sources = append(sources, p.Src)
	}
	root, err := tree.NewDir(tree.Empty().Meta, false, entries)
	return root, layer.Union(sources...), err
}
