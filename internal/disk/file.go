package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Temporary is what the names of files begin with that Replace has not put in their place yet; a process that was killed leaves them.
const Temporary = "tmp-"

// Replace writes a file so that there is either the old one or the whole new one. It is not synced.
func Replace(path string, write func(w io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), Temporary)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// ReadFile reads a file of at most so many bytes; a longer one is an error.
func ReadFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, err
}
