package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"larder/internal/cache"
	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/ledger"
	"larder/internal/tree"
)

// times gives the files of build contexts the times that they had in earlier builds: a checkout on an empty machine is new in all of its
// files (DESIGN section 3, Times).
type times struct {
	session *cache.Session
	remote  bool   // ledgers are kept in remote caches, else in dir
	save    bool   // in remote caches
	dir     string // of the local root

	mu       sync.Mutex
	contexts map[string]*dated // by name
}

// dated is what is known of one context.
type dated struct {
	once sync.Once
	err  error

	mu    sync.Mutex
	key   key.Digest
	base  *cache.MountBase // where old is written down in remote caches
	old   *tree.Node       // what earlier builds were shown
	looks []looked         // what this one is shown
}

// looked is what somebody was shown of a context.
type looked struct {
	root *tree.Node
	by   key.Digest
}

// date gives a scanned layer the times to show. Nothing is asked before somebody wants its tree: what did not change needs no times.
func (t *times) date(l *layer.Layer, name, dir, by string) *layer.Layer {
	return layer.Lazy(l.Identity, false, l.Contents, func(ctx context.Context) (*tree.Node, error) {
		root, err := l.Tree(ctx)
		if err != nil {
			return nil, err
		}
		d := t.context(ctx, name, dir)
		if d.err != nil {
			return nil, d.err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		look := ledger.Look{By: key.New("larder.look.context.v1").Str(by).Sum(), Now: time.Now()}
		if d.old != nil {
			look.Ledgers = []*tree.Node{d.old}
		}
		if root, err = ledger.Show(root, look); err != nil {
			return nil, err
		}
		d.looks = append(d.looks, looked{root, look.By})
		return root, nil
	})
}

// context reads the ledger of a context, once.
func (t *times) context(ctx context.Context, name, dir string) *dated {
	t.mu.Lock()
	if t.contexts == nil {
		t.contexts = map[string]*dated{}
	}
	d := t.contexts[name]
	if d == nil {
		d = new(dated)
		t.contexts[name] = d
	}
	t.mu.Unlock()
	d.once.Do(func() {
		var err error
		if t.remote {
			d.key = key.New("larder.ledger.v1").Str(name).Str(within(dir)).Sum()
			if m := t.session.Mount(ctx, d.key); m != nil {
				d.base, d.old = &m.MountBase, m.Generation.Ledger
			}
			d.err = context.Cause(ctx)
		} else {
			d.key = key.New("larder.ledger.local.v1").Str(t.session.Domain()).Str(name).Str(dir).Sum()
			if d.old, err = ledger.ReadFile(t.file(d)); err != nil {
				d.old = tree.Empty() // damaged: as if all files were new
			}
			now := time.Now()
			os.Chtimes(t.file(d), now, now) // what was used last is what a collector spares
		}
	})
	return d
}

func (t *times) file(d *dated) string { return filepath.Join(t.dir, d.key.Hex()) }

// within is where a directory lies in the checkout that it belongs to; "." where it is one, or belongs to none. Machines check out to
// different places.
func within(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			rel, err := filepath.Rel(at, dir)
			if err != nil {
				return "."
			}
			return rel
		}
		if at == filepath.Dir(at) {
			return "."
		}
	}
}

// next gives the ledger that follows old, with what this build was shown.
func (d *dated) next(old *tree.Node) (root *tree.Node, err error) {
	root = old
	for _, l := range d.looks {
		if root, err = ledger.Merge(root, l.root, l.by); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// keep writes down what this build was shown. A build that asked for no times has nothing to say.
func (t *times) keep() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for name, d := range t.contexts {
		d.mu.Lock()
		if d.err == nil && len(d.looks) > 0 {
			var err error
			if t.remote {
				err = t.put(name, d)
			} else {
				err = t.write(d)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("times of %s: %w", name, err))
			}
		}
		d.mu.Unlock()
	}
	return errors.Join(errs...)
}

// put writes a ledger down in remote caches.
func (t *times) put(name string, d *dated) error {
	if !t.save {
		return nil
	}
	root, err := d.next(d.old)
	if err != nil {
		return err
	}
	next := &generation.Generation{Tree: tree.Empty(), Ledger: root}
	change := cache.MountChange{Slot: "ledger " + name, Key: d.key, Base: d.base, Next: next}
	if d.base != nil {
		change.Prev = &generation.Generation{Tree: tree.Empty(), Ledger: d.old}
	}
	_, err = t.session.PutMount(change)
	return err
}

// write writes a ledger down in the local root: to what is there now, as other builds of the context may have ended meanwhile.
func (t *times) write(d *dated) error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	return ledger.UpdateFile(context.Background(), t.file(d), d.next)
}
