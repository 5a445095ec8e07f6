package runstep

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/cachemount"
)

// meeting is a Store by which two steps hold their first mount each, where they can, before either asks for the next.
type meeting struct {
	cachemount.Store
	mu   sync.Mutex
	held int
	both chan struct{}
}

func (m *meeting) Acquire(ctx context.Context, k cachemount.Key, sharing cachemount.Sharing, fill cachemount.Fill) (cachemount.Mount, error) {
	got, err := m.Store.Acquire(ctx, k, sharing, fill)
	m.mu.Lock()
	if m.held++; m.held == 2 {
		close(m.both)
	}
	m.mu.Unlock()
	select {
	case <-m.both:
	case <-time.After(50 * time.Millisecond):
	}
	return got, err
}

// TestCachesInOppositeModes: two steps want the same two mounts, each locks the one that the other shares. Both get them, one after the other.
func TestCachesInOppositeModes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, order := range [][]string{{"x", "y"}, {"y", "x"}} {
		r := New(nil, &meeting{Store: cachemount.Open(t.TempDir()), both: make(chan struct{})}, Options{})
		var wg sync.WaitGroup
		for _, locked := range []string{"x", "y"} {
			wg.Go(func() {
				op := &pb.ExecOp{Meta: &pb.Meta{Cwd: "/"}}
				for _, id := range order {
					m := sharedCache(id, "/"+id)
					if id == locked {
						m.CacheOpt.Sharing = pb.CacheSharingOpt_LOCKED
					}
					op.Mounts = append(op.Mounts, m)
				}
				p := newPrepared(r, Step{Op: op})
				if err := p.acquireCaches(ctx); err != nil {
					t.Errorf("the step that locks %s: %v", locked, err)
				}
				if err := p.release(true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
