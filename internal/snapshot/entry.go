package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"larder/internal/flock"
	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/tree"
)

// meta is the file that describes a stored layer.
type meta struct {
	Identity key.Digest `json:"identity"`
	Tree     key.Digest `json:"tree"` // of the file "tree"
	Pinned   bool       `json:"pinned"`
	Boot     string     `json:"boot"`
	Size     int64      `json:"size"`  // bytes of all its files
	Files    int64      `json:"files"` // entries of its tree
	// Implied says that its tar left out directories that lead to what it has, see tree.Node.Implied.
	Implied bool      `json:"implied,omitempty"`
	Created time.Time `json:"created"`
	// Adopting says that its files may still be without the times of its tree, which may be in the file "tree.new", see Adopt.
	Adopting bool `json:"adopting,omitempty"`
}

// entry is a stored layer that this process uses: its directory is locked against the collector.
type entry struct {
	meta
	short string
	dir   string // layers/<short>
	lock  *flock.Lock

	root     *tree.Node
	treeFile *os.File // behind root, where that is not in memory
	once     sync.Once
	source   layer.Source
}

func (e *entry) fs() string { return filepath.Join(e.dir, "fs") }

func (e *entry) close() error {
	return errors.Join(e.lock.Unlock(), e.closeTree())
}

func (e *entry) closeTree() error {
	f := e.treeFile
	e.treeFile = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// smallTree is the size up to which an encoded tree is kept in memory rather than read through an open file.
const smallTree = 64 << 10

// loadTree opens the layer's tree and compares all its bytes with what was written: a megabyte for ten thousand files,
// and a damaged one is found before anybody relies on the layer.
func (e *entry) loadTree() error {
	var f *os.File
	err := fs.ErrNotExist
	if e.Adopting {
		f, err = os.Open(filepath.Join(e.dir, "tree.new"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(filepath.Join(e.dir, "tree"))
	}
	if err != nil {
		return err
	}
	h := sha256.New()
	var small bytes.Buffer
	size, err := io.Copy(io.MultiWriter(h, &limitedBuffer{&small}), f)
	if err == nil && key.Digest(h.Sum(nil)) != e.Tree {
		err = fmt.Errorf("%w: not what was stored", tree.ErrDamaged)
	}
	if err != nil {
		f.Close()
		return err
	}
	var r io.ReaderAt = f
	if size <= smallTree {
		f.Close()
		r, f = bytes.NewReader(small.Bytes()), nil
	}
	if e.root, err = tree.Decode(r, size); err != nil && f != nil {
		f.Close()
		return err
	}
	e.treeFile = f
	return err
}

// limitedBuffer keeps the first smallTree bytes and a little more, so that a full one can be told from an overfull one.
type limitedBuffer struct{ *bytes.Buffer }

func (b limitedBuffer) Write(p []byte) (int, error) {
	if b.Len() <= smallTree {
		b.Buffer.Write(p)
	}
	return len(p), nil
}

// Open makes an entry the Source of its own files.
func (e *entry) Open(ctx context.Context, d key.Digest, size int64) (io.ReadCloser, error) {
	e.once.Do(func() { e.source = layer.DirSource(e.fs(), e.root) })
	return e.source.Open(ctx, d, size)
}

var shortName = regexp.MustCompile(`^[0-9a-f]{8,32}$`)

// lookup finds a stored layer and starts to use it: nil when there is none that can be trusted.
func (s *Store) lookup(id key.Digest) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the layer store is closed")
	}
	if e := s.entries[id]; e != nil {
		return e, nil
	}
	short, err := os.Readlink(s.indexPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !shortName.MatchString(short) {
		return nil, nil
	}
	e, err := s.open(short)
	if err != nil || e == nil {
		return nil, err
	}
	if e.Identity != id {
		e.close()
		return nil, nil
	}
	// What was used last is what the collector spares.
	now := time.Now()
	os.Chtimes(filepath.Join(e.dir, "meta"), now, now)
	s.entries[id] = e
	return e, nil
}

// open locks a layer directory and reads what it is; nil when it is damaged, from before a power failure, or about to
// be deleted.
func (s *Store) open(short string) (*entry, error) {
	dir := filepath.Join(s.base, "layers", short)
	lock, err := flock.TryDir(dir, flock.Shared)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, flock.ErrBusy) {
		return nil, nil // deleted, or the collector holds it, which means the same
	}
	if err != nil {
		return nil, err
	}
	e := &entry{short: short, dir: dir, lock: lock}
	err = s.read(e)
	if err == nil && e.Adopting {
		err = s.resume(e)
	}
	if err != nil {
		e.close()
		if !errors.Is(err, errUntrusted) {
			s.warn("a stored layer is damaged and will be made again: %s: %v", dir, err)
		}
		return nil, nil
	}
	return e, nil
}

// read loads what a layer is, and its tree. Adopt replaces the one after the other: who comes in between looks again.
func (s *Store) read(e *entry) error {
	for {
		m, err := readMeta(e.dir)
		if err != nil {
			return err
		}
		if !s.trusted(m, e.dir) {
			return errUntrusted
		}
		e.meta = m
		if err = e.loadTree(); err == nil {
			return nil
		}
		if now, merr := readMeta(e.dir); merr != nil || now.Tree == m.Tree && now.Adopting == m.Adopting {
			return err
		}
	}
}

var errUntrusted = errors.New("written before the kernel went down, and never synced")

func readMeta(dir string) (m meta, err error) {
	f, err := os.Open(filepath.Join(dir, "meta"))
	if err != nil {
		return m, err
	}
	defer f.Close()
	return m, json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&m)
}

