package cachemount

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// save is what is being done to save a mount after a step left it.
type save struct {
	stop context.CancelFunc
	done chan struct{}
}

// begin saves a mount in the background. A step that wants it stops that; when it has left the mount, it is saved anew.
func (s *Saved) begin(m *saved) {
	dir := filepath.Dir(m.dir)
	ctx, stop := context.WithCancel(s.ctx)
	sv := &save{stop, make(chan struct{})}
	s.mu.Lock()
	if before := s.pending[m.dir]; before != nil {
		m.secrets = append(m.secrets, before.secrets...)
	}
	s.pending[m.dir] = m
	before := s.saves[dir]
	s.saves[dir] = sv
	s.mu.Unlock()
	go func() {
		defer close(sv.done)
		defer stop()
		if before != nil {
			<-before.done
		}
		if ctx.Err() != nil {
			return
		}
		err := s.capture(ctx, m)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.opt.Warn(fmt.Sprintf("cache mount %s is not saved: %v", m.k.Name(), err))
		}
		s.mu.Lock()
		if s.pending[m.dir] == m {
			delete(s.pending, m.dir)
		}
		s.mu.Unlock()
	}()
}

// interrupt ends the saving of a key's directories.
func (s *Saved) interrupt(dir string) {
	s.mu.Lock()
	sv := s.saves[dir]
	s.mu.Unlock()
	if sv != nil {
		sv.stop()
		<-sv.done
	}
}

// Flush saves what steps left and nobody has any more, and waits until that is written down.
func (s *Saved) Flush(ctx context.Context) {
	s.wait(ctx)
	s.mu.Lock()
	again := slices.Collect(maps.Values(s.pending))
	s.mu.Unlock()
	for _, m := range again {
		s.begin(m)
	}
	s.wait(ctx)
}

func (s *Saved) wait(ctx context.Context) {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.saves))
	s.mu.Unlock()
	for _, sv := range list {
		select {
		case <-sv.done:
		case <-ctx.Done():
			return
		}
	}
}

// Close stops what still goes on.
func (s *Saved) Close() {
	s.stop()
	s.wait(context.Background())
}
