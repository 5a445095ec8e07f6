package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestObservedOutputs writes images whose copied layers were never written out in every form there is, after steps were found by what they look
// at: all have what the same build from nothing writes.
func TestObservedOutputs(t *testing.T) {
	need(t, "skopeo")
	c := disordered(t, `FROM ${REGISTRY}/busybox
COPY --chown=7:8 . /app
WORKDIR /app/made
RUN cat /app/src/a > a && chmod 700 /app/src/sub && rm /app/data/x && ln /app/src/b hard && ln -s ../tool.sh link
COPY --chmod=640 src /app/again
RUN ls /app/data > /listing
`)
	outputs := func(t *testing.T, root string, more ...string) map[string]string {
		t.Helper()
		at := func(kind string) string { return root + "-" + kind }
		for _, kind := range []string{"files", "tar", "docker", "layout"} {
			if err := os.RemoveAll(at(kind)); err != nil {
				t.Fatal(err)
			}
		}
		ref := c.registry.Addr + "/out:" + filepath.Base(root)
		o := c.observed(t, root, append(more, "-t", ref, "--push", "-o", "type=local,dest="+at("files"), "-o", "type=tar,dest="+at("tar"),
			"-o", "type=docker,dest="+at("docker"), "-o", "type=oci,tar=false,dest="+at("layout"))...)
		out := map[string]string{"image": o.digest, "steps": o.hows()}
		out["registry"] = string(tool(t, "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}", "docker://"+ref))
		out["docker"] = string(tool(t, "skopeo", "inspect", "--config", "docker-archive:"+at("docker")))
		out["layout"] = string(tool(t, "skopeo", "inspect", "--format", "{{.Digest}}", "oci:"+at("layout")))
		out["files"] = string(tool(t, "sh", "-ec", `cd "$1"; find . -mindepth 1 -printf '%P %y %m %n %l %T@\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum`, "sh", at("files")))
		archive, err := os.ReadFile(at("tar"))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		files(t, bytes.NewReader(archive), func(h *tar.Header, data []byte) {
			lines = append(lines, fmt.Sprintf("%s %c %o %d:%d %s %v %d", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.ModTime.Unix(), len(data)))
		})
		slices.Sort(lines)
		out["tar"] = strings.Join(lines, "\n")
		return out
	}
	root := c.machine(t)
	if got := outputs(t, root)["steps"]; got != "ran ran" {
		t.Fatalf("the first build's steps were %q", got)
	}
	for _, before := range []struct {
		name, do string
		flags    []string
	}{
		{"an edit", "true", nil},
		{"larder cache prune", program + " cache prune --root " + root, nil},
		{"prune of what is not used", program + " cache prune --unused 1s --root " + root, nil},
		{"without passthrough", "true", []string{"--observe=copy"}},
	} {
		t.Run(before.name, func(t *testing.T) {
			anew("README", "", "\n")(t, c)
			tool(t, "sh", "-ec", before.do)
			got := outputs(t, root, before.flags...)
			clean := c.machine(t)
			want := outputs(t, clean)
			if steps := got["steps"]; steps != "observed observed" && before.do == "true" {
				t.Errorf("the steps were %q", steps)
			}
			delete(got, "steps")
			delete(want, "steps")
			for kind := range want {
				if got[kind] != want[kind] {
					t.Errorf("%s:\n%s\nfrom nothing:\n%s", kind, got[kind], want[kind])
				}
			}
			if err := os.RemoveAll(clean); err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, root, root)
		})
	}
}

// TestObservedRun runs commands in a target whose layers are copied ones: they see the files, and what they look at is nobody's key.
func TestObservedRun(t *testing.T) {
	c := disordered(t, looking)
	root := c.machine(t)
	run := func(script string) string {
		t.Helper()
		return string(tool(t, program, "run", "-q", "--root", root, "--build-arg", "REGISTRY="+c.registry.Addr, "--target", "b", c.dir, "--", "sh", "-ec", script))
	}
	for _, text := range []string{"one\n", "edited\n"} {
		c.edit(t, map[string]string{"src/a": text, "README": text + text})
		if got, want := run("cat bundle src/a README; echo x > src/a; cat src/a; mv data d; ls d"), text+"two\n"+text+text+text+"x\nx\ny\n"; got != want {
			t.Errorf("the command sees %q, want %q", got, want)
		}
		nothingLeft(t, root, root)
	}
	c.edit(t, map[string]string{"README": "other\n"})
	o := c.observed(t, root, "--target", "b")
	if got := o.hows(); got != "observed" {
		t.Errorf("after commands that read README the step was %q\n%s", got, o.said)
	}
}
