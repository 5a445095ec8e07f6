package runstep

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"larder/internal/runtime"
	"larder/internal/snapshot"
)

// TestHelperProcess is no test: it lets the test binary be one of several larder processes, see startProcess.
func TestHelperProcess(t *testing.T) {
	if root := os.Getenv("RUNSTEP_TEST_ROOT"); root != "" {
		process(t, root, os.Getenv("RUNSTEP_TEST_RUNTIME"), os.Getenv("RUNSTEP_TEST_SCRIPT"))
	}
}

// process is a larder process: it cleans up and runs a step with all kinds of mounts on a base image.
func process(t *testing.T, root, rt, script string) {
	p := openPlaceOnly(t, root, Options{Runtime: rt})
	if err := p.store.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	base := p.busybox()
	o := op(script,
		&pb.Mount{Dest: "/m/part", Input: 0, Selector: "/etc", Readonly: true, Output: -1},
		&pb.Mount{Dest: "/m/cache", Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "c"}},
		&pb.Mount{Dest: "/m/secret", Input: -1, Output: -1, MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "token"}},
		&pb.Mount{Dest: "/m/mem", Input: -1, Output: -1, MountType: pb.MountType_TMPFS})
	res, err := p.runner.Run(t.Context(), Step{Op: o, Inputs: inputs(base), Stdout: os.Stdout, Stderr: os.Stderr, Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("identity", res.Outputs[0].Layers[0].Identity)
	if err := p.runner.Close(); err != nil {
		t.Error(err)
	}
	if err := p.store.Close(); err != nil {
		t.Error(err)
	}
}

func startProcess(t *testing.T, root, rt, script string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "RUNSTEP_TEST_ROOT="+root, "RUNSTEP_TEST_RUNTIME="+rt, "RUNSTEP_TEST_SCRIPT="+script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// recoverAll opens a root as the next larder does.
func recoverAll(t *testing.T, root string) {
	t.Helper()
	s, err := snapshot.Open(root, snapshot.Options{Reap: runtime.Reap})
	if err != nil {
		t.Fatal(err)
	}
	dead, _ := filepath.Glob(filepath.Join(s.Base(), "mounts/*/run"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Recover(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, s.Base(), dead...)
}

// running lists the processes whose command line has a word in it.
func running(t *testing.T, word string) []string {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range list {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), word) && !strings.Contains(string(b), "test") {
			out = append(out, f)
		}
	}
	return out
}

// TestKilled kills larder in the middle of a step.
func TestKilled(t *testing.T) {
	for _, rt := range []string{"runc", "crun"} {
		t.Run(rt, func(t *testing.T) {
			newPlace(t, Options{Runtime: rt}) // or skip
			root := t.TempDir()
			word := fmt.Sprintf("%d.%d", 1000+os.Getpid()%1000, time.Now().UnixNano())
			cmd, out := startProcess(t, root, rt, "echo started; sleep "+word)
			line, _ := out.ReadString('\n')
			if line != "started\n" {
				t.Errorf("got %q", line)
			}
			if len(running(t, word)) == 0 {
				t.Error("the step does not run")
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			recoverAll(t, root)
			if left := running(t, word); len(left) > 0 {
				t.Errorf("left running: %s", left)
			}
		})
	}
}

// TestKilledAnywhen kills larder at random moments and builds on what is left.
func TestKilledAnywhen(t *testing.T) {
	newPlace(t, Options{}) // or skip
	root := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for i := range rounds {
		cmd, out := startProcess(t, root, []string{"runc", "crun"}[i%2], "echo started; echo x > /x; sleep 0.05")
		out.Peek(1) // until it does something
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
	}
	p := openPlace(t, root, Options{})
	if err := p.store.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	base := p.busybox()
	got := p.mustRun(op("echo x > /x; rm -rf /m"), base).Outputs[0].Layers[0].Identity
	clean := newPlace(t, Options{})
	if want := clean.mustRun(op("echo x > /x; rm -rf /m"), clean.busybox()).Outputs[0].Layers[0].Identity; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestProcesses runs several larder processes on one root.
func TestProcesses(t *testing.T) {
	newPlace(t, Options{}) // or skip
	root := t.TempDir()
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			cmd, out := startProcess(t, root, []string{"runc", "crun"}[i%2], "echo y > /y; echo z >> /m/cache/z")
			for {
				line, err := out.ReadString('\n')
				if id, ok := strings.CutPrefix(line, "identity "); ok {
					mu.Lock()
					seen[id]++
					mu.Unlock()
				}
				if err != nil {
					break
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(seen) != 1 {
		t.Errorf("got %v", seen)
	}
	if list, _ := filepath.Glob(root + "/layers/*/fs"); len(list) != 2 {
		t.Errorf("layers: %s", list)
	}
	lines := 0
	files, _ := filepath.Glob(root + "/cachemounts/*/*/data/z")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(b), "\n")
	}
	if len(files) != 1 || lines != 6 {
		t.Errorf("cache mounts %s hold %d lines", files, lines)
	}
	if list, _ := os.ReadDir(filepath.Join(root, "locks")); len(list) > 1 {
		t.Errorf("locks: %v", list)
	}
	recoverAll(t, root)
}
