package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"larder/internal/disk"
	"larder/internal/tree"
)

const (
	// smallFile is what a worker gets in one buffer; larger files are written by the caller as they come. Creating a
	// file costs about as much as hashing 30 KB, so small ones are worth handing over and large ones are not.
	smallFile = 128 << 10
	// chunk is how large files are read and written.
	chunk = 256 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallFile); return &b }}
	chunkBuffers = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}
)

// diskWriter creates files below a directory with a few workers. All methods are for one goroutine; close ends the workers.
type diskWriter struct {
	ctx    context.Context
	fillIn bool // hash contents and set them in the nodes; else the nodes are only read
	rootfd int
	dir    string
	seq    int // number of the last job
	done   int // all jobs up to this number are finished

	jobs    chan diskJob
	pending sync.WaitGroup // jobs
	workers sync.WaitGroup
	hash    hash.Hash // for files that the caller writes

	mu  sync.Mutex
	err error
}

// diskJob makes one object. data is nil for what is no File.
type diskJob struct {
	rel  string
	node *tree.Node
	data *[]byte
}

func newDiskWriter(ctx context.Context, rootfd int, dir string, fillIn bool) *diskWriter {
	w := &diskWriter{ctx: ctx, fillIn: fillIn, rootfd: rootfd, dir: dir, jobs: make(chan diskJob, 32), hash: sha256.New()}
	for range runtime.NumCPU() {
		w.workers.Go(w.work)
	}
	return w
}

func (w *diskWriter) work() {
	h := sha256.New()
	for job := range w.jobs {
		if w.failed() == nil {
			if err := w.run(h, job); err != nil {
				w.fail(fmt.Errorf("/%s: %w", job.rel, err))
			}
		}
		if job.data != nil {
			smallBuffers.Put(job.data)
		}
		w.pending.Done()
	}
}

func (w *diskWriter) run(h hash.Hash, job diskJob) error {
	if job.data == nil {
		return create(w.rootfd, job.rel, job.node)
	}
	data := (*job.data)[:job.node.Size]
	fd, err := w.create(job.rel)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := disk.WriteFull(fd, data, 0); err != nil {
		return err
	}
	if w.fillIn {
		h.Reset()
		h.Write(data)
		h.Sum(job.node.Content[:0])
	}
	return setOpen(fd, &job.node.Meta)
}

func (w *diskWriter) create(rel string) (int, error) {
	fd, err := disk.OpenBeneath(w.rootfd, rel, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	return fd, os.NewSyscallError("create", err)
}

func (w *diskWriter) submit(job diskJob) {
	w.seq++
	w.pending.Add(1)
	w.jobs <- job
}

// file makes a File of the next n.Size bytes of r. They are read when it returns; the file is there after settle.
func (w *diskWriter) file(rel string, n *tree.Node, r io.Reader) error {
	if err := w.failed(); err != nil {
		return err
	}
	if n.Size > smallFile {
		return w.large(rel, n, r)
	}
	buf := smallBuffers.Get().(*[]byte)
	if _, err := io.ReadFull(r, (*buf)[:n.Size]); err != nil {
		smallBuffers.Put(buf)
		return err
	}
	w.submit(diskJob{rel: rel, node: n, data: buf})
	return nil
}

// special makes anything that is neither File nor Dir.
func (w *diskWriter) special(rel string, n *tree.Node) error {
	w.submit(diskJob{rel: rel, node: n})
	return w.failed()
}

func (w *diskWriter) large(rel string, n *tree.Node, r io.Reader) error {
	fd, err := w.create(rel)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := w.copy(fd, n, r); err != nil {
		return err
	}
	return setOpen(fd, &n.Meta)
}

// copy fills a large file, with holes where there are zeros.
func (w *diskWriter) copy(fd int, n *tree.Node, r io.Reader) error {
	if cloned, err := clone(fd, r); cloned || err != nil {
		return err
	}
	buf := chunkBuffers.Get().(*[]byte)
	defer chunkBuffers.Put(buf)
	w.hash.Reset()
	for off := int64(0); off < n.Size; {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		data := (*buf)[:min(n.Size-off, chunk)]
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
		if w.fillIn {
			w.hash.Write(data)
		}
		if err := disk.WriteSparse(fd, data, off); err != nil {
			return err
		}
		off += int64(len(data))
	}
	if err := unix.Ftruncate(fd, n.Size); err != nil {
		return os.NewSyscallError("truncate", err)
	}
	if w.fillIn {
		w.hash.Sum(n.Content[:0])
	}
	return expectEnd(r, w.fillIn)
}

// expectEnd lets a reader that verifies say whether what it gave was right. A tar's reader goes on with the next entry.
func expectEnd(r io.Reader, isTar bool) error {
	if isTar {
		return nil
	}
	var b [1]byte
	if n, err := io.ReadFull(r, b[:]); err != io.EOF {
		if n > 0 {
			return errors.New("is longer than it was")
		}
		return err
	}
	return nil
}

// settle waits until the job with this number and all before it are done.
func (w *diskWriter) settle(seq int) error {
	if seq > w.done {
		w.pending.Wait()
		w.done = w.seq
	}
	return w.failed()
}

// close ends the workers and gives the first error of any job.
func (w *diskWriter) close() error {
	close(w.jobs)
	w.workers.Wait()
	return w.failed()
}

func (w *diskWriter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *diskWriter) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// removeAll takes a directory of the layer away again. Nothing may be under way.
func (w *diskWriter) removeAll(rel string) error {
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(rel)
}