// trusted tells whether all of a layer's bytes are sure to be there.
func (s *Store) trusted(m meta, dir string) bool {
	if m.Boot != "" && m.Boot == s.boot {
		return true
	}
	_, err := os.Lstat(filepath.Join(dir, "synced"))
	return err == nil
}

func (s *Store) indexPath(id key.Digest) string {
	return filepath.Join(s.base, "layers", "id", id.Hex())
}

// publish turns a staged directory of this process, with the layer under fs, into the stored layer of an identity. If
// somebody else published that identity before, theirs is returned and the staged one thrown away. The second result
// tells whether ours is the one.
func (s *Store) publish(staged string, id key.Digest, pinned bool, root *tree.Node) (*entry, bool, error) {
	m := meta{Identity: id, Pinned: pinned, Boot: s.boot, Created: time.Now().UTC()}
	var err error
	if m.Tree, err = writeTree(filepath.Join(staged, "tree"), root); err != nil {
		return nil, false, err
	}
	err = tree.Walk(root, func(_ string, n *tree.Node) error {
		m.Files++
		m.Implied = m.Implied || n.Implied
		if n.Kind == tree.File {
			m.Size += n.Size
		}
		return nil
	})
	if err == nil {
		err = writeJSON(filepath.Join(staged, "meta"), m)
	}
	if err != nil {
		return nil, false, err
	}
	lock, err := flock.TryDir(staged, flock.Shared)
	if err != nil {
		return nil, false, err
	}
	short := randomName(10)
	dir := filepath.Join(s.base, "layers", short)
	if err := os.Rename(staged, dir); err != nil {
		lock.Unlock()
		return nil, false, err
	}
	lock.Moved(dir)
	for {
		err := os.Symlink(short, s.indexPath(id))
		if err == nil {
			break
		}
		var have *entry
		if errors.Is(err, fs.ErrExist) {
			if have, err = s.lookup(id); err == nil && have == nil {
				err = s.unlinkDead(id) // and try again
				if err == nil {
					continue
				}
			}
		}
		lock.Unlock()
		if rerr := s.trash(dir); rerr != nil {
			s.warn("a layer that was made twice could not be removed: %v", rerr)
		}
		return have, false, err
	}
	e := &entry{meta: m, short: short, dir: dir, lock: lock, root: root}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		e.close()
		return nil, false, errors.New("the layer store is closed")
	}
	s.entries[id] = e
	return e, true, nil
}

// unlinkDead takes an identity's link away when nothing that can be trusted is behind it.
func (s *Store) unlinkDead(id key.Digest) error {
	lock, err := flock.Acquire(context.Background(), filepath.Join(s.base, "locks", "unlink"), flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if e, err := s.lookup(id); e != nil || err != nil {
		return err
	}
	if err := os.Remove(s.indexPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// trash moves a directory out of sight and deletes it.
func (s *Store) trash(dir string) error {
	bin := filepath.Join(s.proc, "trash-"+randomName(12))
	if err := os.Rename(dir, bin); err != nil {
		return err
	}
	return os.RemoveAll(bin)
}

func writeTree(path string, root *tree.Node) (d key.Digest, err error) {
	f, err := os.Create(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 64<<10)
	if err := tree.Encode(w, root); err != nil {
		return d, err
	}
	if err := w.Flush(); err != nil {
		return d, err
	}
	return key.Digest(h.Sum(nil)), f.Close()
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
