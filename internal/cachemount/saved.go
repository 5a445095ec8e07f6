package cachemount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/go-units"

	"larder/internal/cache"
	"larder/internal/generation"
	"larder/internal/layout"
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

	mu      sync.Mutex
	saves   map[string]*save  // by the directories of keys
	pending map[string]*saved // directories whose saving was stopped, and what left them
}

// NewSaved makes a Store over the local one. ctx is the whole build's. Close it.
func NewSaved(ctx context.Context, local *Local, session *cache.Session, opt Options) *Saved {
	s := &Saved{local: local.In(session.Domain()), session: session, opt: opt, saves: map[string]*save{}, pending: map[string]*saved{}}
	s.ctx, s.stop = context.WithCancel(ctx)
	return s
}

// Acquire is Store's.
func (s *Saved) Acquire(ctx context.Context, k Key, sharing Sharing, fill Fill) (Mount, error) {
	s.interrupt(s.local.keyDir(k))
	m, err := s.local.acquire(ctx, k, sharing, func(ctx context.Context, dir string) error {
		if done, err := s.restore(ctx, k, dir); done || err != nil || fill == nil {
			return err
		}
		return fill(ctx, dir)
	})
	if err != nil {
		return nil, err
	}
	return &saved{m, s, k, nil}, nil
}

// saved is a mount that is saved when it is released.
type saved struct {
	*slot
	s       *Saved
	k       Key
	secrets [][]byte // of the step that left it
}

func (m *saved) Release(left Left) error {
	err := m.slot.Release(left)
	if err == nil && left.Whole && m.s.opt.Save {
		m.secrets = left.Secrets
		m.s.begin(m)
	}
	return err
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
		end("it is not restored: "+err.Error(), nil)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		found.Lost(err)
		if err := empty(dir); err != nil {
			return false, err
		}
	}
}

// keepRestored writes beside a restored directory what is known of it.
func keepRestored(slot string, found *cache.Mount, stamps *Stamps) error {
	g := found.Generation
	past := g.Ledger
	if past == nil {
		past = tree.Empty()
	}
	if err := writeTree(filepath.Join(slot, "ledger"), past); err != nil {
		return err
	}
	newest, err := newest(g.Tree)
	if err != nil {
		return err
	}
	rest := filepath.Join(slot, "rest")
	if err := os.WriteFile(rest, nil, 0o644); err != nil {
		return err
	}
	at := time.Unix(0, newest)
	if err := os.Chtimes(rest, at, at); err != nil {
		return err
	}
	return state{base: &found.MountBase, generation: g, stamps: stamps}.save(slot)
}

// newest is the time of the newest file of a tree.
func newest(root *tree.Node) (int64, error) {
	var t int64
	err := tree.Walk(root, func(_ string, n *tree.Node) error {
		t = max(t, n.MTime)
		return nil
	})
	return t, err
}

func empty(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
