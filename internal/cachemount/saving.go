package cachemount

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// save is what is being done to save a directory after a step left it.
type save struct {
	stop context.CancelFunc
	done chan struct{}
}

// errBusy says that another step has the directory, whoever's.
var errBusy = errors.New("another step has the cache mount")

// begin saves a directory in the background. A step that wants one of the mount's stops that; it is done again when nobody has the directory.
func (s *Saved) begin(m *saved) {
	keyDir := filepath.Dir(m.dir)
	ctx, stop := context.WithCancel(s.ctx)
	sv := &save{stop, make(chan struct{})}
	s.mu.Lock()
	s.of(m.dir).left = m
	s.saves[keyDir] = append(s.saves[keyDir], sv)
	s.mu.Unlock()
	go func() {
		defer func() {
			stop()
			s.mu.Lock()
			s.saves[keyDir] = slices.DeleteFunc(s.saves[keyDir], func(o *save) bool { return o == sv })
			s.mu.Unlock()
			close(sv.done)
		}()
		err := s.capture(ctx, m)
		if ctx.Err() != nil || errors.Is(err, errBusy) {
			return
		}
		if err != nil {
			s.session.Lose(fmt.Errorf("cache mount %s is not saved: %w", m.k.Name(), err))
		}
		s.mu.Lock()
		if u := s.of(m.dir); u.left == m {
			u.left = nil
		}
		s.mu.Unlock()
	}()
}

// going lists what is being saved: of one key's directories, or of all for "".
func (s *Saved) going(keyDir string) []*save {
	s.mu.Lock()
	defer s.mu.Unlock()
	if keyDir != "" {
		return slices.Clone(s.saves[keyDir])
	}
	var all []*save
	for _, list := range s.saves {
		all = append(all, list...)
	}
	return all
}

// interrupt ends the saving of a key's directories.
func (s *Saved) interrupt(ctx context.Context, keyDir string) error {
	list := s.going(keyDir)
	for _, sv := range list {
		sv.stop()
	}
	return wait(ctx, list)
}

func wait(ctx context.Context, list []*save) error {
	for _, sv := range list {
		select {
		case <-sv.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Flush saves what steps left and nobody has any more, and waits until that is written down.
func (s *Saved) Flush(ctx context.Context) {
	if wait(ctx, s.going("")) != nil {
		return
	}
	s.mu.Lock()
	var again []*saved
	for _, u := range s.dirs {
		if u.left != nil {
			again = append(again, u.left)
		}
	}
	s.mu.Unlock()
	for _, m := range again {
		s.begin(m)
	}
	wait(ctx, s.going(""))
}

// Close stops what still goes on.
func (s *Saved) Close() {
	s.stop()
	wait(context.Background(), s.going(""))
}
