package cachemount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"larder/internal/generation"
	"larder/internal/key"
	"larder/internal/pack"
	"larder/internal/tree"
)

// fetches is how many ranges of packs are read at a time: enough to fill a line whose answers take a while to begin.
const fetches = 8

// Restore writes a generation into dir, which exists, is empty and is nobody else's. Contents come from open, in few large ranges
// read in parallel, each once, and are verified. The stamps are for the Capture that follows. A generation that contradicts itself, and
// contents that are not what it says, are errors that wrap tree.ErrDamaged, or what open or package pack says; after an error dir
// holds a part. Nothing is written outside of dir, whatever the generation says. Nothing is synced to the disk.
//
// Files get an access time shortly before now, which is older than their change: so any reading changes it, also where the file system is
// mounted with relatime.
func Restore(ctx context.Context, dir string, g *generation.Generation, open pack.Opener) (*Stamps, error) {
	s, err := restore(ctx, dir, g, open)
	if err != nil {
		return nil, fmt.Errorf("restore cache mount: %w", err)
	}
	return s, nil
}

func restore(ctx context.Context, dir string, g *generation.Generation, open pack.Opener) (*Stamps, error) {
	p, err := planOf(g)
	if err != nil {
		return nil, err
	}
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r := &restorer{
		rootfd: int(root.Fd()), plan: p, atime: time.Now().Add(-time.Second).UnixNano(), stamps: make([]stamp, p.objects),
	}
	if err := r.fill(ctx, open); err != nil {
		return nil, err
	}
	if err := r.link(ctx); err != nil {
		return nil, err
	}
	if err := r.finish(ctx); err != nil {
		return nil, err
	}
	list := r.stamps[:0]
	for _, s := range r.stamps {
		if s != (stamp{}) { // a device that could not be made
			list = append(list, s)
		}
	}
	return newStamps(list, time.Now()), nil
}

type restorer struct {
	rootfd int
	plan   *plan
	atime  int64   // nanoseconds
	stamps []stamp // by number of the object; each is written by who makes it
	pieces atomic.Int64
}

// fill makes all but further names. The first contents may arrive while directories are still being made.
func (r *restorer) fill(ctx context.Context, open pack.Opener) error {
	made := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := r.folders(ctx); err != nil {
			return err
		}
		close(made)
		return r.eachFolder(ctx, r.others)
	})
	if len(r.plan.pieces) > 0 {
		g.Go(func() error {
			return pack.Fetch(ctx, open, r.plan.pieces, fetches, func(i int, data []byte) error {
				select {
				case <-made:
					return r.piece(ctx, i, data)
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if n := r.pieces.Load(); n != int64(len(r.plan.pieces)) {
		return fmt.Errorf("%d of %d pieces came: %w", n, len(r.plan.pieces), tree.ErrDamaged)
	}
	return nil
}

// folders makes the directories, level by level, open for us alone until finish.
func (r *restorer) folders(ctx context.Context) error {
	for _, level := range r.plan.levels {
		err := inParallel(ctx, len(level), func(i int) error {
			d := level[i]
			if len(d.subs) == 0 {
				return nil
			}
			return r.in(d, func(fd int) error {
				for _, sub := range d.subs {
					if err := unix.Mkdirat(fd, base(sub.path), 0o700); err != nil {
						return fmt.Errorf("/%s: %w", sub.path, os.NewSyscallError("mkdir", err))
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// in calls fn with an open directory.
func (r *restorer) in(d *folder, fn func(fd int) error) error {
	fd, err := openBeneath(r.rootfd, d.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("/%s: %w", d.path, err)
	}
	defer unix.Close(fd)
	return fn(fd)
}

func (r *restorer) eachFolder(ctx context.Context, fn func(*folder) error) error {
	for _, level := range r.plan.levels {
		if err := inParallel(ctx, len(level), func(i int) error { return fn(level[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// others makes what has no contents.
func (r *restorer) others(d *folder) error {
	if len(d.others) == 0 {
		return nil
	}
	return r.in(d, func(fd int) error {
		for _, o := range d.others {
			if err := r.other(fd, o); err != nil {
				return fmt.Errorf("/%s: %w", o.path(), err)
			}
		}
		return nil
	})
}

func (r *restorer) other(dirfd int, o *object) (err error) {
	n := o.node
	switch n.Kind {
	case tree.File:
		return r.whole(o, nil)
	case tree.Symlink:
		err = os.NewSyscallError("symlink", unix.Symlinkat(n.Link, dirfd, o.name))
	case tree.Fifo:
		err = os.NewSyscallError("mkfifo", unix.Mknodat(dirfd, o.name, unix.S_IFIFO|0o600, 0))
	case tree.Char:
		err = os.NewSyscallError("mknod", unix.Mknodat(dirfd, o.name, unix.S_IFCHR|0o600, int(n.Rdev)))
	case tree.Block:
		err = os.NewSyscallError("mknod", unix.Mknodat(dirfd, o.name, unix.S_IFBLK|0o600, int(n.Rdev)))
	}
	if errors.Is(err, unix.EPERM) && (n.Kind == tree.Char || n.Kind == tree.Block) {
		o.absent = true
		return nil
	}
	if err != nil {
		return err
	}
	st, err := setNamed(dirfd, o.name, n.Kind, &n.Meta, r.atime)
	if err != nil {
		return err
	}
	r.stamps[o.number] = stampOf(&st, key.Digest{}, len(n.Xattrs) > 0)
	return nil
}

// link makes further names, and the stamps of what has several: a new name changes the ctime.
func (r *restorer) link(ctx context.Context) error {
	err := r.eachFolder(ctx, func(d *folder) error {
		if len(d.links) == 0 {
			return nil
		}
		return r.in(d, func(fd int) error {
			for _, l := range d.links {
				if l.of.absent {
					continue
				}
				err := r.in(l.of.in, func(from int) error {
					return os.NewSyscallError("link", unix.Linkat(from, l.of.name, fd, l.name, 0))
				})
				if err != nil {
					return fmt.Errorf("/%s: %w", tree.Join(d.path, l.name), err)
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return r.eachFolder(ctx, func(d *folder) error {
		if len(d.linked) == 0 {
			return nil
		}
		return r.in(d, func(fd int) error {
			for _, o := range d.linked {
				if o.absent {
					continue
				}
				var st unix.Stat_t
				if err := unix.Fstatat(fd, o.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					return fmt.Errorf("/%s: %w", o.path(), os.NewSyscallError("fstatat", err))
				}
				r.stamps[o.number].ctime = st.Ctim.Nano()
			}
			return nil
		})
	})
}

// finish gives directories their metadata, children first: a parent may get a mode that keeps us out.
func (r *restorer) finish(ctx context.Context) error {
	for i := len(r.plan.levels) - 1; i >= 0; i-- {
		level := r.plan.levels[i]
		err := inParallel(ctx, len(level), func(i int) error {
			d := level[i]
			return r.in(d, func(fd int) error {
				if _, err := setOpen(fd, tree.Dir, &d.node.Meta, r.atime); err != nil {
					return fmt.Errorf("/%s: %w", d.path, err)
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
