package e2e

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// killed has stages beside and after each other, every kind of file operation, and steps that last long enough to
// be hit. MARK finds its processes again.
const killed = `ARG REGISTRY
FROM ${REGISTRY}/busybox AS a
WORKDIR /w
COPY src/ ./src/
RUN : MARK; for i in $(seq 40); do echo $i > f$i; done; ln f1 hard; mknod pipe p; sleep 0.1
RUN --mount=type=cache,target=/c : MARK; echo x >> /c/log; cp src/big big; sleep 0.1

FROM ${REGISTRY}/busybox AS b
COPY --chown=33:33 --chmod=750 src/f001 /d/one
RUN : MARK; mkdir -p /d/e; ln -s ../one /d/e/link; sleep 0.2

FROM a AS c
RUN : MARK; rm -rf src f2; chmod 700 f3; sleep 0.1

FROM ${REGISTRY}/busybox
COPY --from=b /d /d
COPY --from=c /w /w
RUN : MARK; find /w /d -type f | sort | xargs sha256sum > /sums
`

// TestSoakKill kills a build at a random moment, sometimes the next one too, and then builds in peace: the image is
// the one of a clean build, and nothing is left.
func TestSoakKill(t *testing.T) {
	mark := "soak-" + strings.ToLower(rand.Text()[:12])
	s := newSite(t, strings.ReplaceAll(killed, "MARK", mark))
	start := time.Now()
	want := s.build(t, filepath.Join(s.work, "clean"), filepath.Join(s.work, "clean-out"))
	whole := time.Since(start)
	nothingLeft(t, filepath.Join(s.work, "clean"), mark)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, a whole build takes %s", seed, whole)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	for n := range rounds(5, 200) {
		root := filepath.Join(s.work, fmt.Sprintf("root%d", n))
		out := filepath.Join(s.work, "out")
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
		if got != want {
			t.Errorf("round %d, after kills at %v: %s, a clean build gives %s", n, kills, got, want)
		}
		nothingLeft(t, root, mark)
		if t.Failed() {
			t.Fatalf("round %d, after kills at %v; the last build said:\n%s", n, kills, s.said.Load())
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatalf("round %d, after kills at %v: %v", n, kills, err)
		}
	}
}

// TestSoakInterrupt is the same with the signal that a terminal sends: larder cleans up by itself and exits with 130.
func TestSoakInterrupt(t *testing.T) {
	mark := "soak-" + strings.ToLower(rand.Text()[:12])
	s := newSite(t, strings.ReplaceAll(killed, "MARK", mark))
	start := time.Now()
	s.build(t, filepath.Join(s.work, "clean"), filepath.Join(s.work, "clean-out"))
	whole := time.Since(start)
	for n := range rounds(3, 40) {
		root := filepath.Join(s.work, fmt.Sprintf("root%d", n))
		cmd := s.command(t.Context(), root, filepath.Join(s.work, "out"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Not in the first moments, when the program has no handler yet.
		after := 50*time.Millisecond + mathrand.N(whole)
		time.Sleep(after)
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 && code != 0 {
			t.Errorf("interrupted after %s: exit code %d, want 130", after, code)
		}
		nothingLeft(t, root, mark)
		if err := os.RemoveAll(root); err != nil {
			t.Fatalf("interrupted after %s: %v", after, err)
		}
	}
}
