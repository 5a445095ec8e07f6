package e2e

import (
	"archive/zip"
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// packages is a package registry on loopback that counts what it is asked for.
type packages struct {
	addr  string
	mu    sync.Mutex
	files map[string][]byte // answers by path
	asked map[string]int    // bytes of answers by path; -1 for "not found"
}

func newPackages(t *testing.T) *packages {
	t.Helper()
	p := &packages{files: map[string][]byte{}, asked: map[string]int{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.addr = server.Listener.Addr().String()
	return p
}

func (p *packages) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.files[strings.Replace(req.URL.Path, "/./", "/", 1)]
	if !ok {
		p.asked[req.URL.Path] = -1
		http.NotFound(w, req)
		return
	}
	p.asked[req.URL.Path] += len(b)
	if strings.HasSuffix(req.URL.Path, "/") {
		w.Header().Set("Content-Type", "text/html")
	} else {
		w.Header().Set("Cache-Control", "max-age=31536000, immutable") // as package registries say of archives
	}
	_, _ = w.Write(b)
}

func (p *packages) put(path string, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[path] = b
}

// reset gives the paths that were asked for, sorted, and the bytes that were sent, and begins anew.
func (p *packages) reset() (paths []string, sent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for path, n := range p.asked {
		paths = append(paths, path)
		sent += max(n, 0)
	}
	slices.Sort(paths)
	p.asked = map[string]int{}
	return paths, sent
}

// module publishes a Go module example.com/NAME v1.0.0 with a package of some size.
func (p *packages) module(t *testing.T, name string) {
	t.Helper()
	path := "example.com/" + name
	mod := []byte("module " + path + "\n\ngo 1.24\n")
	dir := path + "@v1.0.0/"
	archive := zipped(t, map[string][]byte{
		dir + "go.mod": mod, dir + name + ".go": fmt.Appendf(nil, "package %s\n\nconst Name = %q\n", name, name), dir + "data": noise(name, 50_000),
	})
	p.put("/"+path+"/@v/v1.0.0.mod", mod)
	p.put("/"+path+"/@v/v1.0.0.info", []byte(`{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}`))
	p.put("/"+path+"/@v/list", []byte("v1.0.0\n"))
	p.put("/"+path+"/@v/v1.0.0.zip", archive)
}

// zipped is an archive of files.
func zipped(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w, err := zw.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// noise are bytes that no compressor makes smaller, the same for the same name.
func noise(name string, size int) []byte {
	var seed [32]byte
	copy(seed[:], name)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b) // it never fails
	return b
}

const goProject = `ARG REGISTRY
FROM ${REGISTRY}/golang AS build
ENV GOPROXY=http://ADDRESS GOSUMDB=off GOFLAGS=-mod=mod
WORKDIR /src
COPY go.mod ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build <<EOF
set -e
mkdir /out && touch /tmp/start
go build -o /dev/null .
find /go/pkg/mod /root/.cache/go-build -type f -newer /tmp/start -printf '%s\n' > /out/changed
EOF
FROM scratch
COPY --from=build /out /
`

// goFiles is a project that needs modules.
func goFiles(proxy, message string, modules ...string) map[string]string {
	mod, imports, uses := "module example.com/app\n\ngo 1.24\n\n", "", ""
	for _, m := range modules {
		mod += "require example.com/" + m + " v1.0.0\n"
		imports += fmt.Sprintf("import %q\n", "example.com/"+m)
		uses += "\tprintln(" + m + ".Name)\n"
	}
	return map[string]string{
		"Dockerfile":  strings.Replace(goProject, "ADDRESS", proxy, 1),
		"go.mod":      mod,
		"main.go":     "package main\n\n" + imports + "import \"example.com/app/lib\"\n\nfunc main() {\n" + uses + "\tprintln(lib.Message)\n}\n",
		"lib/lib.go":  fmt.Sprintf("package lib\n\nvar Message = %q\n", message),
		"lib/more.go": functions(200),
	}
}

// functions is a source file that compiles to some 100 kB.
func functions(n int) string {
	var b strings.Builder
	b.WriteString("package lib\n")
	for i := range n {
		fmt.Fprintf(&b, "\nfunc F%d(m map[string]int, k string) (n int) {\n\tfor range m[k] {\n\t\tm[k+%q]++\n\t\tn += len(m)\n\t}\n\treturn n\n}\n", i, strconv.Itoa(i))
	}
	return b.String()
}

// TestMountGo adds a dependency, and then changes a line, each on an empty machine. Of the first, only its download comes from
// the proxy; of the second, little more than what changed in the mounts goes to the cache.
func TestMountGo(t *testing.T) {
	proxy := newPackages(t)
	for _, name := range []string{"one", "two", "three", "four"} {
		proxy.module(t, name)
	}
	p := newCI(t, "golang", goFiles(proxy.addr, "hello", "one", "two", "three"))
	p.fresh(t)
	if paths, sent := proxy.reset(); sent < 150_000 {
		t.Fatalf("the first build asked for %v only", paths)
	}

	p.edit(t, goFiles(proxy.addr, "hello", "one", "two", "three", "four"))
	b := p.fresh(t)
	paths, sent := proxy.reset()
	for _, path := range paths {
		if !strings.HasPrefix(path, "/example.com/four/") {
			t.Errorf("the proxy was asked for %s, which the cache mount has", path)
		}
	}
	if len(paths) == 0 || sent > 60_000 {
		t.Errorf("the proxy sent %d bytes for %v", sent, paths)
	}
	t.Logf("one dependency more: the proxy sent %d bytes for %v, in %s", sent, paths, b.took)
	if t.Failed() {
		t.Logf("%s", b.said)
	}

	p.edit(t, goFiles(proxy.addr, "hallo", "one", "two", "three", "four"))
	p.registry.ResetCounts()
	b = p.fresh(t)
	if paths, _ := proxy.reset(); paths != nil {
		t.Errorf("after a change of one line the proxy was asked for %v", paths)
	}
	changed := 0
	for f := range strings.FieldsSeq(b.file(t, "changed")) {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		changed += n
	}
	var up []int64
	total := int64(0)
	for _, r := range p.registry.Requests() {
		if r.Up > 0 {
			up = append(up, r.Up)
			total += r.Up
		}
	}
	slices.Sort(up)
	t.Logf("one line: %d bytes changed in the mounts, %d bytes sent in requests of %v, in %s", changed, total, up, b.took)
	if changed == 0 || total > 2*int64(changed)+32<<10 {
		t.Errorf("%d bytes were sent for %d that changed:\n%s", total, changed, b.said)
	}
}
