package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched has steps that look at copied files for as long as it takes to be hit, one with a bind mount beside them. MARK finds its processes
// again.
const watched = `ARG REGISTRY
FROM ${REGISTRY}/busybox AS a
COPY . /w
WORKDIR /w
RUN : MARK; for f in src/f0*; do cat $f; done | sha256sum > /sum; sleep 0.1
RUN --mount=type=bind,source=src,target=/m : MARK; cat /m/f1* /w/src/big | sha256sum >> /sum; mv src/f200 src/moved; sleep 0.1
FROM ${REGISTRY}/busybox AS b
RUN --mount=type=bind,target=/ctx,rw : MARK; cp -r /ctx/src /copy; echo x >> /ctx/src/f001; sleep 0.1
FROM ${REGISTRY}/busybox
COPY --from=a /w /w
COPY --from=a /sum /
COPY --from=b /copy /copy
RUN : MARK; find /w /copy -type f | sort | xargs sha256sum > /sums
`

// TestSoakObservedKill kills builds whose steps are observed, each after another edit, and then builds in peace.
func TestSoakObservedKill(t *testing.T) {
	mark := "soak-" + strings.ToLower(rand.Text()[:12])
	s := newSite(t, strings.ReplaceAll(watched, "MARK", mark))
	start := time.Now()
	s.build(t, filepath.Join(s.work, "clean"), filepath.Join(s.work, "clean-out"))
	whole := time.Since(start)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, a whole build takes %s", seed, whole)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	root, out, clean := filepath.Join(s.work, "root"), filepath.Join(s.work, "out"), filepath.Join(s.work, "clean")
	for n := range rounds(20, 200) {
		s.write(t, fmt.Sprintf("src/f%03d", r.IntN(300)), rand.Text())
		if r.IntN(4) == 0 {
			s.write(t, "README", rand.Text())
		}
		var kills []time.Duration
		for again := true; again; again = r.IntN(3) == 0 {
			after := time.Duration(r.Int64N(int64(whole)))
			kills = append(kills, after)
			cmd := s.command(t.Context(), root, out)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			_ = cmd.Process.Kill() // it may have ended by itself
			_ = cmd.Wait()
		}
		got, err := s.tryBuild(t.Context(), root, out)
		if err != nil {
			t.Fatalf("round %d, after kills at %v: %v", n, kills, err)
		}
		said := s.said.Load()
		nothingLeft(t, root, mark)
		if err := os.RemoveAll(clean); err != nil {
			t.Fatal(err)
		}
		if want := s.build(t, clean, clean+"-out"); got != want {
			t.Errorf("%s, a clean build gives %s\n%s", got, want, differ(t, out+".tar", clean+"-out.tar"))
		}
		if t.Failed() {
			t.Fatalf("round %d, after kills at %v; the last build said:\n%s", n, kills, said)
		}
		if r.IntN(5) == 0 { // begin anew
			if err := os.RemoveAll(root); err != nil {
				t.Fatalf("round %d, after kills at %v: %v", n, kills, err)
			}
		}
	}
}

// waiting is a build over a root whose observed step is in the middle of what it does, and waits until end is closed.
type waiting struct {
	*site
	root string
	mark string
	cmd  *exec.Cmd
	said bytes.Buffer
	end  chan struct{}
}

func startWaiting(t *testing.T) *waiting {
	t.Helper()
	w := &waiting{mark: "wait-" + strings.ToLower(rand.Text()[:12]), end: make(chan struct{})}
	server := newSignalled(t)
	w.site = newSite(t, strings.ReplaceAll(`ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY . /w
RUN --mount=type=bind,source=src,target=/m : MARK; cat /w/src/f000 && wget -q -O - http://`+server.addr+` && (cat /m/f1* /w/src/big || true) | wc -c
`, "MARK", w.mark))
	w.root = filepath.Join(w.work, "root")
	here := make(chan struct{}, 1)
	server.do.Store(func() {
		select {
		case here <- struct{}{}:
		default:
		}
		<-w.end
	})
	w.cmd = w.command(t.Context(), w.root, filepath.Join(w.work, "out"))
	w.cmd.Stdout, w.cmd.Stderr = &w.said, &w.said
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the server waits for its answers
		select {
		case <-w.end:
		default:
			close(w.end)
		}
	})
	select {
	case <-here:
	case <-time.After(time.Minute):
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		t.Fatalf("the step does not run:\n%s", w.said.Bytes())
	}
	return w
}

// after builds in peace and compares with a build from nothing.
func (w *waiting) after(t *testing.T) {
	t.Helper()
	nothingLeft(t, w.root, w.mark)
	got := w.build(t, w.root, filepath.Join(w.work, "out"))
	if want := w.build(t, filepath.Join(w.work, "clean"), filepath.Join(w.work, "clean-out")); got != want {
		t.Errorf("%s, a build from nothing gives %s", got, want)
	}
	nothingLeft(t, w.root, w.mark)
}

// TestObservedInterrupt sends what terminals and CI systems send while a step is observed.
func TestObservedInterrupt(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			w := startWaiting(t)
			if err := w.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = w.cmd.Wait()
			if code := w.cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d, want 130\n%s", code, w.said.Bytes())
			}
			close(w.end)
			w.after(t)
		})
	}
}
