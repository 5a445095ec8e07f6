package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMountSmall says what a cache mount of 50 files and 500 kB costs a build on an empty machine altogether: it is restored, a line is
// added to it, and it is saved. The bound is loose, as other tests may run beside.
func TestMountSmall(t *testing.T) {
	files := map[string]string{}
	for i := range 50 {
		name := fmt.Sprintf("f%d", i)
		files["m/"+name] = string(noise(name, 10_000))
	}
	p := newCI(t, "busybox", files)
	const step = "ARG REGISTRY\nFROM ${REGISTRY}/busybox\nCOPY m /m\nCOPY m /first\nARG ROUND\n" +
		"RUN %s cd /m; test -e f1 || cp /first/* .; cat f* | wc -c; echo $ROUND >> log\n"
	kinds := map[string]string{"with": fmt.Sprintf(step, "--mount=type=cache,target=/m"), "without": fmt.Sprintf(step, "")}
	took := map[string][]time.Duration{}
	for round := range 1 + rounds(5, 41) {
		for _, kind := range []string{"with", "without"} {
			p.edit(t, map[string]string{"Dockerfile": kinds[kind]})
			b := p.fresh(t, "-o", "type=cacheonly", "--build-arg", fmt.Sprintf("ROUND=%d", round))
			if kind == "with" && round > 0 && !strings.Contains(b.said, "restore cache mount") {
				t.Fatalf("no mount was restored:\n%s", b.said)
			}
			if round > 0 {
				took[kind] = append(took[kind], b.took)
			}
		}
	}
	with, without := median(took["with"]), median(took["without"])
	t.Logf("%s with the mount, %s without: it costs %s", with, without, with-without)
	// The fastest builds are those that nothing else on this machine held up.
	if cost := slices.Min(took["with"]) - slices.Min(took["without"]); cost > 250*time.Millisecond {
		t.Errorf("the mount costs %s", cost)
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// TestSoakMountTrim adds files in each of many builds and uses some of those that were there: the mount stays below its bound, and
// what is used stays.
func TestSoakMountTrim(t *testing.T) {
	const bound = 1 << 20
	p := newCI(t, "busybox", map[string]string{"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/busybox
ARG ROUND
RUN --mount=type=cache,target=/m <<'EOF'
cd /m
: $ROUND
echo size $(stat -c %s * 2>/dev/null | awk '{ n += $1 } END { print n + 0 }')
EOF
RUN --mount=type=cache,target=/m <<'EOF'
cd /m
echo used $(ls | grep -c ^used)
test $ROUND != 1 || for i in 1 2 3 4; do head -c 30000 /dev/urandom > used$i; done
for i in 1 2 3 4; do sha256sum used$i; done
for i in 1 2 3; do head -c 60000 /dev/urandom > new$ROUND-$i; done
EOF
`})
	size := regexp.MustCompile(`^size (\d+)$`)
	largest := 0
	var first []string
	n := rounds(10, 50)
	for round := 1; round <= n; round++ {
		b := p.fresh(t, "-o", "type=cacheonly", "--cache-mount-size", "1m", "--build-arg", fmt.Sprintf("ROUND=%d", round))
		var sums []string
		for _, line := range b.printed() {
			if m := size.FindStringSubmatch(line); m != nil {
				s, err := strconv.Atoi(m[1])
				if err != nil {
					t.Fatal(err)
				}
				largest = max(largest, s)
			}
			if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[1], "used") {
				sums = append(sums, line)
			}
		}
		if first == nil {
			first = sums
		}
		if len(sums) != 4 || !slices.Equal(sums, first) {
			t.Fatalf("build %d: what is used is %q, was %q:\n%s", round, sums, first, b.said)
		}
	}
	t.Logf("after %d builds, which added %d bytes: never more than %d", n, n*180_000, largest)
	if largest > bound || largest < bound/2 {
		t.Errorf("the mount was up to %d bytes large, its bound is %d", largest, bound)
	}
}
