package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/docker/go-units"

	"larder/internal/cache"
	"larder/internal/flock"
	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/layout"
	"larder/internal/pack"
	"larder/internal/tree"
)

// capture writes down what is in a directory now. Meanwhile no step, of whatever process, gets it, and none is given a second one in its place.
// An error that wraps errBusy says that a step has it; who leaves it last saves it.
func (s *Saved) capture(ctx context.Context, m *saved) error {
	adding, err := s.local.lockAdding(ctx, filepath.Dir(m.dir))
	if err != nil {
		return err
	}
	defer adding.Unlock()
	lock, err := flock.TryDir(m.dir, flock.Exclusive)
	switch {
	case errors.Is(err, flock.ErrBusy):
		return errBusy
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was pruned
	case err != nil:
		return err
	}
	defer lock.Unlock()
	sl := &slot{dir: m.dir}
	s.mu.Lock()
	u := *s.of(m.dir)
	s.mu.Unlock()
	switch {
	case exists(sl.unsavedFile()), !exists(sl.restFile()), exists(sl.tornFile()):
		return nil // what is in there is not worth saving, until a step comes to its end there
	case exists(sl.secretsFile()) && !u.guarded:
		return nil // a step of another process had secrets that are not known here
	}
	past, err := sl.Past()
	if err != nil {
		return err
	}
	old := loadState(m.dir)
	if old.base == nil {
		s.session.LearnPieces()
	} else {
		s.session.Know(old.base, old.generation)
	}
	end := s.opt.Begin("save cache mount " + m.k.Name())
	note, clean, err := s.write(ctx, sl, m.k, old, past.Ledger, u)
	if ctx.Err() != nil {
		end("put off: the next step wants it", nil)
		return nil
	}
	end(note, err)
	if err != nil {
		return err
	}
	s.mu.Lock()
	seen := s.of(m.dir)
	seen.captures++
	if clean { // nobody got the directory meanwhile
		seen.secrets, seen.guarded = nil, false
	}
	s.mu.Unlock()
	if !clean {
		return nil
	}
	if err := os.Remove(sl.secretsFile()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// write packs what is new and hands the next generation to the session. clean tells that no secret was found in the directory.
func (s *Saved) write(ctx context.Context, sl *slot, k Key, old state, seen *tree.Node, u used) (note string, clean bool, err error) {
	shape, err := outline(sl.Dir())
	if err != nil {
		return "", false, err
	}
	kind := layout.Detect(k.ID, k.ID, shape)
	unusable := s.stale(ctx, &old)
	before := without(old.generation, unusable)
	have := func(d key.Digest) (pack.Piece, bool) {
		p, ok := s.session.Piece(d)
		return p, ok && !unusable[p.Pack]
	}
	w := pack.NewWriter(pack.Options{Dir: s.opt.Temp, Have: have, Done: s.session.SendPack})
	defer w.Abort()
	got, err := Capture(ctx, sl.Dir(), before, old.stamps, w, CaptureOptions{
		Exclude: func(path string, dir bool) bool {
			return kind.Excluded(path) || !dir && kind.Secret(path) || s.opt.Exclude.Match(path)
		},
		Secrets: u.secrets,
	})
	if err != nil {
		return "", false, err
	}
	if len(got.LeftOut) > 0 {
		s.opt.Warn(fmt.Sprintf("cache mount %s: %s not saved: the value of a secret is in there", k.Name(), some(got.LeftOut)))
	}
	got.Next.Ledger = seen
	if u.captures > 0 { // counts are of builds, not of steps: what an earlier step of this one used counts as used
		once(got.Next.Idle)
	}
	kind = layout.Detect(k.ID, k.ID, got.Next.Tree)
	next, dropped, err := generation.Trim(got.Next, kind, s.opt.Trim)
	if err != nil {
		return "", false, err
	}
	if err := drop(sl.Dir(), next.Tree, dropped); err != nil {
		return "", false, err
	}
	files, size, err := count(next.Tree)
	if err != nil {
		return "", false, err
	}
	base, err := s.session.PutMount(cache.MountChange{
		Slot: sl.dir, Key: k.Digest(), ID: k.Name(), Platform: k.Platform, United: kind.United(),
		Base: old.base, Prev: old.generation, Next: next, Anew: len(unusable) > 0, Again: u.captures > 0, Files: files, Size: size, Had: got.Had, Hit: got.Used,
	})
	if err != nil {
		return "", false, err
	}
	note = fmt.Sprintf("%d of %d files are new, %s", got.New, files, units.BytesSize(float64(got.NewBytes)))
	if len(dropped) > 0 {
		note += fmt.Sprintf("; %s trimmed", some(dropped))
	}
	return note, len(got.LeftOut) == 0, state{base: base, generation: next, stamps: got.Stamps}.save(sl.dir)
}

// stale lists the packs of a mount that are not to be used any more. Where the store has lost some of what the mount is written down in, old
// is made to say that it is written down nowhere.
func (s *Saved) stale(ctx context.Context, old *state) map[key.Digest]bool {
	if old.base == nil {
		return nil
	}
	sizes := map[key.Digest]int64{}
	for d, p := range old.base.Row.Packs() {
		sizes[d] = p.Size
	}
	packs := stale(old.generation, sizes)
	missing, whole := s.session.Missing(ctx, old.base)
	maps.Copy(packs, missing)
	if !whole {
		old.base = nil
	}
	return packs
}

// once takes back that a capture counted the build once more.
func once(idle map[string]int) {
	for path, n := range idle {
		if idle[path] = n - 1; n <= 1 {
			delete(idle, path)
		}
	}
}

// drop removes what was trimmed, and gives the directories that it was in their times back.
func drop(dir string, root *tree.Node, dropped []string) error {
	parents := map[string]bool{}
	for _, p := range dropped {
		if err := os.RemoveAll(filepath.Join(dir, p)); err != nil {
			return err
		}
		parents[path.Dir(p)] = true
	}
	now := time.Now()
	for p := range parents {
		_, n, err := tree.Resolve(root, p, false)
		if err != nil || n == nil {
			continue // it went too
		}
		if err := os.Chtimes(filepath.Join(dir, p), now, time.Unix(0, n.MTime)); err != nil {
			return err
		}
	}
	return nil
}

// some names the first of a list of paths, and how many more there are.
func some(paths []string) string {
	if len(paths) == 1 {
		return paths[0]
	}
	return fmt.Sprintf("%s and %d more", paths[0], len(paths)-1)
}

// count gives the number of a tree's files, links and the like, and the bytes of its files.
func count(root *tree.Node) (files, size int64, err error) {
	err = tree.Walk(root, func(_ string, n *tree.Node) error {
		if n.Kind != tree.Dir {
			files++
			size += n.Size
		}
		return nil
	})
	return files, size, err
}

// outline reads the two upper levels of a directory, enough to tell whose cache it is.
func outline(dir string) (*tree.Node, error) { return outlineDir(dir, 2) }

func outlineDir(dir string, levels int) (*tree.Node, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	entries := make([]tree.Entry, 0, len(list))
	for _, e := range list {
		n := &tree.Node{Kind: tree.File}
		if e.IsDir() {
			n = tree.Empty()
			if levels > 1 {
				if n, err = outlineDir(filepath.Join(dir, e.Name()), levels-1); err != nil {
					return nil, err
				}
			}
		}
		entries = append(entries, tree.Entry{Name: e.Name(), Node: n})
	}
	return tree.NewDir(tree.Meta{Mode: 0o755}, false, entries)
}
