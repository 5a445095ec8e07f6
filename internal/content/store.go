package content

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"larder/internal/key"
)

// ErrNotFound is wrapped when a blob is not here, or was and turned out to be damaged.
var ErrNotFound = errors.New("blob is not in the local store")

// useStep is how stale a blob's last-use time may be: a look-up within it costs no write.
const useStep = time.Hour

// Store is a directory of blobs. It is safe for concurrent use, and any number of processes may share the directory.
type Store struct {
	dir   string
	fresh string // new/<boot id>
	lease lease

	bootKnown bool
}

// Info is what the store knows of a blob without reading it.
type Info struct {
	Digest digest.Digest
	Size   int64     // bytes
	Used   time.Time // last use, to within an hour
}

// Open uses dir, which is made if it is missing. Left-overs of writers that died are removed.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	boot, known := bootID()
	s := &Store{dir: dir, fresh: filepath.Join(dir, "new", boot), bootKnown: known}
	for _, d := range []string{s.fresh, s.path("sha256"), s.path("tmp"), s.path("leases")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open blob store: %w", err)
		}
	}
	s.lease.store = s
	s.sweepTmp()
	s.sweepOldBoots()
	s.sweepLeases()
	return s, nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Close gives the lease up: the collector may then take everything. Blobs that are open stay readable.
func (s *Store) Close() error { return s.lease.close() }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) durablePath(d key.Digest) string {
	h := d.Hex()
	return s.path("sha256", h[:2], h)
}

func (s *Store) freshPath(d key.Digest) string { return filepath.Join(s.fresh, d.Hex()) }

// locate opens a blob's file. Sync in another process may move it between the two looks, hence the third.
func (s *Store) locate(dgst digest.Digest) (*os.File, error) {
	d, err := key.FromOCI(dgst)
	if err != nil {
		return nil, err
	}
	if err := s.lease.hold(d); err != nil {
		return nil, err
	}
	for _, p := range []string{s.durablePath(d), s.freshPath(d), s.durablePath(d)} {
		f, err := os.Open(p)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: %w", dgst, ErrNotFound)
}

// Stat says whether a blob is here; ErrNotFound if not. The blob is then kept until the process ends.
func (s *Store) Stat(dgst digest.Digest) (Info, error) {
	f, err := s.locate(dgst)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	touch(f.Name(), st)
	return Info{Digest: dgst, Size: st.Size(), Used: st.ModTime()}, nil
}

// Has is Stat for those who only look round: it takes no lease, so the answer may be out of date at once.
func (s *Store) Has(dgst digest.Digest) bool {
	d, err := key.FromOCI(dgst)
	if err != nil {
		return false
	}
	for _, p := range []string{s.durablePath(d), s.freshPath(d), s.durablePath(d)} {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
}

func touch(path string, st os.FileInfo) {
	if now := time.Now(); now.Sub(st.ModTime()) > useStep {
		os.Chtimes(path, now, now) // best effort: it only orders the collector's choices
	}
}

// Delete removes a blob; one that is not here is no error. Readers that have it open go on.
func (s *Store) Delete(dgst digest.Digest) error {
	d, err := key.FromOCI(dgst)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range []string{s.freshPath(d), s.durablePath(d)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Walk calls fn for every blob, in no particular order. Blobs that come or go meanwhile may be missed. An error of fn ends
// the walk and is returned.
func (s *Store) Walk(fn func(Info) error) error {
	dirs := []string{s.fresh}
	prefixes, err := os.ReadDir(s.path("sha256"))
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		dirs = append(dirs, s.path("sha256", p.Name()))
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			d, err := key.Parse("sha256:" + e.Name())
			if err != nil {
				continue
			}
			st, err := e.Info()
			if err != nil {
				continue // gone since
			}
			if err := fn(Info{Digest: d.OCI(), Size: st.Size(), Used: st.ModTime()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bootID names the running kernel; where it cannot be told, a name that no other process will trust.
func bootID() (id string, known bool) {
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		if id := strings.TrimSpace(string(b)); id != "" && !strings.ContainsAny(id, "/.") {
			return id, true
		}
	}
	return fmt.Sprintf("unknown-%d-%d", os.Getpid(), time.Now().UnixNano()), false
}
