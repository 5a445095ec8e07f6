package treefs

import (
	"container/list"
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// inMemory is the size up to which contents are read into memory as a whole, in bytes. From there they are given out just as they
	// were hashed, whatever becomes of the file.
	inMemory = 256 << 10
	// mostBytes and mostFiles bound what is kept ready to be read: bytes in memory, and open files.
	mostBytes = 64 << 20
	mostFiles = 128
	// mostFetches is how many contents are opened at a time.
	mostFetches = 32
)

// nearby is how fast contents come that are on this machine's disk. Where the last one of a part was not slower, the next small one is
// not waited for by another goroutine, which costs as much as getting it.
const nearby = 2 * time.Millisecond

// file is a File's part of an inode.
type file struct {
	// contents.mu guards these.
	ready  *content // nil when nobody read it yet, or it was put away
	flight *flight  // that makes it ready
	watch  *watch   // of a file that others may edit; each time that it is opened has one of its own
	// opens counts the handles that the kernel has, backing is the kernel's number for the file that it reads itself, 0 for none.
	// All handles of one inode read it in the same way.
	opens   int
	backing int32
}

// content is a File's bytes: in memory, or as a part of an open file.
type content struct {
	owner *inode
	bytes []byte
	disk  *os.File
	start int64        // in disk
	whole bool         // disk is this file's own, and closed with it
	watch *watch       // of disk, if others may edit it
	users atomic.Int32 // readers, and one for being ready
	entry *list.Element
}

// done ends one use.
func (c *content) done() {
	if c.users.Add(-1) == 0 && c.whole {
		c.disk.Close()
	}
}

// flight makes a content ready for all that wait for it. Each of them has a use of the content.
type flight struct {
	done    chan struct{}
	content *content
	err     error
	waiting int // contents.mu guards it
}

// contents keeps some contents ready.
type contents struct {
	fetches chan struct{} // a place for each that may be opened

	mu      sync.Mutex
	oldest  *list.List // of *content, the one that was used last at the back
	bytes   int64
	files   int
	closed  bool
	watched []*inode // that have a watch
	changed error    // what a watched file that was put away had become, if that was not what it was
	spool   spool
}

func (c *contents) init() {
	c.fetches = make(chan struct{}, mostFetches)
	c.oldest = list.New()
}

// acquire gives a File's content, ready to be read, for one use. A request that is cancelled while it waits gets errKilled if it
// was for that the process which asked is being killed.
func (fs *FS) acquire(cancel <-chan struct{}, pid uint32, n *inode) (*content, error) {
	c := &fs.contents
	c.mu.Lock()
	f := n.file
	if f.ready != nil {
		ready := f.ready
		ready.users.Add(1)
		c.oldest.MoveToBack(ready.entry)
		c.mu.Unlock()
		return ready, nil
	}
	fl := f.flight
	first := fl == nil
	if first {
		fl = &flight{done: make(chan struct{})}
		f.flight = fl
	}
	fl.waiting++
	c.mu.Unlock()
	switch {
	case first && n.part.near.Load() && n.node.Size <= inMemory:
		fs.fly(n, fl) // there will be nothing to wait for
	case first:
		go fs.fly(n, fl)
	}
	err := fs.await(cancel, pid, fl)
	if err == nil {
		return fl.content, fl.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.flight == fl {
		fl.waiting--
	} else if fl.content != nil {
		fl.content.done()
	}
	return nil, err
}

// fly makes an inode's content ready.
func (fs *FS) fly(n *inode, fl *flight) {
	var got *content
	err := errors.New("not fetched")
	defer func() {
		if what := recover(); what != nil {
			fs.panicked(what)
			got, err = nil, errBug
		}
		fs.land(n, fl, got, err)
	}()
	select {
	case fs.contents.fetches <- struct{}{}:
		defer func() { <-fs.contents.fetches }()
		start := time.Now()
		got, err = fs.fetch(n)
		n.part.near.Store(err == nil && time.Since(start) < nearby)
	case <-fs.ctx.Done():
		err = context.Cause(fs.ctx)
	}
}

var errBug = errors.New("it broke down")

// land hands a flight's content to those that wait, and keeps it ready. A failure is not kept: the next one tries again.
func (fs *FS) land(n *inode, fl *flight, got *content, err error) {
	c := &fs.contents
	c.mu.Lock()
	fl.content, fl.err = got, err
	n.file.flight = nil
	if got != nil {
		got.owner = n
		got.users.Store(int32(fl.waiting))
		if !c.closed {
			got.users.Add(1)
			n.file.ready = got
			got.entry = c.oldest.PushBack(got)
			c.bytes += int64(len(got.bytes))
			if got.whole {
				c.files++
			}
		} else if fl.waiting == 0 && got.whole {
			got.disk.Close()
		}
	}
	put := c.shrink()
	c.mu.Unlock()
	close(fl.done)
	for _, p := range put {
		fs.putAway(p)
	}
}

// shrink takes out what is too much, oldest first, for putAway. mu is held.
func (c *contents) shrink() (put []*content) {
	for e := c.oldest.Front(); e != nil && (c.bytes > mostBytes || c.files > mostFiles); {
		p := e.Value.(*content)
		e = e.Next()
		if c.bytes > mostBytes && len(p.bytes) > 0 || c.files > mostFiles && p.whole {
			c.take(p)
			put = append(put, p)
		}
	}
	return put
}

// take makes a content no longer ready. mu is held.
func (c *contents) take(p *content) {
	c.oldest.Remove(p.entry)
	c.bytes -= int64(len(p.bytes))
	if p.whole {
		c.files--
	}
	p.owner.file.ready = nil
}

// putAway ends a content that was taken out. A file that others may edit is looked at a last time while it is at hand, unless
// somebody reads on.
func (fs *FS) putAway(p *content) {
	defer p.done()
	if p.watch == nil {
		return
	}
	c := &fs.contents
	c.mu.Lock()
	last := p.owner.file.opens == 0 && p.users.Load() == 1
	c.mu.Unlock()
	if last {
		fs.settled(p, p.watch.check(fs.ctx, p.disk))
	}
}

// settled takes down what a look at a content said after which nobody read it.
func (fs *FS) settled(p *content, err error) {
	c := &fs.contents
	c.mu.Lock()
	defer c.mu.Unlock()
	f := p.owner.file
	switch {
	case err == nil:
		// Who opened it meanwhile may read what is written after that look.
		p.watch.settled = f.watch == p.watch && f.ready == nil && f.flight == nil && f.opens == 0
	case c.changed == nil && fs.ctx.Err() == nil:
		c.changed = err
	}
}

// close puts everything away. What is still under way is put away when it is done.
func (c *contents) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for e := c.oldest.Front(); e != nil; e = c.oldest.Front() {
		p := e.Value.(*content)
		c.take(p)
		p.done()
	}
	c.spool.close()
}
