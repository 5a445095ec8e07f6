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

// slot is one directory of a key, locked.
type slot struct {
	dir    string
	lock   *flock.Lock
	shared bool // another step had it already when it was locked
	past   int64
}

func (m *slot) Dir() string { return filepath.Join(m.dir, "data") }

func (m *slot) ledgerFile() string { return filepath.Join(m.dir, "ledger") }

// restFile is there while nobody has the mount; its time says since when.
func (m *slot) restFile() string { return filepath.Join(m.dir, "rest") }

// begin notes that a step has the mount from now on.
func (m *slot) begin() {
	now := time.Now()
	os.Chtimes(filepath.Join(m.dir, "key"), now, now)
	switch st, err := os.Stat(m.restFile()); {
	case err == nil && !m.shared:
		m.past = st.ModTime().UnixNano()
	case err == nil || m.shared || exists(m.ledgerFile()):
		m.past = now.UnixNano() // a step may be writing to it, or was killed while it did
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
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxLedger {
		return nil, tree.ErrDamaged
	}
	b, err := os.ReadFile(path)
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

// writeTree writes a tree so that there is either the old file or the whole new one.
func writeTree(path string, root *tree.Node) error {
	return replaceFile(path, func(f *os.File) error { return tree.Encode(f, root) })
}

// replaceFile puts a new file in the place of an old one.
func replaceFile(path string, write func(f *os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-")
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
func (m *slot) Release(Left) error {
	err := os.WriteFile(m.restFile(), nil, 0o644)
	return errors.Join(err, m.lock.Unlock())
}
