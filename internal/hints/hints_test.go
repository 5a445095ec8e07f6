package hints

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// bad has two faults: line 1 and line 2, if it has no other lines in front.
const bad = "FROM debian\nRUN date > /stamp\n"

func TestChecksCanBeSkipped(t *testing.T) {
	rules := func(s string) *string { return &s }
	for _, c := range []struct {
		file  string
		rules *string
		want  string
	}{
		{bad, nil, "[1 MovingBase 2 Timestamp]"},
		{"# check=skip=all\n" + bad, nil, "[]"},
		{"# check=skip=CacheTimestamp\n" + bad, nil, "[2 MovingBase]"},
		{"# syntax=docker/dockerfile:1\n# check=skip=JSONArgsRecommended,CacheMovingBase;error=true\n" + bad, nil, "[4 Timestamp]"},
		{"# check=skip=CacheSomething\n" + bad, nil, "[2 MovingBase 3 Timestamp]"},
		{"# check=experimental=all\n" + bad, nil, "[2 MovingBase 3 Timestamp]"},
		{"# check=skip=all\n" + bad, rules("skip=CacheMovingBase"), "[3 Timestamp]"},
		{bad, rules("skip=all"), "[]"},
		{"FROM debian\n# check=skip=CacheTimestamp\nRUN date > /stamp\nRUN date > /other\n", nil, "[1 MovingBase 4 Timestamp]"},
		{"# a base\n# check=skip=CacheMovingBase\nFROM debian\nRUN date > /stamp\n", nil, "[4 Timestamp]"},
		{"FROM a:1\n# check=skip=all\nARG BUILD_DATE\nRUN npm ci\n", nil, "[]"},
	} {
		if got := fmt.Sprint(check(t, Request{Dockerfile: []byte(c.file), Rules: c.rules})); got != c.want {
			t.Errorf("%s got %s, want %s", c.file, got, c.want)
		}
	}
}

func TestErrorsAreAskedFor(t *testing.T) {
	yes := "error=true"
	for _, c := range []struct {
		r    Request
		want bool
	}{
		{Request{Dockerfile: []byte(bad)}, false},
		{Request{Dockerfile: []byte("# check=error=true\n" + bad)}, true},
		{Request{Dockerfile: []byte("# check=skip=all;error=true\n" + bad)}, true},
		{Request{Dockerfile: []byte(bad), Rules: &yes}, true},
	} {
		if found, err := Check(c.r); err != nil || found.Errors != c.want {
			t.Errorf("%s %v %v", c.r.Dockerfile, found.Errors, err)
		}
	}
}

func TestBrokenDockerfiles(t *testing.T) {
	no := "nonsense"
	for _, r := range []Request{
		{Dockerfile: nil},
		{Dockerfile: []byte("FROM a\nNONSENSE b\n")},
		{Dockerfile: []byte("RUN a\n")},
		{Dockerfile: []byte("# check=nonsense=1\n" + bad)},
		{Dockerfile: []byte(bad), Rules: &no},
	} {
		if _, err := Check(r); err == nil {
			t.Errorf("%q passes", r.Dockerfile)
		}
	}
	// What only the build finds fault with.
	for _, f := range []string{
		"FROM ${X:?no}\nRUN date > /s\n",
		"FROM a:1 AS a\nFROM A\nCOPY --from=7 . .\nRUN --mount=type=bind,from=9,target=/x,readonly true\n",
		"FROM a:1\nRUN --mount=type=nonsense,x true\n",
		"FROM a:1\nRUN []\n",
		"FROM a:1\nRUN [\"\"]\n",
		"FROM a:1\nONBUILD RUN date > /s\nWORKDIR $X\nCOPY . $Y\nRUN git log\n",
		"FROM a:1\nSHELL [\"powershell\", \"-command\"]\nRUN $d = Get-Date; Write-Output $d\n",
	} {
		if _, err := Check(Request{Dockerfile: []byte(f), Target: "a"}); err != nil && !strings.Contains(f, "nonsense") {
			t.Errorf("%q: %v", f, err)
		}
	}
}

