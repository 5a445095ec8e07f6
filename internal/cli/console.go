package cli

import (
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"larder/internal/build"
	"larder/internal/fault"
)

// console is what a command has of larder's standard streams, its terminal and its signals.
type console struct {
	signals chan syscall.Signal

	in      *stdin
	out     []*output
	tty     *os.File // the terminal that is read from; nil without one
	screen  *os.File // the terminal that is written to
	sizes   chan executor.WinSize
	resized chan os.Signal

	once  sync.Once
	state *term.State // the terminal's before the command had it; nil if it never had
}

// console connects a command to larder's standard streams.
func (f *runFlags) console(e *env, c *build.Command) (*console, error) {
	con := &console{signals: make(chan syscall.Signal, 8)}
	in, _ := e.in.(*os.File)
	out, _ := e.out.(*os.File)
	c.Tty = !f.terminal && in != nil && out != nil && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
	if (c.Tty || f.interactive) && in != nil {
		var err error
		if con.in, err = openStdin(in); err != nil {
			return nil, fault.New(fault.Machine, err)
		}
		c.Stdin = con.in
	}
	con.out = []*output{{w: e.out}, {w: e.err}}
	c.Stdout, c.Stderr, c.Signal = con.out[0], con.out[1], con.signals
	if c.Tty {
		con.tty, con.screen = in, out
		con.sizes, con.resized = make(chan executor.WinSize, 1), make(chan os.Signal, 1)
		c.Resize = con.sizes
		kind := os.Getenv("TERM")
		if kind == "" {
			kind = "xterm"
		}
		c.Env = append([]string{"TERM=" + kind}, c.Env...)
	}
	return con, nil
}

// begin hands the terminal over. broken is called when nobody reads the output any more.
func (c *console) begin(broken func()) error {
	for _, o := range c.out {
		o.broken = broken
	}
	if c.tty == nil {
		return nil
	}
	state, err := term.MakeRaw(int(c.tty.Fd()))
	if err != nil {
		return fault.Errorf(fault.Machine, "the terminal: %w; --no-tty does without", err)
	}
	c.state = state
	c.resize()
	signal.Notify(c.resized, syscall.SIGWINCH)
	go func() {
		for range c.resized {
			c.resize()
		}
	}()
	return nil
}

// resize tells the size of the terminal; only the latest is of interest.
func (c *console) resize() {
	cols, rows, err := term.GetSize(int(c.screen.Fd()))
	if err != nil || cols <= 0 || rows <= 0 {
		return
	}
	select {
	case <-c.sizes:
	default:
	}
	c.sizes <- executor.WinSize{Rows: uint32(rows), Cols: uint32(cols)}
}

// restore gives the terminal back as it was. It may be called more than once, from anywhere.
func (c *console) restore() {
	c.once.Do(func() {
		if c.state == nil {
			return
		}
		signal.Stop(c.resized)
		close(c.resized)
		term.Restore(int(c.tty.Fd()), c.state)
	})
}

func (c *console) close() {
	c.restore()
	if c.in != nil {
		c.in.Close()
		c.in.release()
	}
}

// stdin is standard input in a form that stops reading when it is closed, so that what is typed after a command is not lost
// to it.
type stdin struct {
	f          *os.File
	stop, stir *os.File // two ends of a pipe: the one is closed to end a Read, which waits for the other too
	once       sync.Once
	reading    sync.Mutex
}

func openStdin(f *os.File) (*stdin, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &stdin{f: f, stop: w, stir: r}, nil
}

// Read implements io.Reader.
func (s *stdin) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		fds := []unix.PollFd{{Fd: int32(s.f.Fd()), Events: unix.POLLIN}, {Fd: int32(s.stir.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil || fds[1].Revents != 0 {
			return 0, io.EOF
		}
		n, err := unix.Read(int(s.f.Fd()), p)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case n <= 0: // the end, or a terminal that is gone
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Close ends a Read. It may be called more than once.
func (s *stdin) Close() error {
	s.once.Do(func() { s.stop.Close() })
	return nil
}

// release frees what Read needed, after Close.
func (s *stdin) release() {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.stir.Close()
}

// output is standard output or error. A command whose output nobody reads any more is ended, and does not end larder.
type output struct {
	w      io.Writer
	broken func()
	failed bool
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if o.failed {
		return len(p), nil
	}
	if _, err := o.w.Write(p); err != nil {
		o.failed = true
		o.broken()
	}
	return len(p), nil
}
