package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// signalled is a server that steps call at a point where a test wants to do something; they go on when that is done.
type signalled struct {
	addr string
	do   atomic.Value // func()
}

func newSignalled(t *testing.T) *signalled {
	t.Helper()
	s := &signalled{}
	s.do.Store(func() {})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.do.Load().(func())()
		fmt.Fprintln(w, "go on")
	}))
	t.Cleanup(server.Close)
	s.addr = server.Listener.Addr().String()
	return s
}

// TestContextEditedMeanwhile edits the context while a step runs. Either the step saw what the build began with, and the image is that of a build
// from nothing before the edit, or the build fails and names the file. No wrong record is left: the next build is right.
func TestContextEditedMeanwhile(t *testing.T) {
	large := strings.Repeat("a large file may be read by the kernel itself\n", 50_000)
	for _, c := range []struct {
		name string
		do   string // in the context
		file string // that the message names; empty where the build works
	}{
		{"nothing", "true", ""},
		{"read before", "echo edited > before", ""}, // it is small, and was read as a whole
		{"read before and replaced", "echo edit > new; mv new before", ""},
		{"read before and deleted", "rm before; echo mended > mend", ""},
		{"read later", "echo edit > after", "after"},
		{"read later and longer", "echo edited > after", "after"},
		{"in a bind mount and longer", "echo longer > mounted/file", "mounted/file"},
		{"read later and replaced", "echo edit > new; mv new after", "after"},
		{"read later and shorter", ": > after", "after"},
		{"read later and deleted", "rm after", "after"},
		{"read later and a directory", "rm after; mkdir after", "after"},
		{"read later and a link", "ln -sf before after", "after"},
		{"large and written to while open", "echo edited >> large", "large"},
		{"large and overwritten while open", "echo edited | dd of=large conv=notrunc", "large"},
		{"large and replaced while open", "sed s/file/book/ large > new; mv new large", ""},
		{"in a bind mount", "echo b > mounted/file", "mounted/file"},
		{"looked at only", "echo edited and longer > looked", ""},
		{"not looked at", "echo edited > README", ""},
		{"a new file", "echo new > listed/new", ""},
		{"a listed directory goes", "rm -r listed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := newSignalled(t)
			files := map[string]string{
				"Dockerfile": `ARG REGISTRY=localhost
FROM ${REGISTRY}/busybox AS build
COPY . /app
WORKDIR /app
RUN --mount=type=bind,source=mounted,target=/m cat before && exec 3<large && head -c 100 <&3 && test -e looked && \
    wget -q -O - http://` + server.addr + `/ && cat before after /m/file && mkdir /out && cp before large after /out && \
    cat <&3 | md5sum > /out/sum && stat -c %s looked > /out/size && ls listed > /out/list
FROM ${REGISTRY}/busybox
COPY --from=build /out /
`,
				"before": "first\n", "after": "then\n", "large": large, "looked": "looked\n", "README": "hello\n", "listed/file": "x\n", "mounted/file": "m\n",
			}
			p := newCI(t, "busybox", files)
			root := p.machine(t)
			clean := p.machine(t)
			want := p.build(t, clean, clean+"-out")
			server.do.Store(func() { tool(t, "sh", "-ec", "cd "+p.dir+"\n"+c.do) })
			o, err := p.tryObserved(t, root)
			server.do.Store(func() {})
			switch {
			case c.file == "" && err != nil:
				t.Fatal(err)
			case c.file == "" && o.digest != want:
				t.Errorf("image %s, a build from nothing before the edit gives %s\n%s\n%s", o.digest, want, differ(t, root+"-out.tar", clean+"-out.tar"), o.said)
			case c.file != "" && err == nil:
				t.Errorf("the build works:\n%s", o.said)
			case c.file != "":
				message := o.said[strings.LastIndex(o.said, "ERROR"):]
				if !strings.Contains(message, c.file+" changed while") || !strings.Contains(err.Error(), "exit status 1\n") {
					t.Errorf("the message does not name %s:\n%s", c.file, err)
				}
			}
			nothingLeft(t, root, p.dir)

			for _, name := range []string{"before", "after", "listed"} { // those that are gone or no files
				if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			p.edit(t, map[string]string{"before": "mended\n", "after": "mended\n", "listed/more": "mended\n"})
			next := p.observed(t, root)
			if next.hows() != "ran" {
				t.Errorf("the next build's step is %q", next.hows())
			}
			p.same(t, root, next)
		})
	}
}

// TestContextEditedBeforeExport: what is exported after an edit is what the build began with, or the build says which file changed.
func TestContextEditedBeforeExport(t *testing.T) {
	server := newSignalled(t)
	p := newCI(t, "busybox", map[string]string{
		"Dockerfile": "ARG REGISTRY=localhost\nFROM ${REGISTRY}/busybox\nCOPY . /app\nRUN wget -q -O - http://" + server.addr + "/\n", "README": "hello\n",
	})
	root := p.machine(t)
	server.do.Store(func() { p.edit(t, map[string]string{"README": "edited\n"}) })
	if _, err := p.tryObserved(t, root); err == nil || !strings.Contains(err.Error(), "README changed while the build was reading it") {
		t.Errorf("the message does not name the file: %v", err)
	}
	server.do.Store(func() {})
	next := p.observed(t, root)
	if next.hows() != "observed" {
		t.Errorf("the step did not see what changed, and is %q", next.hows())
	}
	p.same(t, root, next)
	nothingLeft(t, root, p.dir)
}
