package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const small = `ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY src/f001 src/f002 /data/
RUN ln /data/f001 /data/hard && ln -s f002 /data/link && chown 33:33 /data/f002 && rm /etc/group
ENV COLOUR=blue
LABEL org.example.kind=small
USER 33
CMD ["cat", "/data/f001"]
`

// TestDebianRegistry pushes to the registry that Debian ships and lets skopeo and buildah read the image.
func TestDebianRegistry(t *testing.T) {
	need(t, "docker-registry", "skopeo", "buildah")
	s := newSite(t, small)
	registry := startDebianRegistry(t)
	ref := registry + "/team/app:v1"
	want := s.build(t, filepath.Join(s.work, "root"), filepath.Join(s.work, "out"), "-t", ref, "--push")

	var image struct {
		Digest string
		Labels map[string]string
		Layers []string
		Env    []string
	}
	out := tool(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+ref)
	if err := json.Unmarshal(out, &image); err != nil {
		t.Fatalf("skopeo inspect: %v\n%s", err, out)
	}
	if image.Digest != want || image.Labels["org.example.kind"] != "small" || len(image.Layers) != 3 {
		t.Errorf("skopeo reads %+v, the build said %s", image, want)
	}
	if !strings.Contains(strings.Join(image.Env, " "), "COLOUR=blue") {
		t.Errorf("skopeo reads the variables %q", image.Env)
	}

	store := []string{"--root", filepath.Join(s.work, "buildah"), "--runroot", filepath.Join(s.work, "buildah-run"), "--storage-driver", "vfs"}
	tool(t, "buildah", append(store, "pull", "--quiet", "--tls-verify=false", "docker://"+ref)...)
	name := strings.TrimSpace(string(tool(t, "buildah", append(store, "from", ref)...)))
	root := strings.TrimSpace(string(tool(t, "buildah", append(store, "mount", name)...)))
	t.Cleanup(func() { tool(t, "buildah", append(store, "rm", "--all")...) })
	checkSmall(t, s, root, "33:33")
}

// TestOutputsAreReadByOthers checks the files that -o writes.
func TestOutputsAreReadByOthers(t *testing.T) {
	need(t, "skopeo")
	s := newSite(t, small)
	root, out := filepath.Join(s.work, "root"), filepath.Join(s.work, "out")
	docker, oci := filepath.Join(s.work, "docker.tar"), filepath.Join(s.work, "oci.tar")
	dir := filepath.Join(s.work, "files")
	want := s.build(t, root, out, "-t", "example.com/small:1",
		"-o", "type=docker,dest="+docker, "-o", "type=oci,dest="+oci, "-o", "type=local,dest="+dir)
	if got := tool(t, "skopeo", "inspect", "--format", "{{.Digest}}", "oci-archive:"+oci); strings.TrimSpace(string(got)) != want {
		t.Errorf("the OCI layout holds %s, the build said %s", got, want)
	}
	tool(t, "skopeo", "inspect", "docker-archive:"+docker)
	unpacked := filepath.Join(s.work, "unpacked")
	tool(t, "skopeo", "copy", "--quiet", "docker-archive:"+docker+":example.com/small:1", "dir:"+unpacked)
	checkSmall(t, s, dir, "0:0") // as BuildKit: owners are whoever builds
}

// checkSmall compares a file system with what the Dockerfile above says.
func checkSmall(t *testing.T, s *site, root, owner string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(s.dir, "src/f001"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "data/f001")); err != nil || string(got) != string(want) {
		t.Errorf("/data/f001: %v, %d bytes of %d", err, len(got), len(want))
	}
	stat := tool(t, "stat", "-c", "%h %u:%g %N", filepath.Join(root, "data/hard"), filepath.Join(root, "data/f002"))
	if f := strings.Fields(string(stat)); f[0] != "2" || f[4] != owner {
		t.Errorf("stat: %s", stat)
	}
	if link, err := os.Readlink(filepath.Join(root, "data/link")); err != nil || link != "f002" {
		t.Errorf("/data/link: %q, %v", link, err)
	}
	if _, err := os.Lstat(filepath.Join(root, "etc/group")); !os.IsNotExist(err) {
		t.Errorf("/etc/group was removed and is there: %v", err)
	}
}

// need skips a test where programs are missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: make deps", p)
		}
	}
}

// tool runs another program and gives its standard output.
func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...) // not the test's context: clean-up uses it too
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return out
}

// startDebianRegistry runs the packaged docker-registry over a temporary directory and gives its address.
func startDebianRegistry(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %q}\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 100 {
		res, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			res.Body.Close()
			return addr
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}
