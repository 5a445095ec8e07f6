package context

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// Options say what of a directory is wanted. The zero value takes all of it.
type Options struct {
	// Include, where not empty, takes only paths that match a pattern or lie below one that does.
	Include []string
	// Exclude leaves out what matches, in .dockerignore's language with its "!" exceptions.
	Exclude []string
	// FollowPaths are paths, with wildcards, that are added to Include together with every symlink on the way and the
	// place where it leads.
	FollowPaths []string
	// Cache remembers digests between scans; nil hashes every file.
	Cache *StatCache
	// KeepOwner keeps uid and gid; otherwise everything belongs to root.
	KeepOwner bool
	// Progress, where set, is told now and then how much was scanned. It is called by one goroutine at a time.
	Progress func(Stats)
}

// Stats count what a scan saw.
type Stats struct {
	Files       int64 // files of all kinds that are in the layer
	Bytes       int64 // their size
	HashedFiles int64 // files that had to be read
	HashedBytes int64 // what was read of them
	CacheErr    error // why the digests could not be saved for the next scan; no reason to fail
}

type counters struct {
	files, bytes, hashedFiles, hashedBytes atomic.Int64

	cacheErr error
}

func (c *counters) stats() Stats {
	return Stats{c.files.Load(), c.bytes.Load(), c.hashedFiles.Load(), c.hashedBytes.Load(), c.cacheErr}
}

// scan is one run of Scan; its workers share it.
type scan struct {
	opt   Options
	dir   string   // absolute, without symlinks
	root  *os.File // dir
	table *table   // nil without a cache
	count counters
	queue queue

	linkMu sync.Mutex
	links  map[inode]uint64 // groups of files with several names

	progressMu sync.Mutex
}

type inode struct{ dev, ino uint64 }

// Scan reads the directory dir, which may be a symlink to one, and makes it a layer with one tree. Files that vanish
// meanwhile are absent; one that never stands still while it is hashed is an error, and so is one that may not be read. The
// layer's Contents open the files of dir by digest, never through a symlink.
func Scan(ctx context.Context, dir string, opt Options) (*layer.Layer, Stats, error) {
	s, err := open(dir, opt)
	if err != nil {
		return nil, Stats{}, err
	}
	root, err := s.run(ctx)
	if err != nil {
		s.root.Close()
		return nil, s.count.stats(), fmt.Errorf("read context %s: %w", dir, err)
	}
	identity, err := root.Identity()
	if err != nil {
		s.root.Close()
		return nil, s.count.stats(), fmt.Errorf("read context %s: %w", dir, err)
	}
	if opt.Progress != nil {
		opt.Progress(s.count.stats())
	}
	return layer.New(identity, false, root, &files{dir: s.root, name: s.dir, tree: root}), s.count.stats(), nil
}

func open(dir string, opt Options) (*scan, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, fmt.Errorf("read context %s: %w", dir, err)
	}
	f, err := os.OpenFile(abs, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read context: %w", err)
	}
	return &scan{opt: opt, dir: abs, root: f, links: map[inode]uint64{}}, nil
}

// run walks the directory with all workers and assembles the tree.
func (s *scan) run(ctx context.Context) (*tree.Node, error) {
	patterns, err := s.patterns()
	if err != nil {
		return nil, err
	}
	if s.opt.Cache != nil {
		s.table = s.opt.Cache.open(s.dir)
	}
	top := &directory{wanted: true}
	s.queue.push(task{dir: top})

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { s.queue.fail(context.Cause(ctx)) })()

	workers := make([]*worker, min(max(2*runtime.GOMAXPROCS(0), 4), 16))
	var wg sync.WaitGroup
	for i := range workers {
		w, err := s.newWorker(ctx, patterns)
		if err != nil {
			return nil, err
		}
		workers[i] = w
	}
	for _, w := range workers {
		wg.Go(w.run)
	}
	wg.Wait()
	if err := s.queue.err(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	root, err := top.assemble()
	if err != nil {
		return nil, err
	}
	if s.table != nil {
		var fresh []record
		for _, w := range workers {
			fresh = append(fresh, w.fresh...)
		}
		s.count.cacheErr = s.table.save(fresh)
	}
	return root, nil
}

// now is the time, by the cache's clock where there is one.
func (s *scan) now() time.Time {
	if s.opt.Cache == nil {
		return time.Now()
	}
	return s.opt.Cache.now()
}

// group gives the hard-link group of a file that has several names.
func (s *scan) group(id inode) uint64 {
	s.linkMu.Lock()
	defer s.linkMu.Unlock()
	g, ok := s.links[id]
	if !ok {
		g = tree.NewGroup()
		s.links[id] = g
	}
	return g
}

// emptyDigest is what a file without bytes hashes to.
var emptyDigest = key.Bytes(nil)
