package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoFuse builds where there is no usable /dev/fuse: that is said once, every build works, and what another machine observed is found.
func TestNoFuse(t *testing.T) {
	for name, hide := range map[string]string{
		"an empty file": ": > $WORK/empty; mount --bind $WORK/empty /dev/fuse",
		"no device": "mkdir -p $WORK/dev/pts $WORK/dev/shm; cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx $WORK/dev/; " +
			"ln -s /proc/self/fd $WORK/dev/fd; mount --rbind /dev/pts $WORK/dev/pts; mount --rbind $WORK/dev /dev",
		"another device": "mount --bind /dev/null /dev/fuse",
	} {
		t.Run(name, func(t *testing.T) {
			c := disordered(t, looking)
			c.observed(t, c.machine(t), "--cache", c.cache)
			blind := func(root string, flags ...string) *outcome {
				t.Helper()
				c.checkout(t)
				inner := c.site.command(t.Context(), root, root+"-out", append(flags, "--cache", c.cache, "--cache-read-only")...)
				cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"-m", "sh", "-ec", hide + "\nexec \"$@\"", "sh"}, inner.Args...)...)
				cmd.Env = append(inner.Env, "WORK="+t.TempDir())
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				return &outcome{digest: imageDigest(t, root+"-out.json"), said: string(out), build: explained(t, root)}
			}
			c.edit(t, map[string]string{"README": "hullo\n"})
			root := c.machine(t)
			o := blind(root)
			if got := o.hows(); got != "observed observed observed observed" {
				t.Errorf("what another machine observed: the steps were %q\n%s", got, o.said)
			}
			c.same(t, root, o)
			c.edit(t, map[string]string{"src/a": "other\n", "data/x": "other\n"})
			o = blind(root)
			if got := o.hows(); got != "observed ran observed ran" {
				t.Errorf("after an edit: the steps were %q\n%s", got, o.said)
			}
			if n := said(o, "inputs are not observed"); n != 1 {
				t.Errorf("it is said %d times that inputs are not observed:\n%s", n, o.said)
			}
			if s := o.step(t, "bundle"); s.Not == "" || !strings.Contains(s.Not, "FUSE") {
				t.Errorf("explain says of why the step was not observed: %q", s.Not)
			}
			c.same(t, root, o)
			nothingLeft(t, root, root)
		})
	}
}

// said counts the ends of a note in the display.
func said(o *outcome, note string) (n int) {
	for line := range strings.Lines(o.said) {
		if strings.Contains(line, note) && strings.HasSuffix(line, " done\n") {
			n++
		}
	}
	return n
}

// TestNoPrivilege: without the right to mount nothing works, and larder says so.
func TestNoPrivilege(t *testing.T) {
	need(t, "setpriv")
	s := newSite(t, strings.ReplaceAll(watched, "MARK", "x"))
	root := filepath.Join(s.work, "root")
	inner := s.command(t.Context(), root, filepath.Join(s.work, "out"))
	cmd := exec.CommandContext(t.Context(), "setpriv", append([]string{"--inh-caps=-sys_admin", "--bounding-set=-sys_admin"}, inner.Args...)...)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want 3\n%s", code, out)
	}
	nothingLeft(t, root, root)
	s.build(t, root, filepath.Join(s.work, "out"))
}
