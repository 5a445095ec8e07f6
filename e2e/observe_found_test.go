package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestObservedElsewhere builds on machines that do not observe, or differently, what was built on one that does.
func TestObservedElsewhere(t *testing.T) {
	c := disordered(t, looking)
	cached := []string{"--cache", c.cache, "--cache-strict"}
	if got := c.observed(t, c.machine(t), cached...).hows(); got != "ran ran ran ran" {
		t.Fatalf("the first build's steps were %q", got)
	}
	for _, step := range []struct {
		name  string
		do    func(t *testing.T, c *ci)
		flags []string
		hows  string
	}{
		{"a change that no step sees", writes("README", "1\n"), []string{"--cache-read-only"}, "observed observed observed observed"},
		{"without passthrough", writes("README", "2\n"), []string{"--observe=copy", "--cache-read-only"}, "observed observed observed observed"},
		{"off does not look", writes("README", "3\n"), []string{"--observe=off", "--cache-read-only"}, "ran ran ran ran"},
		{"off, and nothing changed", writes("README", "hello\n"), []string{"--observe=off", "--cache-read-only"}, "exact exact exact exact"},
		{"observed without passthrough", writes("src/a", "2\n"), []string{"--observe=copy"}, "observed ran observed observed"},
		{"and found", writes("README", "4\n"), nil, "observed observed observed observed"},
		{"off, and kept", writes("src/a", "3\n"), []string{"--observe=off"}, "ran ran ran ran"},
		{"what was not observed is found by nothing else", writes("README", "5\n"), []string{"--cache-read-only"}, "observed ran observed observed"},
	} {
		step.do(t, c)
		root := c.machine(t)
		o := c.observed(t, root, append(cached, step.flags...)...)
		t.Run(step.name, func(t *testing.T) {
			if got := o.hows(); got != step.hows {
				t.Errorf("the steps were %q, want %q\n%s\n%s", got, step.hows, o.said, tool(t, program, "explain", "--root", root))
			}
			c.same(t, root, o)
			nothingLeft(t, root, root)
		})
	}
}

// TestObservedBranches: a branch finds steps by what those of the default branch looked at. What it adds is its own.
func TestObservedBranches(t *testing.T) {
	c := disordered(t, looking)
	kept := c.machine(t)
	for _, step := range []struct {
		name  string
		do    func(t *testing.T, c *ci)
		flags []string
		hows  string
	}{
		{"main", writes("README", "main\n"), nil, "ran ran ran ran"},
		{"a branch", writes("README", "branch\n"), []string{"--cache-scope", "branch"}, "observed observed observed observed"},
		{"it edits", writes("src/b", "of the branch\n"), []string{"--cache-scope", "branch"}, "observed ran observed observed"},
		{"a fork that may not write", writes("src/a", "of the fork\n"), []string{"--cache-scope", "fork", "--cache-read-only"}, "observed ran observed observed"},
		{"it again elsewhere", writes("README", "fork\n"), []string{"--cache-scope", "fork", "--cache-read-only"}, "observed ran observed observed"},
		{"back on the branch", writes("src/a", "one\n"), []string{"--cache-scope", "branch"}, "observed observed observed observed"},
		{"another branch does not see it", writes("README", "other\n"), []string{"--cache-scope", "other"}, "observed ran observed observed"},
		{"nor does main", writes("README", "merged\n"), nil, "observed ran observed observed"},
		{"and then it does", writes("README", "later\n"), nil, "observed observed observed observed"},
	} {
		step.do(t, c)
		t.Run(step.name, func(t *testing.T) {
			root := c.machine(t)
			o := c.observed(t, root, append([]string{"--cache", c.cache, "--cache-strict"}, step.flags...)...)
			if got := o.hows(); got != step.hows {
				t.Errorf("the steps were %q, want %q\n%s\n%s", got, step.hows, o.said, tool(t, program, "explain", "--root", root))
			}
			c.same(t, root, o)
			// The same jobs on one machine after the other.
			shared := c.observed(t, kept, append([]string{"--cache", c.cache, "--cache-strict", "--cache-read-only"}, step.flags...)...)
			if shared.digest != o.digest {
				t.Errorf("on the machine of all jobs: image %s, want %s", shared.digest, o.digest)
			}
		})
	}
	nothingLeft(t, kept, kept)
}