func TestStagesThatAreNotBuiltSayNothing(t *testing.T) {
	file := []byte("FROM a:1 AS base\nRUN date > /1\nFROM base AS lint\nRUN date > /2\nFROM b:1 AS tool\nRUN date > /3\n" +
		"FROM c:1 AS more\nRUN date > /4\nFROM base AS app\nCOPY --from=tool / /\nRUN --mount=type=bind,from=3,target=/m date > /5\n")
	for target, want := range map[string]string{
		"":        "[2 Timestamp 4 Timestamp 6 Timestamp 8 Timestamp 11 Timestamp]",
		"base":    "[2 Timestamp]",
		"LINT":    "[2 Timestamp 4 Timestamp]",
		"app":     "[2 Timestamp 6 Timestamp 8 Timestamp 11 Timestamp]",
		"2":       "[6 Timestamp]",
		"nowhere": "[]",
	} {
		if got := fmt.Sprint(check(t, Request{Dockerfile: file, Target: target})); got != want {
			t.Errorf("%q: got %s, want %s", target, got, want)
		}
	}
}

// TestLargeDockerfiles looks at what takes much: all of it ends soon, and no harm is done.
func TestLargeDockerfiles(t *testing.T) {
	deep := strings.Repeat("$(", 5000) + "date" + strings.Repeat(")", 5000)
	for name, file := range map[string]string{
		"too many":      "FROM a:1\n" + strings.Repeat("RUN date > /stamp\n", maxCommands),
		"many":          "FROM a:1\n" + strings.Repeat("ARG BUILD_DATE\nRUN echo hello && npm ci --cache x\n", maxCommands/2-1),
		"stages":        "FROM a:1 AS s0\n" + strings.Repeat("ARG GIT_SHA\nWORKDIR x\nCOPY . .\nRUN git log\n", 100),
		"nested":        "FROM a:1\nRUN echo " + deep + " > x\n",
		"long":          "FROM a:1\nRUN date > x; " + strings.Repeat("a;", maxText) + "\n",
		"repeated text": "FROM a:1\nRUN x='" + strings.Repeat("eval \"$y\";", 800) + "'; y='eval \"$x\"'; eval \"$x\"\n",
		"growing":       "FROM a:1\nRUN a=xxxxxxxxxx; " + strings.Repeat("a=$a$a; ", 100) + "echo $a$a > y\n",
		"shells":        "FROM a:1\nRUN " + strings.Repeat("sh -c ", 50) + "date\n",
	} {
		began := time.Now()
		found, err := Check(Request{Dockerfile: []byte(file)})
		if err != nil && name != "nested" && name != "long" {
			t.Errorf("%s: %v", name, err)
		}
		if name != "many" && slices.ContainsFunc(found.Warnings, func(w Warning) bool { return w.Rule == "CacheTimestamp" }) {
			t.Errorf("%s: %d warnings", name, len(found.Warnings))
		}
		if d := time.Since(began); d > 30*time.Second {
			t.Errorf("%s took %v", name, d)
		}
		t.Logf("%s: %v, %d warnings", name, time.Since(began), len(found.Warnings))
	}
}

func FuzzCheck(f *testing.F) {
	for _, c := range args {
		f.Add(c.file)
	}
	f.Add(bad)
	f.Add("FROM a:1\nRUN <<EOF bash\nx=$(date) sed -i s/x/$x/ y\nEOF\nRUN [\"git\", \"log\"]\n")
	f.Add("FROM a:1\nRUN xargs -I sh -c -o env A=$(date +%s -d) touch -t | tee\n")
	f.Fuzz(func(t *testing.T, file string) {
		found, err := Check(Request{Dockerfile: []byte(file)})
		if err != nil {
			return
		}
		n := strings.Count(file, "\n") + 1
		for _, w := range found.Warnings {
			if at := first(w.Where); at < 1 || at > n {
				t.Errorf("%s in line %d of %d", w.Rule, at, n)
			}
		}
	})
}
