package cachemount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// CaptureOptions say what is not to be saved.
type CaptureOptions struct {
	// Exclude tells of a path below the mount, without a slash in front, whether it is left out, a directory with all that is in it.
	// It is called from several goroutines. Nil leaves nothing out.
	Exclude func(path string, dir bool) bool
	// Secrets are values that must not be saved: a file that has one in its contents, name, attributes or target is left out. White
	// space around them does not count, values of less than 8 bytes are ignored. They are looked for in what is read and in names; what
	// did not change since it was saved was looked through then.
	Secrets [][]byte
}

// Captured is what Capture found.
type Captured struct {
	// Next is what the directory holds now; its Ledger is the caller's to set.
	Next   *generation.Generation
	Stamps *Stamps

	Files, Size   int64 // regular files, and their bytes, those with several names once
	New, NewBytes int64 // contents that before did not have, each once
	Had, Used     int64 // regular files of before, and how many of them were read or written and are still there

	LeftOut []string // paths that were left out because of Secrets, sorted; values are not shown
}

// Capture reads dir, which nobody writes to meanwhile, and packs what is new. before is the generation that it was restored or captured
// as, with the stamps of that time; either may be nil. A file that has its stamp still is not read if before has its contents. A file
// without a stamp counts as used. w is closed, or aborted where there is an error. Sockets are left out.
//
// A directory that changes while it is read is an error, so that what is saved is a state that there was.
func Capture(ctx context.Context, dir string, before *generation.Generation, stamps *Stamps, w *pack.Writer, opt CaptureOptions) (*Captured, error) {
	defer w.Abort() // of no effect once it is closed
	if before == nil {
		before = &generation.Generation{Tree: tree.Empty()}
	}
	root, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("save cache mount: %w", err)
	}
	defer root.Close()
	c := &capture{
		rootfd: int(root.Fd()), before: before, stamps: stamps, writer: w, exclude: opt.Exclude, secrets: secretsOf(opt.Secrets),
		began: time.Now(), inodes: map[inode]names{}, refs: map[key.Digest][]pack.Ref{},
	}
	out, err := c.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("save cache mount: %w", err)
	}
	return out, nil
}

type capture struct {
	rootfd  int
	before  *generation.Generation
	stamps  *Stamps
	writer  *pack.Writer
	exclude func(path string, dir bool) bool
	secrets *secrets
	began   time.Time

	mu      sync.Mutex
	entries int
	inodes  map[inode]names           // of what has several names
	refs    map[key.Digest][]pack.Ref // of contents that were read
	leftOut []string
}

type inode struct{ dev, ino uint64 }

func (a inode) compare(b inode) int {
	return cmp.Or(cmp.Compare(a.dev, b.dev), cmp.Compare(a.ino, b.ino))
}

func (c *capture) run(ctx context.Context) (*Captured, error) {
	root := &listing{old: c.before.Tree}
	if err := c.walk(ctx, root); err != nil {
		return nil, err
	}
	if root.left {
		return nil, errors.New("an attribute of its directory holds a secret")
	}
	if err := c.readNew(ctx, root); err != nil {
		return nil, err
	}
	if err := c.recheck(ctx, root); err != nil {
		return nil, err
	}
	where, err := c.writer.Close(ctx)
	if err != nil {
		return nil, err
	}
	return c.result(root, where)
}

// leave notes a path that is left out because of a secret.
func (c *capture) leave(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leftOut = append(c.leftOut, c.secrets.hide(path))
}

// readNew reads the files whose contents are not known, in the order of their paths, so that neighbours come to lie in one pack.
func (c *capture) readNew(ctx context.Context, root *listing) error {
	var unread []*entry
	root.each(func(e *entry) {
		if e.unread && (e.names == nil || e.names[0] == e) {
			unread = append(unread, e)
		}
	})
	next := make(chan *entry)
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.NumCPU(), len(unread)) {
		g.Go(func() error {
			r := &reader{capture: c}
			for e := range next {
				if err := r.read(ctx, e); err != nil {
					return fmt.Errorf("/%s: %w", c.secrets.hide(e.path()), err)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(next)
		for _, e := range unread {
			select {
			case next <- e:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// recheck makes sure that no name came or went while files were read.
func (c *capture) recheck(ctx context.Context, root *listing) error {
	var all []*listing
	root.listings(func(l *listing) { all = append(all, l) })
	return inParallel(ctx, len(all), func(i int) error {
		l := all[i]
		fd, err := openBeneath(c.rootfd, l.path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("/%s: %w", l.path, err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("/%s: %w", l.path, os.NewSyscallError("fstat", err))
		}
		if now := stampOf(&st, key.Digest{}, false); !now.unchanged(&l.stamp) {
			return fmt.Errorf("/%s: %w", l.path, errChanged)
		}
		return nil
	})
}

var errChanged = errors.New("it was changed while it was read")
