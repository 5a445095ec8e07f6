package treefs

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestProcessIsKilled: with the process that serves, the connection ends; readers fail, and the mount can be taken off. The
// descriptor of the device went to no child that lives on.
func TestProcessIsKilled(t *testing.T) {
	if dir := os.Getenv("TREEFS_SERVE"); dir != "" {
		serveUntilKilled(t, dir)
	}
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestProcessIsKilled$")
	cmd.Env = append(os.Environ(), "TREEFS_SERVE="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	var child int
	if _, err := fmt.Sscanf(line, "serving, child %d", &child); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if got := read(t, dir+"/0/f"); got != "text" {
		t.Errorf("got %s", got)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	defer unix.Kill(child, unix.SIGKILL)
	var st unix.Stat_t
	for range 500 {
		if err = unix.Stat(dir+"/0/other", &st); err == unix.ENOTCONN {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != unix.ENOTCONN {
		t.Errorf("got %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
}

// serveUntilKilled mounts, and starts a program that outlives it.
func serveUntilKilled(t *testing.T, dir string) {
	fs, err := Mount(t.Context(), dir, []Part{draw(t).file("f", "text").part()}, Options{Temp: t.TempDir()})
	must(t, err)
	child := exec.Command("sleep", "60")
	must(t, child.Start())
	links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", child.Process.Pid))
	must(t, err)
	for _, l := range links {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", child.Process.Pid, l.Name())); err == nil && strings.Contains(to, "fuse") {
			t.Errorf("the child has %s", to)
		}
	}
	fmt.Printf("serving, child %d\n", child.Process.Pid)
	<-fs.served
}
