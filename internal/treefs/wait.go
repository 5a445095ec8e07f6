package treefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// errKilled says that whoever asked is being killed, and wants no answer.
var errKilled = errors.New("the process is being killed")

// killedEvery is how often a process that was sent a signal is looked at while its request waits.
const killedEvery = 20 * time.Millisecond

// await waits for a flight. A signal alone does not end it: a program whose timer goes off while it opens a file does not expect to
// be told so.
func (fs *FS) await(cancel <-chan struct{}, pid uint32, fl *flight) error {
	select {
	case <-fl.done:
		return nil
	case <-fs.ctx.Done():
		return context.Cause(fs.ctx)
	case <-cancel:
	}
	for {
		if ownProc() && killed(pid) {
			return errKilled
		}
		select {
		case <-fl.done:
			return nil
		case <-fs.ctx.Done():
			return context.Cause(fs.ctx)
		case <-time.After(killedEvery):
		}
	}
}

// ownProc tells whether /proc has the processes by the numbers that the kernel gives this one: those of its own PID namespace. If it
// has not, nothing can be said of them, and what they wait for has to come.
var ownProc = sync.OnceValue(func() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
})

// killed tells whether a thread is gone or has a SIGKILL waiting, which is what every deadly signal becomes.
func killed(thread uint32) bool {
	if thread == 0 {
		return false // the kernel asks for itself, or for a process that cannot be seen from here
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	_, rest, _ := bytes.Cut(status, []byte("\nSigPnd:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	pending, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return err == nil && pending&(1<<8) != 0 // signal 9
}
