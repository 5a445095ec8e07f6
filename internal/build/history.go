package build

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"larder/internal/disk"
	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/report"
)

// Bounds of what is kept of builds: how many in the local root, how large one may be there and in a remote cache, in bytes.
const (
	maxBuilds     = 50
	maxBuild      = 4 << 20
	maxRemembered = 24 << 10
)

// buildSuffix ends the name of a file that explains a build.
const buildSuffix = ".json.zst"

// history is what is known of earlier builds of the same, for the one who explains this one.
type history struct {
	b     *building
	key   key.Digest
	began time.Time

	once sync.Once
	last *report.Build
}

func (b *building) openHistory() *history {
	name := b.req.Dockerfile
	if name == "" {
		name = "Dockerfile"
	} else if rel, err := filepath.Rel(b.req.Context, name); err == nil {
		name = rel
	}
	if b.req.DockerfileText != nil {
		name = "-"
	}
	h := key.New("larder.history.v1").Str(within(b.req.Context)).Str(name).Str(b.req.Target)
	for _, p := range b.req.Platforms {
		h.Str(p.OS).Str(p.Architecture).Str(p.Variant)
	}
	return &history{b: b, key: h.Sum(), began: time.Now()}
}

// Last gives the last build of the same that this machine or a remote cache knows; nil for none.
func (h *history) Last(ctx context.Context) *report.Build {
	h.once.Do(func() {
		for _, rec := range h.b.session.All(ctx, h.key) {
			b, err := report.Unmarshal(rec.Hint)
			if err == nil && (h.last == nil || b.Began.After(h.last.Began)) {
				h.last = b
			}
		}
	})
	return h.last
}

// write keeps what became of the build's steps: for larder explain, and for the next build to compare with. failed is why the build failed.
// That it could not be kept costs an explanation and nothing else.
func (h *history) write(ctx context.Context, failed error) {
	req := h.b.req
	now := &report.Build{
		ID: h.began.UTC().Format("20060102-150405.000"), Began: h.began.UTC(), Took: time.Since(h.began),
		Context: req.Context, Dockerfile: req.Dockerfile, Target: req.Target, Steps: h.b.solver.Steps(),
	}
	now.ID = strings.ReplaceAll(now.ID, ".", "")
	if failed != nil {
		now.Error = failed.Error()
	}
	if len(now.Steps) == 0 {
		return
	}
	// What did not change is not worth a request: then the build is explained by what this machine knows of the last one.
	changed := slices.ContainsFunc(now.Steps, func(s report.Step) bool {
		return s.How != report.Exact && (s.Type == report.Run || s.Type == report.File)
	})
	last := h.last
	if changed {
		last = h.Last(ctx)
	} else if rec, ok := h.b.e.records.Get(h.key); ok {
		last, _ = report.Unmarshal(rec.Hint)
	}
	report.Carry(now, last)
	if err := h.keep(ctx, now, changed); err != nil && ctx.Err() == nil {
		h.b.e.warn("what became of this build's steps is not kept for larder explain: %v", err)
	}
}

func (h *history) keep(ctx context.Context, now *report.Build, changed bool) error {
	data, err := now.Marshal(maxBuild)
	if err != nil {
		return err
	}
	past, err := OpenPast(h.b.e.root)
	if err == nil {
		err = past.put(now.ID, data)
	}
	if err != nil {
		return err
	}
	if !changed {
		return nil
	}
	if data, err = now.Marshal(maxRemembered); err != nil {
		return err
	}
	rec, err := h.b.session.PutHint(ctx, &record.Record{Key: h.key, Created: now.Began.Truncate(time.Second), Hint: data}, false)
	if err != nil {
		return err
	}
	h.b.session.Used(rec, nil, false)
	return nil
}

// Past is what a local root knows of earlier builds.
type Past struct{ dir string }

// OpenPast gives what is known of earlier builds in a local root, which need not be there; empty for the default. Nothing is locked: files are
// written as wholes.
func OpenPast(root string) (Past, error) {
	if root == "" {
		var err error
		if root, err = DefaultRoot(); err != nil {
			return Past{}, err
		}
	}
	return Past{filepath.Join(root, "builds")}, nil
}

// Builds lists the IDs of the builds that can be explained, the oldest first.
func (p Past) Builds() ([]string, error) {
	list, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Machine, err)
	}
	var ids []string
	for _, f := range list {
		if id, ok := strings.CutSuffix(f.Name(), buildSuffix); ok && f.Type().IsRegular() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Explanation gives what became of the steps of a build that Builds lists.
func (p Past) Explanation(id string) (*report.Build, error) {
	data, err := disk.ReadFile(p.path(id), maxBuild)
	if err != nil {
		return nil, err
	}
	return report.Unmarshal(data)
}

func (p Past) path(id string) string { return filepath.Join(p.dir, id+buildSuffix) }

// put keeps a build, and forgets the oldest where there are many.
func (p Past) put(id string, data []byte) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	err := disk.Replace(p.path(id), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	ids, lerr := p.Builds()
	for ; len(ids) > maxBuilds; ids = ids[1:] {
		os.Remove(p.path(ids[0]))
	}
	return errors.Join(err, lerr)
}
