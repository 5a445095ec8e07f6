package e2e

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// grown is a mount of some hundred files with a list of their sums, which the step holds against what it gets before it adds more.
// MARK finds its processes again.
var grown = map[string]string{
	"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/busybox
COPY grow.sh /
ARG ROUND
RUN --mount=type=cache,target=/m : MARK; sh -e /grow.sh $ROUND
`,
	"grow.sh": `cd /m
echo found $(ls | grep -c '^d') directories
test ! -e sums || sha256sum -c sums >/tmp/bad 2>&1 || { grep -v OK /tmp/bad | head; exit 1; }
mkdir d$1
head -c 3000000 /dev/urandom > d$1/big
for i in $(seq 300); do
	dd if=d$1/big of=d$1/small$i bs=5000 skip=$i count=1 2>/dev/null
done
find d* -type f | sort | xargs sha256sum > /tmp/sums
mv /tmp/sums sums
`,
}

// TestSoakMountKill kills builds while they restore, use and save a cache mount. The next build on the same machine and the next one on an
// empty machine find the mount whole, and nothing is left behind.
func TestSoakMountKill(t *testing.T) {
	mark := "soak-" + strings.ToLower(rand.Text()[:12])
	files := map[string]string{"grow.sh": grown["grow.sh"], "Dockerfile": strings.ReplaceAll(grown["Dockerfile"], "MARK", mark)}
	p := newCI(t, "busybox", files)
	flags := func(round string) []string { return []string{"-o", "type=cacheonly", "--build-arg", "ROUND=" + round} }
	whole := p.fresh(t, flags("first")...).took
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, a whole build takes %s", seed, whole)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	for range rounds(4, 100) {
		root := p.machine(t)
		after := time.Duration(r.Int64N(int64(whole)))
		cmd := p.command(t, root, flags(rand.Text())...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
		b, err := p.on(t, root, flags(rand.Text())...)
		if err != nil {
			t.Fatalf("after a kill at %s: %v", after, err)
		}
		if !strings.Contains(strings.Join(b.printed(), "\n"), "found ") || strings.Contains(b.said, "found 0 directories") {
			t.Errorf("after a kill at %s, the mount is empty", after)
		}
		nothingLeft(t, root, mark)
		if t.Failed() {
			t.Fatalf("after a kill at %s the build said:\n%s", after, b.said)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	b := p.fresh(t, flags("last")...)
	t.Logf("at last: %q, %s", b.printed(), b.took)
}
