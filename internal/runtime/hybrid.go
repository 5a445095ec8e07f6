package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// unified is where a host with cgroup v1 shows v2 beside it ("hybrid mode").
const unified = "/sys/fs/cgroup/unified"

// hybrid tells whether this host has controllers in both versions of cgroups, which crun refuses to work on. Without
// the v2 hierarchy before its eyes it uses v1 and works.
func hybrid() bool {
	b, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
	return err == nil && len(b) > 1
}

// startWithoutUnified starts a command in a mount namespace of its own that lacks the v2 hierarchy. A child inherits the
// namespaces of the thread that forks it: a thread gets one, starts the command and is never used for anything else.
func startWithoutUnified(cmd *exec.Cmd) (chan runc.Exit, error) {
	started := make(chan error, 1)
	ec := make(chan runc.Exit, 1)
	go onThrowawayThread(func() {
		if err := hideUnified(); err != nil {
			started <- err
			return
		}
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		// The thread stays until the command ends: pdeathsig is about the thread that forked.
		status := 0
		if err := cmd.Wait(); err != nil {
			status = 255
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				if ws, ok := exit.Sys().(syscall.WaitStatus); ok {
					status = ws.ExitStatus()
				}
			}
		}
		ec <- runc.Exit{Timestamp: time.Now(), Pid: cmd.Process.Pid, Status: status}
		close(ec)
	})
	if err := <-started; err != nil {
		return nil, err
	}
	return ec, nil
}

// onThrowawayThread runs f on an operating system thread that ends with it. That must not be the first thread of the
// process, which cannot end and whose mount table is the one that /proc/self shows.
func onThrowawayThread(f func()) {
	goruntime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		f()
		return // still locked, which ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThrowawayThread(f)
	}()
	<-done // keeps the first thread busy meanwhile, so that the other goroutine is on another one
	goruntime.UnlockOSThread()
}

func hideUnified() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace for the container runtime: %w", err)
	}
	// What is unmounted by larder meanwhile goes away here too; nothing goes back.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount namespace for the container runtime: %w", err)
	}
	if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("hide %s from the container runtime: %w", unified, err)
	}
	return nil
}
