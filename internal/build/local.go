package build

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/solver/pb"

	"larder/internal/layer"
	"larder/internal/progress"
	buildcontext "larder/internal/source/context"
)

// locals scans the directories of one build, each with the same filters once.
type locals struct {
	dirs  map[string]string // by the frontend's name
	cache *buildcontext.StatCache
	times *times

	mu    sync.Mutex
	scans map[string]*scanned
}

type scanned struct {
	once sync.Once
	l    *layer.Layer
	err  error
}

// load gives a directory as a state of one observed layer.
func (s *locals) load(ctx context.Context, op *pb.SourceOp) (*layer.State, error) {
	name := strings.TrimPrefix(op.Identifier, "local://")
	dir, ok := s.dirs[name]
	if !ok {
		return nil, fmt.Errorf("there is no build context named %q; give it with --build-context %s=DIR", name, name)
	}
	opt, err := buildcontext.Parse(op.Attrs)
	if err != nil {
		return nil, err
	}
	opt.Cache = s.cache
	id := fmt.Sprintf("%q %q %q %q", name, opt.Include, opt.Exclude, opt.FollowPaths)
	s.mu.Lock()
	if s.scans == nil {
		s.scans = map[string]*scanned{}
	}
	sc := s.scans[id]
	if sc == nil {
		sc = new(scanned)
		s.scans[id] = sc
	}
	s.mu.Unlock()
	sc.once.Do(func() {
		var stats buildcontext.Stats
		sc.l, stats, sc.err = buildcontext.Scan(ctx, dir, opt)
		if sc.err == nil && !internal(name, opt) {
			sc.l = s.times.date(sc.l, name, dir, id)
		}
		if sc.err == nil {
			if stats.CacheErr != nil {
				progress.From(ctx).Note("digests are not remembered for the next build: " + stats.CacheErr.Error())
			}
			progress.From(ctx).Note(fmt.Sprintf("%d files, %s; %d of them read", stats.Files, units.BytesSize(float64(stats.Bytes)), stats.HashedFiles))
		}
	})
	if sc.err != nil {
		if ctx.Err() != nil { // this scan was stopped; whoever wants it again starts over
			s.mu.Lock()
			delete(s.scans, id)
			s.mu.Unlock()
		}
		return nil, sc.err
	}
	return layer.Stack(sc.l), nil
}

// internal tells the sources that only the frontend reads. No step ever sees them.
func internal(name string, opt buildcontext.Options) bool {
	return name == "dockerfile" || slices.Equal(opt.FollowPaths, []string{".dockerignore"})
}
