package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAutoMounts runs package managers whose RUN steps declare no cache mounts. Of a second build on an empty machine, with one dependency
// more, only that dependency's archive comes from the package registry.
func TestAutoMounts(t *testing.T) {
	for _, c := range []struct {
		name, base string
		mount      string // what is said
		archive    string // what the path of an archive ends in
		publish    func(p *packages, t *testing.T, name string)
		files      func(addr string, deps []string) map[string]string
	}{
		{"go", "golang", "go /go/pkg/mod", ".zip", (*packages).module, goAuto},
		{"npm", "node", "npm /root/.npm", ".tgz", (*packages).npmPackage, npmAuto},
		{"pip", "toolchain", "pip /root/.cache/pip", ".whl", (*packages).wheel, pipAuto},
		{"apt", "debian", "apt /var/cache/apt", ".deb", (*packages).deb, aptAuto},
	} {
		t.Run(c.name, func(t *testing.T) {
			registry := newPackages(t)
			names := []string{"firstone", "secondone", "thirdone"}
			for _, n := range names {
				c.publish(registry, t, n)
			}
			p := newCI(t, c.base, c.files(registry.addr, names[:2]))
			if c.name == "apt" {
				p.asDebian(t, registry.addr)
			}
			asked := func(b *built) []string {
				paths, sent := registry.reset()
				paths = slices.DeleteFunc(paths, func(path string) bool { return !strings.HasSuffix(path, c.archive) })
				t.Logf("%s: %d bytes, with the archives %v", b.took, sent, paths)
				return paths
			}
			first := p.fresh(t, "--auto-mounts", "-o", "type=cacheonly")
			if got := asked(first); len(got) != 2 {
				t.Errorf("the first build asked for %v\n%s", got, first.said)
			}
			p.edit(t, c.files(registry.addr, names))
			second := p.fresh(t, "--auto-mounts", "-o", "type=cacheonly")
			if got := asked(second); len(got) != 1 || !strings.Contains(got[0], names[2]) {
				t.Errorf("the second build asked for %v\n%s\n\nThe first one said:\n%s", got, second.said, first.said)
			}
			if !strings.Contains(second.said, "auto-mounts: ") || !strings.Contains(second.said, c.mount) {
				t.Errorf("the build does not say %q:\n%s", c.mount, second.said)
			}
		})
	}
}

func goAuto(addr string, deps []string) map[string]string {
	files := goFiles(addr, "hello", deps...)
	files["Dockerfile"] = `ARG REGISTRY
FROM ${REGISTRY}/golang AS deps
ENV GOPROXY=http://` + addr + ` GOSUMDB=off GOFLAGS=-mod=mod
WORKDIR /src
COPY go.mod ./
RUN go mod download && touch /done
FROM scratch
COPY --from=deps /done /done
`
	return files
}

// npmPackage publishes version 1.0.0 of a package.
func (p *packages) npmPackage(t *testing.T, name string) {
	t.Helper()
	b, err := npmArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	p.put(npmPath(name), b)
}

func npmPath(name string) string { return fmt.Sprintf("/%s/-/%s-1.0.0.tgz", name, name) }

