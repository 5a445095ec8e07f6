package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// jobs write two cache mounts: one with the layout of go's build cache, where each job adds files, and one of a layout that larder does
// not know, in which each job stamps every file.
var jobs = map[string]string{
	"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/busybox AS build
COPY job.sh /
ARG JOB
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=cache,target=/state mkdir /out && sh -e /job.sh $JOB
FROM scratch
COPY --from=build /out /
`,
	"job.sh": `cd /root/.cache/go-build
find . -name '*-d' | sed 's,.*/,,' | sort > /out/entries
find . -name '*-d' | while read f; do
	test $(sha256sum < $f | cut -c-64)-d = ${f##*/} || echo $f
done > /out/torn
cat /state/f* 2>/dev/null | sort | uniq -c > /out/stamps
test ! -e /state/base || cat /state/base > /out/base
test $1 = look && exit
for i in 1 2 3 4 5 6 7 8; do
	echo $1 $i > /tmp/f
	sum=$(sha256sum < /tmp/f | cut -c-64)
	dir=$(echo $sum | cut -c-2)
	mkdir -p $dir
	mv /tmp/f $dir/$sum-d
	echo $sum-d >> /out/mine
	echo stamp $1 > /state/f$i
done
test $1 != base || echo base > /state/base
sleep 0.2
`,
}

// TestSoakJobs lets jobs on machines of their own write the same mounts at once and kills some: what the next machine sees of the mount that can
// be united is whole and has what every survivor added, of the other one it sees the state of one job.
func TestSoakJobs(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for n := range rounds(1, 20) {
		p := newCI(t, "busybox", jobs)
		base := p.fresh(t, "--build-arg", "JOB=base")
		want := strings.Fields(base.file(t, "mine"))
		count := 8
		if rounds(0, 1) > 0 {
			count = 16
		}
		type job struct {
			root string
			kill time.Duration
			err  error
		}
		list := make([]job, count)
		var wg sync.WaitGroup
		for i := range list {
			j := &list[i]
			j.root = p.machine(t)
			if r.IntN(3) == 0 {
				j.kill = time.Duration(r.Int64N(int64(base.took) * 3)) // beside each other they are slower
			}
			cmd := p.command(t, j.root, "--cache-strict", "--build-arg", fmt.Sprintf("JOB=job%d", i))
			log, err := os.Create(j.root + ".log")
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer log.Close()
				if j.kill > 0 {
					timer := time.AfterFunc(j.kill, func() { _ = cmd.Process.Kill() })
					defer timer.Stop()
				}
				j.err = cmd.Wait()
			})
		}
		wg.Wait()
		survivors := 0
		for i, j := range list {
			if j.err == nil {
				survivors++
				want = append(want, strings.Fields((&built{dir: j.root + "-out"}).file(t, "mine"))...)
			} else if j.kill == 0 {
				log, _ := os.ReadFile(j.root + ".log")
				t.Errorf("round %d: job %d: %v\n%s", n, i, j.err, log)
			}
		}
		after := p.fresh(t, "--build-arg", "JOB=look")
		have := strings.Fields(after.file(t, "entries"))
		for _, name := range want {
			if !slices.Contains(have, name) {
				t.Errorf("round %d: %s is lost", n, name)
			}
		}
		if torn := after.file(t, "torn"); torn != "" {
			t.Errorf("round %d: torn:\n%s", n, torn)
		}
		stamps := strings.Fields(after.file(t, "stamps"))
		if len(stamps) != 3 || stamps[0] != "8" || after.file(t, "base") != "base\n" {
			t.Errorf("round %d: the other mount is of several jobs: %q", n, stamps)
		}
		t.Logf("round %d: %d of %d survived, %d files of %d wanted, state of %v", n, survivors, count, len(have), len(want), stamps)
		for _, j := range list {
			if j.err != nil { // what a killed one left is found by the next build there
				if _, err := p.on(t, j.root, "--cache-read-only", "--build-arg", "JOB=look"); err != nil {
					t.Error(err)
				}
				nothingLeft(t, j.root, j.root)
			}
		}
		if t.Failed() {
			t.Fatalf("the last build said:\n%s", after.said)
		}
		if err := os.RemoveAll(p.work); err != nil {
			t.Fatal(err)
		}
	}
}
