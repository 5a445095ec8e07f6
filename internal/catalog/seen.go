package catalog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"larder/internal/key"
)

// Seen remembers, in files of the local root, the newest signed catalog of each scope, so that an older one which somebody
// puts back is told. A nil Seen remembers nothing. It is safe for concurrent use, by several processes too.
//
// Catalogs in directories are not remembered. A directory has no name that it keeps: CI systems restore it under any path, as it was
// some builds ago, and one root may see many. Who holds it can put back what was signed once; the age of the signature bounds that.
type Seen struct{ dir string }

// OpenSeen gives the memory in a directory, which is made when there is something to remember.
func OpenSeen(dir string) *Seen { return &Seen{dir: dir} }

// sighting is what is remembered of a catalog.
type sighting struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
}

// older tells whether a catalog must be a replay. Writers at the same moment may lose a race to a document that is a little
// older, so only what is older by more than such a race counts.
func (s sighting) older(than sighting) bool {
	return s.Sequence < than.Sequence && s.Time.Before(than.Time.Add(-raceTime))
}

func (s *Seen) path(repository, scope string) string {
	return filepath.Join(s.dir, key.New("catalog seen").Str(repository).Str(scope).Sum().Hex())
}

// last gives what was seen last; nothing where that cannot be read.
func (s *Seen) last(repository, scope string) sighting {
	var last sighting
	if s == nil {
		return last
	}
	b, err := os.ReadFile(s.path(repository, scope))
	if err != nil || json.Unmarshal(b, &last) != nil {
		return sighting{}
	}
	return last
}

// note remembers a catalog if it is newer than the last one. Two processes that note at once may keep the older of the two: that is
// within what older lets pass. A memory that cannot be written protects less, and fails nothing.
func (s *Seen) note(repository, scope string, now sighting) {
	if s == nil || now.Sequence <= s.last(repository, scope).Sequence {
		return
	}
	b, err := json.Marshal(now)
	if err != nil || os.MkdirAll(s.dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(s.dir, "tmp-")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err != nil || cerr != nil || os.Rename(f.Name(), s.path(repository, scope)) != nil {
		os.Remove(f.Name())
	}
}
