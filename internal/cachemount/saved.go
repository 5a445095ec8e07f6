package cachemount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/docker/go-units"

	"larder/internal/cache"
	"larder/internal/generation"
	"larder/internal/layout"
	"larder/internal/ledger"
	"larder/internal/tree"
)

// Options say what Saved does.
type Options struct {
	// Save keeps what steps leave; without it mounts are restored only.
	Save bool
	// Exclude are files that are never saved, beside those that layouts know to hold secrets.
	Exclude *layout.Matcher
	// Trim bounds what is saved, and what is on this disk.
	Trim generation.Limits
	// Temp is a directory for packs on their way.
	Temp string
	// Begin shows that something takes time; its result ends that. Warn tells what was lost.
	Begin func(what string) (end func(note string, err error))
	Warn  func(msg string)
}

// Saved is the Store of one build: its cache mounts begin with what the build's remote caches have of them, and what its steps leave goes
// back there, in the background while later steps run.
type Saved struct {
	local   *Local
	session *cache.Session
	opt     Options

	ctx  context.Context
	stop context.CancelFunc

	mu    sync.Mutex
	saves map[string][]*save // what goes on, by the directories of keys
	dirs  map[string]*used   // by directory
}

// used is a directory that steps of this build had.
type used struct {
	left     *saved   // the step that left it last, while that is not saved
	secrets  [][]byte // of all steps that had it since it was last searched for them
	guarded  bool     // the mark that says so is this build's
	captures int      // how often it was captured
}

// NewSaved makes a Store over the local one. ctx is the whole build's. Close it.
func NewSaved(ctx context.Context, local *Local, session *cache.Session, opt Options) *Saved {
	s := &Saved{local: local.In(session.Domain()), session: session, opt: opt, saves: map[string][]*save{}, dirs: map[string]*used{}}
	s.ctx, s.stop = context.WithCancel(ctx)
	return s
}

// of gives what is known of a directory. The caller holds s.mu.
func (s *Saved) of(dir string) *used {
	u := s.dirs[dir]
	if u == nil {
		u = new(used)
		s.dirs[dir] = u
	}
	return u
}

// Acquire is Store's.
func (s *Saved) Acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (Mount, error) {
	keyDir := s.local.keyDir(k)
	if err := s.interrupt(ctx, keyDir); err != nil {
		return nil, err
	}
	if s.opt.Save {
		s.discardUnusable(keyDir)
	}
	m, err := s.local.acquire(ctx, k, sharing, func(ctx context.Context, dir string) error {
		done, err := s.restore(ctx, k, dir)
		if err != nil && ctx.Err() == nil { // of this machine: it costs the mount's content, no more (DESIGN invariant 7)
			s.session.Lose(fmt.Errorf("cache mount %s begins empty, and is not saved: %w", k.Name(), err))
			unsaved := (&slot{dir: filepath.Dir(dir)}).unsavedFile()
			err = errors.Join(empty(dir), os.WriteFile(unsaved, nil, 0o600))
		}
		if done || err != nil || fill == nil {
			return err
		}
		return fill(ctx, dir)
	})
	if err != nil {
		return nil, err
	}
	return &saved{m, s, k}, nil
}

// saved is a mount that is saved when it is released.
type saved struct {
	*slot
	s *Saved
	k Key
}

// Guard is Mount's.
func (m *saved) Guard(secrets [][]byte) error {
	m.s.mu.Lock()
	u := m.s.of(m.dir)
	u.secrets, u.guarded = append(u.secrets, secrets...), true
	m.s.mu.Unlock()
	return m.slot.Guard(secrets)
}

// Release is Mount's.
func (m *saved) Release(whole bool) error {
	err := m.slot.Release(whole)
	if err == nil && whole && m.s.opt.Save {
		m.s.begin(m)
	}
	return err
}

// discardUnusable removes directories that could never be saved again: those in which a step had secrets that this build does not know, as
// another one did not search them or found some, and those that were not restored. What they held otherwise comes from the remote cache again.
func (s *Saved) discardUnusable(keyDir string) {
	numbers, err := slots(keyDir)
	if err != nil {
		return // there is none yet
	}
	for _, n := range numbers {
		dir := filepath.Join(keyDir, strconv.Itoa(n))
		s.mu.Lock()
		ours := s.of(dir).guarded
		s.mu.Unlock()
		sl := &slot{dir: dir}
		if !exists(sl.unsavedFile()) && (ours || !exists(sl.secretsFile())) {
			continue
		}
		err := s.local.Remove(filepath.Join(filepath.Base(keyDir), strconv.Itoa(n)))
		if err != nil && !errors.Is(err, ErrInUse) {
			s.opt.Warn(err.Error())
		}
	}
}

// restore makes a new directory what a remote cache has of the mount. Only a directory that is complete becomes one of the mount's, so that no
// step sees half of it.
func (s *Saved) restore(ctx context.Context, k Key, dir string) (bool, error) {
	for {
		found := s.session.Mount(ctx, k.Digest())
		if found == nil {
			return false, context.Cause(ctx)
		}
		end := s.opt.Begin("restore cache mount " + k.Name())
		stamps, err := Restore(ctx, dir, found.Generation, found.Open)
		if err == nil {
			end(fmt.Sprintf("%d files, %s", found.Row.Files, units.BytesSize(float64(found.Row.Size))), nil)
			return true, keepRestored(filepath.Dir(dir), found, stamps)
		}
		end("it is not restored", nil)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if !found.Lost(err) {
			return false, err
		}
		if err := empty(dir); err != nil {
			return false, err
		}
	}
}

// keepRestored writes beside a restored directory what is known of it.
func keepRestored(dir string, found *cache.Mount, stamps *Stamps) error {
	sl := &slot{dir: dir}
	g := found.Generation
	past := g.Ledger
	if past == nil {
		past = tree.Empty()
	}
	if err := ledger.WriteFile(sl.ledgerFile(), past); err != nil {
		return err
	}
	newest, err := ledger.Latest(g.Tree, time.Now().Add(time.Hour)) // what lies further ahead is no time of a step
	if err != nil {
		return err
	}
	if err := os.WriteFile(sl.restFile(), nil, 0o600); err != nil {
		return err
	}
	at := time.Unix(0, newest)
	if err := os.Chtimes(sl.restFile(), at, at); err != nil {
		return err
	}
	return state{base: &found.MountBase, generation: g, stamps: stamps}.save(dir)
}

func empty(dir string) error { return removeEntries(dir, func(string) bool { return true }) }