// npmArchive is the same each time.
func npmArchive(name string) ([]byte, error) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, f := range []struct {
		name string
		data []byte
	}{{"package.json", fmt.Appendf(nil, `{"name": %q, "version": "1.0.0"}`, name)}, {"data", noise(name, 50_000)}} {
		if err := tw.WriteHeader(&tar.Header{Name: "package/" + f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := tw.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	err := zw.Close()
	return b.Bytes(), err
}

// npmIntegrity is what a lock file says of an archive.
func npmIntegrity(name string) string {
	b, _ := npmArchive(name) // published before
	sum := sha512.Sum512(b)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func npmAuto(addr string, deps []string) map[string]string {
	var list, lock []string
	for _, name := range deps {
		list = append(list, fmt.Sprintf("%q: \"1.0.0\"", name))
		lock = append(lock, fmt.Sprintf(`"node_modules/%s": {"version": "1.0.0", "resolved": "http://%s%s", "integrity": "sha512-%s"}`,
			name, addr, npmPath(name), npmIntegrity(name)))
	}
	dependencies := strings.Join(list, ", ")
	return map[string]string{
		"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/node
ENV npm_config_registry=http://` + addr + `/
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
`,
		"package.json": `{"name": "app", "version": "1.0.0", "dependencies": {` + dependencies + `}}`,
		"package-lock.json": `{"name": "app", "version": "1.0.0", "lockfileVersion": 3, "packages": {
"": {"name": "app", "version": "1.0.0", "dependencies": {` + dependencies + `}},
` + strings.Join(lock, ",\n") + `}}`,
	}
}

// wheel publishes version 1.0 of a Python package in an index.
func (p *packages) wheel(t *testing.T, name string) {
	t.Helper()
	file := name + "-1.0-py3-none-any.whl"
	info := name + "-1.0.dist-info/"
	archive := zipped(t, map[string][]byte{
		name + ".py":                      []byte("answer = 42\n"),
		name + ".data/data/share/" + name: noise(name, 50_000),
		info + "METADATA":                 fmt.Appendf(nil, "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n", name),
		info + "WHEEL":                    []byte("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
		info + "RECORD":                   fmt.Appendf(nil, "%s.py,,\n%sMETADATA,,\n%sWHEEL,,\n%sRECORD,,\n", name, info, info, info),
	})
	p.put("/files/"+file, archive)
	p.put("/simple/"+name+"/", fmt.Appendf(nil, "<!DOCTYPE html><html><body><a href=\"/files/%s#sha256=%x\">%s</a></body></html>", file, sha256.Sum256(archive), file))
}

func pipAuto(addr string, deps []string) map[string]string {
	return map[string]string{
		"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/toolchain
COPY requirements.txt .
RUN pip install --break-system-packages --trusted-host 127.0.0.1 --index-url http://` + addr + `/simple/ -r requirements.txt
`,
		"requirements.txt": strings.Join(deps, "\n") + "\n",
	}
}

// deb publishes a Debian package.
func (p *packages) deb(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: a test\n", name)
	for file, data := range map[string][]byte{"DEBIAN/control": []byte(control), "usr/share/" + name: noise(name, 50_000)} {
		path := filepath.Join(dir, name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := name + "_1.0_all.deb"
	tool(t, "dpkg-deb", "--build", filepath.Join(dir, name), filepath.Join(dir, file))
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	p.put("/apt/"+file, b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files["/apt/Packages"] = fmt.Appendf(p.files["/apt/Packages"], "%sFilename: ./%s\nSize: %d\nSHA256: %x\n\n", control, file, len(b), sha256.Sum256(b))
}

func aptAuto(_ string, deps []string) map[string]string {
	return map[string]string{
		"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/debian:asdebian
RUN apt-get update && apt-get install -y --no-install-recommends ` + strings.Join(deps, " ") + ` && rm -rf /var/lib/apt/lists/*
`,
	}
}

// asDebian pushes a base image that has the settings which delete downloads in docker-clean, as Debian's own, and the test's packages.
func (c *ci) asDebian(t *testing.T, addr string) {
	t.Helper()
	old, err := os.ReadFile(filepath.Join(c.dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "Dockerfile", `ARG REGISTRY
FROM ${REGISTRY}/debian
RUN mv /etc/apt/apt.conf.d/91image /etc/apt/apt.conf.d/docker-clean && echo "deb [trusted=yes allow-insecure=yes] http://`+addr+`/apt ./" > /etc/apt/sources.list
`)
	c.larder(t, os.Environ(), filepath.Join(c.work, "asdebian"), "-t", c.registry.Addr+"/debian:asdebian", "--push")
	c.write(t, "Dockerfile", string(old))
}
