package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

// maxRecord bounds the size of a record that is read, in bytes.
const maxRecord = 16 << 20

// maxTree bounds the size of a tree blob that is read, in bytes.
const maxTree = 1 << 30

// Store keeps records, and the trees of observed layers, in the local root. Each file carries or is named by its own
// digest, so that one which a power loss tore is found out when read and counts as absent; nothing is synced.
// Any number of goroutines and processes may use one root at once.
type Store struct {
	records, trees, tmp, locks string
}

// Open makes the store's directories below root, the local root.
func Open(root string) (*Store, error) {
	s := &Store{
		records: filepath.Join(root, "records"),
		trees:   filepath.Join(root, "trees"),
		tmp:     filepath.Join(root, "tmp"),
		locks:   filepath.Join(root, "locks"),
	}
	for _, dir := range []string{s.records, s.trees, s.tmp, s.locks} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open local root: %w", err)
		}
	}
	return s, nil
}

// Get gives the record of a key; false where there is none, or none that can be read: damage is a miss.
func (s *Store) Get(k key.Digest) (*Record, bool) {
	path := s.path(s.records, k)
	b, err := readSealed(path, maxRecord)
	if err != nil {
		return nil, false
	}
	r := new(Record)
	if json.Unmarshal(b, r) != nil || r.Key != k {
		return nil, false
	}
	s.touch(path)
	return r, true
}

// Put stores r under its key unless a record is there already, and gives the one that is stored then.
func (s *Store) Put(r *Record) (*Record, error) {
	tmp, path, err := s.stage(r)
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	err = os.Link(tmp, path)
	if errors.Is(err, fs.ErrExist) {
		if first, ok := s.Get(r.Key); ok {
			return first, nil
		}
		err = os.Rename(tmp, path) // what is there is damaged
	}
	if err != nil {
		return nil, fmt.Errorf("store record: %w", err)
	}
	return r, nil
}

// Replace stores r under its key whatever is there. At no time is there nothing.
func (s *Store) Replace(r *Record) (*Record, error) {
	tmp, path, err := s.stage(r)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return nil, fmt.Errorf("store record: %w", err)
	}
	return r, nil
}

// stage writes a record to a file that the caller moves to path, or removes.
func (s *Store) stage(r *Record) (tmp, path string, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", "", err
	}
	path = s.path(s.records, r.Key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", "", fmt.Errorf("store record: %w", err)
	}
	tmp, err = s.writeTemp(seal(b))
	if err != nil {
		return "", "", fmt.Errorf("store record: %w", err)
	}
	return tmp, path, nil
}

// Delete forgets a key, if it is known.
func (s *Store) Delete(k key.Digest) error {
	err := os.Remove(s.path(s.records, k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Walk calls fn with every record that can be read, in no order, the size of its file in bytes, and when it was last used,
// to within an hour.
func (s *Store) Walk(fn func(r *Record, size int64, used time.Time) error) error {
	return walkFiles(s.records, func(path string, size int64, used time.Time) error {
		b, err := readSealed(path, maxRecord)
		if err != nil {
			return nil
		}
		r := new(Record)
		if json.Unmarshal(b, r) != nil {
			return nil
		}
		return fn(r, size, used)
	})
}

// PutTree stores a tree with its mtimes and gives the name of the blob.
func (s *Store) PutTree(root *tree.Node) (key.Digest, error) {
	var buf bytes.Buffer
	if err := tree.Encode(&buf, root); err != nil {
		return key.Digest{}, err
	}
	d := key.Bytes(buf.Bytes())
	return d, s.ImportTree(d, buf.Bytes())
}

// ImportTree stores the bytes of a tree that came from elsewhere; d must be their digest.
func (s *Store) ImportTree(d key.Digest, b []byte) error {
	path := s.path(s.trees, d)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	tmp, err := s.writeTemp(b)
	if err != nil {
		return fmt.Errorf("store tree: %w", err)
	}
	defer os.Remove(tmp)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("store tree: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("store tree: %w", err)
	}
	return nil
}

// HasTree reports whether a tree blob is stored.
func (s *Store) HasTree(d key.Digest) bool {
	st, err := os.Stat(s.path(s.trees, d))
	return err == nil && st.Mode().IsRegular()
}

// TreeBytes gives the bytes of a tree blob, compared with its name.
func (s *Store) TreeBytes(d key.Digest) ([]byte, error) {
	path := s.path(s.trees, d)
	b, err := readBounded(path, maxTree)
	if err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	if key.Bytes(b) != d {
		os.Remove(path)
		return nil, fmt.Errorf("open tree %s: its bytes are damaged", d)
	}
	return b, nil
}

// Tree opens a tree blob; it is compared with its name first. A damaged one is deleted.
func (s *Store) Tree(d key.Digest) (*tree.Node, error) {
	b, err := s.TreeBytes(d)
	if err != nil {
		return nil, err
	}
	return tree.Decode(bytes.NewReader(b), int64(len(b)))
}

// WalkTrees calls fn with every tree blob's name, size in bytes, and the time at which it was stored.
func (s *Store) WalkTrees(fn func(d key.Digest, size int64, stored time.Time) error) error {
	return walkFiles(s.trees, func(path string, size int64, stored time.Time) error {
		d, err := key.Parse("sha256:" + filepath.Base(path))
		if err != nil {
			return nil
		}
		return fn(d, size, stored)
	})
}

// DeleteTree removes a tree blob.
func (s *Store) DeleteTree(d key.Digest) error {
	err := os.Remove(s.path(s.trees, d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// touch notes that a file was used, not more than once an hour. It is advice for the collector: failing is no error.
func (s *Store) touch(path string) {
	st, err := os.Stat(path)
	if now := time.Now(); err == nil && now.Sub(st.ModTime()) > time.Hour {
		os.Chtimes(path, now, now)
	}
}

func (s *Store) path(dir string, d key.Digest) string {
	h := d.Hex()
	return filepath.Join(dir, h[:2], h)
}

func (s *Store) writeTemp(b []byte) (string, error) {
	f, err := os.CreateTemp(s.tmp, "record-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// seal puts the digest of b before it.
func seal(b []byte) []byte {
	return append([]byte(key.Bytes(b).Hex()+"\n"), b...)
}

func readSealed(path string, limit int64) ([]byte, error) {
	b, err := readBounded(path, limit)
	if err != nil {
		return nil, err
	}
	sum, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != key.Bytes(body).Hex() {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	return body, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than any that larder writes", path, st.Size())
	}
	return os.ReadFile(path)
}

func walkFiles(dir string, fn func(path string, size int64, at time.Time) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // deleted by another process meanwhile
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		return fn(path, info.Size(), info.ModTime())
	})
}
