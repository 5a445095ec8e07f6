package cachemount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/ledger"
	"larder/internal/tree"
)

// slot is one directory of a key, locked. Files beside it say what state it is in:
//
//	rest     is there while nobody has it; its time says since when. Gone without anybody having it: a step was killed there
//	torn     a step did not come to its end, and none that began later has
//	secrets  a step that had it was given secrets, and what it left has not been searched for them, or has some in it
//	unsaved  it began empty because it could not be restored, for a reason on this machine
//	ledger   what steps were shown
type slot struct {
	dir    string
	lock   *flock.Lock
	shared bool // another step had it already when it was locked
	past   int64
	torn   bool // it was torn when this step began
}

func (m *slot) Dir() string { return filepath.Join(m.dir, "data") }

func (m *slot) ledgerFile() string  { return filepath.Join(m.dir, "ledger") }
func (m *slot) restFile() string    { return filepath.Join(m.dir, "rest") }
func (m *slot) tornFile() string    { return filepath.Join(m.dir, "torn") }
func (m *slot) secretsFile() string { return filepath.Join(m.dir, "secrets") }
func (m *slot) unsavedFile() string { return filepath.Join(m.dir, "unsaved") }

// begin notes that a step has the mount from now on.
func (m *slot) begin() {
	now := time.Now()
	os.Chtimes(filepath.Join(m.dir, "key"), now, now)
	m.torn = exists(m.tornFile())
	switch st, err := os.Stat(m.restFile()); {
	case err == nil && !m.shared:
		m.past = st.ModTime().UnixNano()
	case m.shared:
		m.past = now.UnixNano() // another step is writing to it
	case exists(m.ledgerFile()):
		m.past, m.torn = now.UnixNano(), true // one was killed while it did
	}
	os.Remove(m.restFile())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Past is Mount's.
func (m *slot) Past() (Past, error) {
	seen, err := ledger.ReadFile(m.ledgerFile())
	return Past{Ledger: seen, Newest: m.past}, err
}

// Show is Mount's. Steps that have the mount at the same time add to one ledger.
func (m *slot) Show(ctx context.Context, seen *tree.Node, by key.Digest) error {
	return ledger.UpdateFile(ctx, m.ledgerFile(), func(old *tree.Node) (*tree.Node, error) { return ledger.Merge(old, seen, by) })
}

// Guard is Mount's: the mark outlives the process.
func (m *slot) Guard([][]byte) error { return os.WriteFile(m.secretsFile(), nil, 0o600) }

// Release is Mount's. What a step left stays on this disk in any case, half a download being better than none.
func (m *slot) Release(whole bool) error {
	var errs []error
	switch {
	case !whole:
		errs = append(errs, os.WriteFile(m.tornFile(), nil, 0o600))
	case m.torn: // a tool has been over what the killed one left
		errs = append(errs, os.Remove(m.tornFile()))
	}
	if errors.Is(errors.Join(errs...), fs.ErrNotExist) {
		errs = nil
	}
	return errors.Join(append(errs, m.rest())...)
}

// rest says that nobody has the mount from now on, if that is so: who leaves last says when. Without that it counts as one that a step was killed in.
func (m *slot) rest() error {
	// Whoever wants it at this moment finds the lock taken, and must not be given another directory for that.
	leaving, err := flock.Acquire(context.Background(), leaveLock(filepath.Dir(m.dir)), flock.Exclusive)
	if err != nil {
		return errors.Join(err, m.lock.Unlock())
	}
	alone, err := m.lock.Alone()
	if alone {
		err = os.WriteFile(m.restFile(), nil, 0o600)
	}
	return errors.Join(err, m.lock.Unlock(), leaving.Unlock())
}
