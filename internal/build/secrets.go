package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"larder/internal/runstep"
)

// maxSecret bounds a secret, in bytes; BuildKit's bound.
const maxSecret = 500 << 10

// secrets reads the secrets of one build, each once: one that comes through a pipe can be read once only. It is safe for
// concurrent use.
type secrets struct {
	given map[string]Secret

	mu   sync.Mutex
	read map[string][]byte
}

// value gives a secret. An error wraps runstep.ErrNoSecret where the build was not given it.
func (s *secrets) value(_ context.Context, id string) ([]byte, error) {
	from, ok := s.given[id]
	if !ok {
		return nil, runstep.ErrNoSecret
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.read[id]; ok {
		return v, nil
	}
	v, err := from.value()
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", id, err)
	}
	if s.read == nil {
		s.read = map[string][]byte{}
	}
	s.read[id] = v
	return v, nil
}

func (s Secret) value() ([]byte, error) {
	if s.Env != "" {
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set", s.Env)
		}
		return []byte(v), nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, err
	}
	if len(v) > maxSecret {
		return nil, fmt.Errorf("%s has more than %d bytes", s.File, maxSecret)
	}
	return v, nil
}
