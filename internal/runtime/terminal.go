package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is what a container's runtime has for its terminal; the runtime passes on between it and the container's own.
// BuildKit's executor has one too, but closes it before all of the output is read, and crun wants its standard input to be
// one even where nobody types.
type terminal struct {
	master, slave *os.File
	output, input sync.WaitGroup
	stdin         io.Closer
	first         executor.WinSize // zero where none was given
	inner         bool             // the runtime does not look at the size again
	runtime       atomic.Int64     // the runtime's process, once it runs
}

// openTerminal makes a terminal that is raw on the runtime's side, of the size that is waiting in sizes.
func openTerminal(sizes <-chan executor.WinSize) (_ *terminal, err error) {
	// Non-blocking, so that closing it ends a write that nobody takes.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	t := &terminal{master: os.NewFile(uintptr(fd), "/dev/ptmx")}
	defer func() {
		if err != nil {
			t.master.Close()
			err = fmt.Errorf("open a terminal: %w", err)
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t.slave = slave
	defer func() {
		if err != nil {
			slave.Close()
		}
	}()
	// What is typed before the runtime has done the same is neither echoed nor edited.
	if _, err := term.MakeRaw(int(slave.Fd())); err != nil {
		return nil, err
	}
	select {
	case t.first = <-sizes:
		err = t.resize(t.first)
	default:
	}
	return t, err
}

// connect begins to copy between the terminal and the given streams, which may be nil.
func (t *terminal) connect(stdin io.ReadCloser, stdout io.Writer) {
	if stdout == nil {
		stdout = io.Discard
	}
	t.output.Go(func() {
		if _, err := io.Copy(stdout, t.master); err != nil && !errors.Is(err, unix.EIO) {
			io.Copy(io.Discard, t.master) // nobody takes it, and the command shall not wait for ever
		}
	})
	if stdin != nil {
		t.stdin = stdin
		t.input.Go(func() { io.Copy(t.master, stdin) }) // its end is no end of the terminal's
	}
}

// finish ends the terminal, after the runtime, when all of its output has been passed on.
func (t *terminal) finish() {
	t.slave.Close()
	t.output.Wait()
	if t.stdin != nil {
		t.stdin.Close()
	}
	t.master.Close()
	t.input.Wait()
}

func (t *terminal) resize(size executor.WinSize) (err error) {
	c, err := t.master.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) { err = setSize(int(fd), size) })
	return errors.Join(err, cerr)
}

func setSize(fd int, size executor.WinSize) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Rows), Col: uint16(size.Cols)})
}

// resizes follows sizes until ctx ends. What it gives is for the runtime, which then looks at the size again.
func (t *terminal) resizes(ctx context.Context, sizes <-chan executor.WinSize) <-chan syscall.Signal {
	changed := make(chan syscall.Signal)
	go func() {
		for {
			select {
			case size := <-sizes:
				if t.resize(size) != nil {
					continue
				}
				if t.inner {
					resizeInner(int(t.runtime.Load()), size)
				}
				select {
				case changed <- unix.SIGWINCH:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return changed
}

// resizeInner sets the size of the container's own terminal, whose other end the runtime holds. Where that cannot be, the
// size stays what it was.
func resizeInner(runtime int, size executor.WinSize) {
	pidfd, err := unix.PidfdOpen(runtime, 0)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	dir := fmt.Sprintf("/proc/%d/fd", runtime)
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range list {
		n, err := strconv.Atoi(e.Name())
		link, lerr := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || lerr != nil || filepath.Base(link) != "ptmx" {
			continue
		}
		if fd, err := unix.PidfdGetfd(pidfd, n, 0); err == nil {
			setSize(fd, size)
			unix.Close(fd)
		}
	}
}

// firstSize makes a container's configuration say how large its terminal is: crun asks its own for that later only. The
// executor's configuration has no place for it.
func (t *terminal) firstSize(config string) {
	if t.first == (executor.WinSize{}) {
		return
	}
	data, err := os.ReadFile(config)
	if err != nil {
		return // the runtime says so
	}
	size := fmt.Sprintf(`"terminal":true,"consoleSize":{"height":%d,"width":%d},`, uint16(t.first.Rows), uint16(t.first.Cols))
	os.WriteFile(config, bytes.Replace(data, []byte(`"terminal":true,`), []byte(size), 1), 0o644)
}
