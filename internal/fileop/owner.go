package fileop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"syscall"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"

	"larder/internal/tree"
)

// maxUserFile bounds /etc/passwd and /etc/group, as BuildKit does.
const maxUserFile = 10 << 20

// owner finds out whom an action gives things to. A user by number is in the group of the same number.
func (r *run) owner(ctx context.Context, opt *pb.ChownOpt, above []int) (owner, error) {
	if opt == nil {
		return owner{}, nil
	}
	o := owner{set: true}
	if opt.User != nil {
		switch u := opt.User.User.(type) {
		case *pb.UserOpt_ByName:
			found, err := r.named(ctx, u.ByName, false, above)
			if err != nil {
				return owner{}, err
			}
			o.uid, o.gid = found.UID, found.GID
		case *pb.UserOpt_ByID:
			o.uid, o.gid = u.ByID, u.ByID
		}
	}
	if opt.Group != nil {
		switch g := opt.Group.User.(type) {
		case *pb.UserOpt_ByName:
			found, err := r.named(ctx, g.ByName, true, above)
			if err != nil {
				return owner{}, err
			}
			if found.Found {
				o.gid = found.GID
			}
		case *pb.UserOpt_ByID:
			o.gid = g.ByID
		}
	}
	return o, nil
}

// named looks a name up in the input that the option says, or in what was recorded of it.
func (r *run) named(ctx context.Context, opt *pb.NamedUserOpt, group bool, above []int) (Owner, error) {
	if opt == nil {
		return Owner{}, errors.New("an owner without a name")
	}
	if opt.Input < 0 || opt.Input >= int64(len(r.inputs)+len(r.op.Actions)) {
		return Owner{}, fmt.Errorf("invalid user index %d", opt.Input)
	}
	want := Owner{Input: int(opt.Input), Group: group, Name: opt.Name}
	if want.Input < len(r.inputs) { // what an action made is no part of the resolution
		known := r.rec.owners
		if r.known != nil {
			known = r.known.Owners
		}
		for _, o := range known {
			if compareOwners(o, want) == 0 {
				r.rec.owners = append(r.rec.owners, o)
				return o, nil
			}
		}
		if r.known != nil {
			return Owner{}, fmt.Errorf("the owner %q in input %d is %w", opt.Name, opt.Input, ErrUnresolved)
		}
	}
	from, err := r.origin(ctx, int(opt.Input), above)
	if err != nil {
		return Owner{}, err
	}
	if err := r.lookUp(ctx, from, &want); err != nil {
		return Owner{}, fmt.Errorf("look up owner %q: %w", opt.Name, err)
	}
	if want.Input < len(r.inputs) {
		r.rec.owners = append(r.rec.owners, want)
	}
	return want, nil
}

func (r *run) lookUp(ctx context.Context, from origin, o *Owner) error {
	name := "/etc/passwd"
	if o.Group {
		name = "/etc/group"
	}
	f, err := r.userFile(ctx, from, name)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: maxUserFile + 1}
	var ids []int
	if o.Group {
		list, perr := user.ParseGroupFilter(limited, func(g user.Group) bool { return g.Name == o.Name })
		if err = perr; len(list) > 0 {
			ids = []int{0, list[0].Gid}
		}
	} else {
		list, perr := user.ParsePasswdFilter(limited, func(u user.User) bool { return u.Name == o.Name })
		if err = perr; len(list) > 0 {
			ids = []int{list[0].Uid, list[0].Gid}
		}
	}
	if limited.N == 0 {
		return fmt.Errorf("%s exceeds %d bytes", name, maxUserFile)
	}
	if err != nil || ids == nil {
		return err
	}
	for _, id := range ids {
		if id < 0 || id > math.MaxUint32 {
			return fmt.Errorf("%s has a number that is none: %d", name, id)
		}
	}
	o.Found, o.UID, o.GID = true, uint32(ids[0]), uint32(ids[1])
	return nil
}

// userFile opens a file of an input, links resolved; nil when it does not exist.
func (r *run) userFile(ctx context.Context, from origin, name string) (io.ReadCloser, error) {
	clean, n, err := tree.Resolve(from.root, name, true)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) && pe.Err == syscall.ENOTDIR {
			return nil, nil
		}
		return nil, err
	}
	if n == nil {
		return nil, nil
	}
	if n.Kind != tree.File {
		return nil, fmt.Errorf("%s is not a regular file", clean)
	}
	return r.open(ctx, from, clean, n)
}
