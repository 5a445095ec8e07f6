package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"larder/internal/fault"
)

var errInterrupted = errors.New("interrupted")

// interrupts is what becomes of ^C and SIGTERM: the first cancels the command of larder's, a second one ends the process at
// once. While a command runs in a container, they are passed on to that.
type interrupts struct {
	signals chan os.Signal

	mu    sync.Mutex
	pass  chan<- syscall.Signal // nil while they are larder's own
	count int                   // how often the container's command was asked to end
	leave func()                // called before the process ends at once
}

// interruptible gives a context that an interrupt cancels.
func interruptible() (context.Context, *interrupts, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	i := &interrupts{signals: make(chan os.Signal, 8)}
	signal.Notify(i.signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // a terminal that is closed; nohup has it ignored
		signal.Notify(i.signals, syscall.SIGHUP)
	}
	quit := make(chan struct{})
	go func() {
		for own := 0; ; {
			select {
			case s := <-i.signals:
				if i.passOn(s.(syscall.Signal)) {
					continue
				}
				if own++; own == 1 {
					cancel(errInterrupted)
					continue
				}
				i.exit()
			case <-quit:
				return
			}
		}
	}()
	return ctx, i, func() {
		signal.Stop(i.signals)
		close(quit)
		cancel(nil)
	}
}

// patience is how often a command is asked to end before it is not asked any more.
const patience = 2

// passOn passes a signal to the container's command, if one runs that is still to be asked.
func (i *interrupts) passOn(s syscall.Signal) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pass == nil {
		return false
	}
	if s == syscall.SIGINT || s == syscall.SIGTERM {
		if i.count++; i.count > patience {
			return false
		}
	}
	select {
	case i.pass <- s:
	default: // so many wait already that one more tells nothing new
	}
	return true
}

func (i *interrupts) exit() {
	i.mu.Lock()
	if i.leave != nil {
		i.leave()
	}
	os.Exit(int(fault.Interrupted))
}

// handOver gives signals to a command until the function that it gives is called; leave is called should the process end at
// once meanwhile. SIGQUIT is one of them then, which otherwise has Go show what hangs.
func (i *interrupts) handOver(pass chan<- syscall.Signal, leave func()) (back func()) {
	i.mu.Lock()
	i.pass, i.leave, i.count = pass, leave, 0
	i.mu.Unlock()
	signal.Notify(i.signals, syscall.SIGQUIT)
	return func() {
		signal.Reset(syscall.SIGQUIT)
		i.mu.Lock()
		i.pass, i.leave = nil, nil
		i.mu.Unlock()
	}
}