// TestObservedToldToRun: steps that are told to run do, and what they make is what is found from then on.
func TestObservedToldToRun(t *testing.T) {
	c := disordered(t, looking)
	root := c.machine(t)
	for _, step := range []struct {
		name  string
		do    func(t *testing.T, c *ci)
		flags []string
		hows  string
	}{
		{"first", writes("README", "1\n"), nil, "ran ran ran ran"},
		{"--no-cache", writes("README", "2\n"), []string{"--no-cache"}, "ran ran ran ran"},
		{"after it", writes("README", "3\n"), nil, "observed observed observed observed"},
		{"--no-cache-filter", writes("README", "4\n"), []string{"--no-cache-filter", "b"}, "observed ran observed observed"},
		{"after that", writes("README", "5\n"), nil, "observed observed observed observed"},
		{"--refresh of what is young", writes("README", "6\n"), []string{"--refresh", "1h"}, "observed observed observed observed"},
		{"--refresh", writes("README", "7\n"), []string{"--refresh", "1s"}, "ran ran ran ran"},
		{"after all", writes("README", "8\n"), nil, "observed observed observed observed"},
		{"--cache-verify", writes("README", "9\n"), []string{"--cache-verify"}, "observed observed observed observed"},
		{"--cache-verify of an edit", writes("src/a", "10\n"), []string{"--cache-verify"}, "observed ran observed observed"},
		{"--cache-verify of nothing", writes("src/a", "10\n"), []string{"--cache-verify"}, "exact exact exact exact"},
	} {
		step.do(t, c)
		t.Run(step.name, func(t *testing.T) {
			o := c.observed(t, root, step.flags...)
			if got := o.hows(); got != step.hows {
				t.Errorf("the steps were %q, want %q\n%s\n%s", got, step.hows, o.said, tool(t, program, "explain", "--root", root))
			}
			verified := strings.Count(o.said, "verified: run again, it makes the same done")
			if want := strings.Count(step.hows, "observed") + strings.Count(step.hows, "exact"); strings.HasPrefix(step.name, "--cache-verify") && verified != want {
				t.Errorf("%d steps were run again and compared, want %d\n%s", verified, want, o.said)
			}
			c.same(t, root, o)
		})
	}
}

// TestObservedTogether starts builds of different edits over one root at the same moment: each gives what it alone gives.
func TestObservedTogether(t *testing.T) {
	c := disordered(t, looking)
	root := c.machine(t)
	c.observed(t, root)
	type job struct {
		site
		got string
		err error
	}
	var jobs []*job
	for i, text := range []string{"x\n", "y\n", "x\n", "z\n", "x\n", "one\n"} {
		j := &job{site: site{registry: c.registry, work: c.work, dir: filepath.Join(t.TempDir(), "context")}}
		tool(t, "cp", "-a", c.dir, j.dir)
		j.write(t, "src/a", text)
		j.write(t, "README", strings.Repeat("r", i))
		jobs = append(jobs, j)
	}
	var wg sync.WaitGroup
	for _, j := range jobs {
		wg.Go(func() { j.got, j.err = j.tryBuild(t.Context(), root, filepath.Join(filepath.Dir(j.dir), "out")) })
	}
	wg.Wait()
	for i, j := range jobs {
		if j.err != nil {
			t.Errorf("build %d: %v", i, j.err)
			continue
		}
		alone := c.machine(t)
		if want := j.build(t, alone, alone+"-out"); j.got != want {
			t.Errorf("build %d: image %s, alone %s\n%s", i, j.got, want, differ(t, filepath.Join(filepath.Dir(j.dir), "out.tar"), alone+"-out.tar"))
		}
		if err := os.RemoveAll(alone); err != nil {
			t.Fatal(err)
		}
	}
	nothingLeft(t, root, root)
}
