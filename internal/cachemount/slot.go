package cachemount

import (
	"bytes"
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

// maxLedger bounds a ledger file, in bytes.
const maxLedger = 256 << 20

// Past is Mount's. A ledger that cannot be read is an error, rather than no ledger: without one, files that changed would pass for
// files that did not.
func (m *slot) Past() (Past, error) {
	p := Past{Newest: m.past}
	var err error
	p.Ledger, err = readLedger(m.ledgerFile())
	return p, err
}

func readLedger(path string) (*tree.Node, error) {
	b, err := readBounded(path, maxLedger)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return tree.Decode(bytes.NewReader(b), int64(len(b)))
}

// Show is Mount's. Steps that have the mount at the same time add to one ledger.
func (m *slot) Show(ctx context.Context, seen *tree.Node, by key.Digest) error {
	lock, err := flock.Acquire(ctx, m.ledgerFile()+".lock", flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old, err := readLedger(m.ledgerFile())
	if err != nil {
		old = nil // damaged: whoever reads it is told so, this one begins anew
	}
	all, err := ledger.Merge(old, seen, by)
	if err != nil {
		return err
	}
	return writeTree(m.ledgerFile(), all)
}

// Guard is Mount's: the mark outlives the process.
func (m *slot) Guard([][]byte) error { return os.WriteFile(m.secretsFile(), nil, 0o600) }

// writeTree writes a tree so that there is either the old file or the whole new one.
func writeTree(path string, root *tree.Node) error {
	return replaceFile(path, func(f *os.File) error { return tree.Encode(f, root) })
}

// replaceFile puts a new file in the place of an old one.
func replaceFile(path string, write func(f *os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

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
