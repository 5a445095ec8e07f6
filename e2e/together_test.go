package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// together tells a server of each step that runs.
const together = `ARG REGISTRY
ARG COUNTER
FROM ${REGISTRY}/busybox AS a
ARG COUNTER
COPY src/ /src/
RUN --network=host wget -q -O - http://${COUNTER}/a > /a; sleep 0.3
FROM ${REGISTRY}/busybox AS b
ARG COUNTER
RUN --network=host wget -q -O - http://${COUNTER}/b > /b; sleep 0.3
FROM a
ARG COUNTER
COPY --from=b /b /b
RUN --network=host wget -q -O - http://${COUNTER}/c > /c; cat /a /b /c > /all
`

// TestSoakTogether starts several builds over one root at the same moment: each gives the digest of one alone, and no
// step runs twice.
func TestSoakTogether(t *testing.T) {
	s := newSite(t, together)
	counter := newStepCounter(t)
	flags := []string{"--build-arg", "COUNTER=" + counter.addr, "--allow", "network.host"}
	want := s.build(t, filepath.Join(s.work, "alone"), filepath.Join(s.work, "alone-out"), flags...)
	for n := range rounds(1, 20) {
		for _, builds := range []int{2, 8} {
			counter.reset()
			root := filepath.Join(s.work, fmt.Sprintf("root%d-%d", n, builds))
			var wg sync.WaitGroup
			for i := range builds {
				wg.Go(func() {
					out := filepath.Join(s.work, fmt.Sprintf("out%d", i))
					got, err := s.tryBuild(t.Context(), root, out, flags...)
					if err != nil {
						t.Errorf("%d builds: %v", builds, err)
					} else if got != want {
						t.Errorf("%d builds: %s, one alone gives %s", builds, got, want)
					}
				})
			}
			wg.Wait()
			for step, times := range counter.reset() {
				if times != 1 {
					t.Errorf("%d builds: step %s ran %d times", builds, step, times)
				}
			}
			nothingLeft(t, root, counter.addr)
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// stepCounter is a server that steps call.
type stepCounter struct {
	addr string
	mu   sync.Mutex
	runs map[string]int
}

func newStepCounter(t *testing.T) *stepCounter {
	t.Helper()
	c := &stepCounter{runs: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.runs[r.URL.Path]++
		fmt.Fprintln(w, r.URL.Path)
	}))
	t.Cleanup(server.Close)
	c.addr = server.Listener.Addr().String()
	return c
}

// reset gives the counts and starts from nothing.
func (c *stepCounter) reset() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	runs := c.runs
	c.runs = map[string]int{}
	return runs
}
