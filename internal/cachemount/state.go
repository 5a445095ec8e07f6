package cachemount

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"larder/internal/cache"
	"larder/internal/disk"
	"larder/internal/generation"
	"larder/internal/key"
)

// state is what is known of a directory since it was last restored or saved: what it held then, and where that is written down. The
// zero value knows nothing.
type state struct {
	base       *cache.MountBase
	generation *generation.Generation
	stamps     *Stamps
}

// Files of a state, beside the directory. The first is written last and removed first: without it the others do not count.
const (
	stateFile      = "saved.json"
	generationFile = "generation"
	stampsFile     = "stamps"
)

// stateJSON is the first file.
type stateJSON struct {
	Version    int             `json:"version"` // 1
	Base       cache.MountBase `json:"base"`
	Generation key.Digest      `json:"generation"` // sha256 of the second file
}

const stateVersion = 1

// maxGeneration bounds the second file, in bytes.
const maxGeneration = 256 << 20

func (st state) save(dir string) error {
	if err := forgetState(dir); err != nil {
		return err
	}
	full, err := generation.Full(st.generation)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, generationFile), full, 0o600); err != nil {
		return err
	}
	if err := st.stamps.Save(filepath.Join(dir, stampsFile)); err != nil {
		return err
	}
	b, err := json.Marshal(stateJSON{stateVersion, *st.base, key.Bytes(full)})
	if err != nil {
		return err
	}
	return disk.Replace(filepath.Join(dir, stateFile), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func forgetState(dir string) error {
	err := os.Remove(filepath.Join(dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// loadState reads what save wrote. What is damaged is as good as nothing: all files are read again then.
func loadState(dir string) state {
	b, err := disk.ReadFile(filepath.Join(dir, stateFile), 16<<20)
	if err != nil {
		return state{}
	}
	var j stateJSON
	if json.Unmarshal(b, &j) != nil || j.Version != stateVersion {
		return state{}
	}
	full, err := disk.ReadFile(filepath.Join(dir, generationFile), maxGeneration)
	if err != nil || key.Bytes(full) != j.Generation {
		return state{}
	}
	g, err := generation.Read([][]byte{full})
	if err != nil {
		return state{}
	}
	stamps, err := LoadStamps(filepath.Join(dir, stampsFile))
	if err != nil {
		return state{}
	}
	return state{&j.Base, g, stamps}
}
