package build

import (
	"context"

	"larder/internal/cache"
	"larder/internal/cachemount"
	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/layout"
)

// mounts are the cache mounts of one build, and the times that its contexts are shown with because of them.
type mounts struct {
	store *cachemount.Saved
	times *times
}

// mountDomain says whom a build's cache mounts belong to on this machine: builds that do the same with the same catalogs share them. A build
// without remote caches has the machine's own. What another job may write, or is not to save, is in none of a job's that does.
func mountDomain(sources []*cache.Source, targets []*cache.Target, m Mounts) string {
	if len(sources)+len(targets) == 0 {
		return ""
	}
	h := key.New("larder.mounts.domain.v1")
	if h.Uint(uint64(len(targets))); len(targets) > 0 {
		for _, t := range targets {
			h.Str(t.Own.ID)
		}
	} else {
		for _, src := range sources {
			h.Str(src.ID)
		}
	}
	if m.Restore {
		h.Str("restored")
	}
	if m.Save {
		h.Str("saved")
	}
	return h.Sum().String()
}

// openMounts makes cache mounts of the session's. The caller closes what it gives.
func (b *building) openMounts(ctx context.Context) (*mounts, error) {
	m := b.req.Mounts
	exclude, err := layout.Patterns(m.Exclude)
	if err != nil {
		return nil, err
	}
	restore, save := b.session.RestoresMounts(), m.Save && b.session.Writes()
	temp := ""
	if save {
		if temp, err = b.e.layers.Temp(); err != nil {
			return nil, err
		}
	}
	store := cachemount.NewSaved(ctx, b.e.caches, b.session, cachemount.Options{
		Save: save, Exclude: exclude, Trim: generation.Limits{Builds: m.Keep, Size: m.Size}, Temp: temp,
		Begin: func(what string) func(string, error) {
			line := b.stream.Begin(what)
			return func(note string, err error) {
				if note != "" {
					line.Note(note)
				}
				line.Done(err)
			}
		},
		Warn: func(msg string) { b.e.warn("%s", msg) },
	})
	return &mounts{store, &times{session: b.session, remote: restore || save, save: save, dir: b.e.ledgers()}}, nil
}

// flush hands what the build's steps left in cache mounts to the session, to be saved with the records. That the times of contexts could
// not be kept costs a later build nothing but work.
func (b *building) flush(ctx context.Context) {
	b.mounts.store.Flush(ctx)
	if err := b.mounts.times.keep(); err != nil && ctx.Err() == nil {
		b.e.warn("the times of the build context are not kept for the next build: %v", err)
	}
}
