package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// timed has sources from everywhere: two of one COPY, one of a COPY of its own, whose layer of an earlier build is given back when it
// changes back, one that a RUN makes, one that another stage makes, and one that is bound into the step. Each tool turns them into
// something in a cache mount.
const timed = `ARG REGISTRY
FROM ${REGISTRY}/toolchain AS other
WORKDIR /other
COPY tools/unit.sh far.txt .
RUN sh unit.sh far $(cat far.txt) .
FROM ${REGISTRY}/toolchain AS build
WORKDIR /src
COPY tools/ tools/
COPY --link lib/ lib/
COPY gen.txt .
RUN mkdir gen && sh tools/unit.sh gen $(cat gen.txt) gen
COPY --from=other /other far/
COPY app/ app/
ARG ROUND
RUN --mount=type=cache,target=/obj --mount=type=bind,source=bound,target=bound mkdir /out && make -s -f tools/Makefile && /obj/prog > /out/make
RUN --mount=type=cache,target=/obj --mount=type=bind,source=bound,target=bound ninja -f tools/build.ninja >/dev/null && /obj/n/prog > /out/ninja
RUN --mount=type=cache,target=/state --mount=type=cache,target=/pyc --mount=type=bind,source=bound,target=bound <<EOF
set -e
python3 tools/newer.py newer
python3 tools/newer.py differs
PYTHONPYCACHEPREFIX=/pyc python3 tools/pyc.py
EOF
FROM scratch
COPY --from=build /out /
`

// units are the sources. What is made of them says what value they have.
var units = []string{"main", "part", "lib", "gen", "far", "bound"}

var timedTools = []string{"make", "ninja", "newer", "differs", "pyc"}

// timedFiles are what stays the same.
var timedFiles = map[string]string{
	"Dockerfile": timed,
	"tools/unit.sh": `printf 'int %s_value(void) { return %s; }\n' $1 $2 > $3/$1.c
printf 'value = %s\n' $2 > $3/$1.py
`,
	"tools/prog.c": `#include <stdio.h>
int main_value(void), part_value(void), lib_value(void), gen_value(void), far_value(void), bound_value(void);
int main(void) {
	printf("%d %d %d %d %d %d\n", main_value(), part_value(), lib_value(), gen_value(), far_value(), bound_value());
	return 0;
}
`,
	"tools/Makefile": `VPATH = app lib gen far bound tools
/obj/prog: /obj/prog.o /obj/main.o /obj/part.o /obj/lib.o /obj/gen.o /obj/far.o /obj/bound.o
	gcc -o $@ $^
/obj/%.o: %.c
	echo $* >> /out/make.made
	gcc -c -o $@ $<
`,
	"tools/build.ninja": `builddir = /obj/n
rule cc
  command = echo $unit >> /out/ninja.made && gcc -c -o $out $in
rule link
  command = gcc -o $out $in
build /obj/n/prog.o: cc tools/prog.c
  unit = prog
build /obj/n/main.o: cc app/main.c
  unit = main
build /obj/n/part.o: cc app/part.c
  unit = part
build /obj/n/lib.o: cc lib/lib.c
  unit = lib
build /obj/n/gen.o: cc gen/gen.c
  unit = gen
build /obj/n/far.o: cc far/far.c
  unit = far
build /obj/n/bound.o: cc bound/bound.c
  unit = bound
build /obj/n/prog: link /obj/n/prog.o /obj/n/main.o /obj/n/part.o /obj/n/lib.o /obj/n/gen.o /obj/n/far.o /obj/n/bound.o
`,
	// As cargo does: what was made is older than a source that changed. And as others do: the source's time is another one.
	"tools/newer.py": `import os, re, sys, time
how = sys.argv[1]
values, made = [], []
for source in ["app/main.c", "app/part.c", "lib/lib.c", "gen/gen.c", "far/far.c", "bound/bound.c"]:
    unit = os.path.basename(source)[:-2]
    state = "/state/" + how + "-" + unit
    at = os.stat(source).st_mtime_ns
    started = time.time_ns()
    try:
        old = os.stat(state).st_mtime_ns
    except FileNotFoundError:
        old = 0
    if at > old if how == "newer" else at != old:
        with open(source) as f, open(state, "w") as out:
            out.write(re.search("return ([0-9]+)", f.read()).group(1))
        to = started if how == "newer" else at
        os.utime(state, ns=(to, to))
        made.append(unit)
    values.append(open(state).read())
with open("/out/" + how, "w") as f:
    f.write(" ".join(values) + "\n")
with open("/out/" + how + ".made", "w") as f:
    f.write("\n".join(made))
`,
	"tools/pyc.py": `import importlib.util, os, sys
values, made = [], []
for source in ["/src/app/main.py", "/src/app/part.py", "/src/lib/lib.py", "/src/gen/gen.py", "/src/far/far.py", "/src/bound/bound.py"]:
    unit = os.path.basename(source)[:-3]
    cached = importlib.util.cache_from_source(source)
    def at():
        return os.stat(cached).st_mtime_ns if os.path.exists(cached) else 0
    before = at()
    spec = importlib.util.spec_from_file_location(unit, source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values.append(str(module.value))
    if at() != before:
        made.append(unit)
with open("/out/pyc", "w") as f:
    f.write(" ".join(values) + "\n")
with open("/out/pyc.made", "w") as f:
    f.write("\n".join(made))
`,
}

// values says what the sources are: the value of each unit, and any text for a file that no tool looks at.
type values map[string]string

func (v values) files() map[string]string {
	files := map[string]string{"gen.txt": v["gen"] + "\n", "far.txt": v["far"] + "\n", "app/README": v["README"]}
	for unit, dir := range map[string]string{"main": "app", "part": "app", "lib": "lib", "bound": "bound"} {
		files[dir+"/"+unit+".c"] = fmt.Sprintf("int %s_value(void) { return %s; }\n", unit, v[unit])
		files[dir+"/"+unit+".py"] = fmt.Sprintf("value = %s\n", v[unit])
	}
	return files
}

// result is what a build from nothing gives.
func (v values) result() string {
	var list []string
	for _, u := range units {
		list = append(list, v[u])
	}
	return strings.Join(list, " ") + "\n"
}

// changed lists the units of which another value is known.
func (v values) changed(from values) []string {
	list := []string{}
	for _, u := range units {
		if v[u] != from[u] {
			list = append(list, u)
		}
	}
	return list
}

// timedBuild builds on an empty machine; want, where not nil, are the units that the tools are to make anew.
func (c *ci) timedBuild(t *testing.T, what string, v values, want []string, flags ...string) {
	t.Helper()
	c.edit(t, v.files())
	b := c.fresh(t, append(flags, "--build-arg", "ROUND="+v["README"])...) // no step looks at README
	for _, name := range timedTools {
		if got := b.file(t, name); got != v.result() {
			t.Errorf("%s: %s gives %q, a build from nothing %q", what, name, got, v.result())
		}
		if want == nil {
			continue
		}
		made := []string{}
		if text, err := os.ReadFile(b.dir + "/" + name + ".made"); err == nil {
			made = slices.DeleteFunc(strings.Fields(string(text)), func(u string) bool { return u == "prog" })
		}
		slices.Sort(made)
		if slices.Sort(want); !slices.Equal(made, want) {
			t.Errorf("%s: %s made %v anew, want %v", what, name, made, want)
		}
	}
	if t.Failed() {
		t.Logf("%s: the build said:\n%s", what, b.said)
	}
}

// TestTimes runs tools that compare times, each build on an empty machine, through edits as they happen: what they give is always what a
// build from nothing gives, and they make again what changed and nothing else.
func TestTimes(t *testing.T) {
	for _, c := range []struct {
		name  string
		stamp time.Time
		short int // steps of an ordinary run
	}{
		{"new times", time.Time{}, 7},
		{"one time for all", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newCI(t, "toolchain", timedFiles)
			p.stamp = c.stamp
			v := values{"main": "1", "part": "1", "lib": "1", "gen": "1", "far": "1", "bound": "1"}
			p.timedBuild(t, "first", v, slices.Clone(units))
			for i, step := range []struct {
				what string
				edit values
			}{
				{"a change", values{"main": "2"}},
				{"a revert", values{"main": "1"}},
				{"a revert with a change beside it", values{"main": "2", "part": "2"}},
				{"everything else", values{"lib": "2", "gen": "2", "far": "2", "bound": "2"}},
				{"reverts of everything else", values{"lib": "1", "gen": "1", "far": "1", "bound": "1"}},
				{"nothing that counts", nil},
				{"a revert of a COPY below a change", values{"lib": "2", "far": "2", "main": "3"}},
			}[:min(7, rounds(c.short, 7))] {
				seen := maps.Clone(v)
				maps.Copy(v, step.edit)
				if i == 2 { // a build that the cache has, whole: no tool sees it
					first := maps.Clone(v)
					maps.Copy(first, values{"main": "1", "part": "1", "README": ""})
					p.timedBuild(t, "all as it was first", first, slices.Clone(units))
				}
				v["README"] = strconv.Itoa(i)
				p.timedBuild(t, step.what, v, v.changed(seen))
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestTimesOfBranches goes back and forth between branches that are scopes: the first build of a branch goes on with what the default
// branch has.
func TestTimesOfBranches(t *testing.T) {
	p := newCI(t, "toolchain", timedFiles)
	main := values{"main": "1", "part": "1", "lib": "1", "gen": "1", "far": "1", "bound": "1"}
	feature := values{"main": "1", "part": "2", "lib": "1", "gen": "2", "far": "1", "bound": "2"}
	p.timedBuild(t, "default", main, nil)
	p.timedBuild(t, "the branch begins", feature, feature.changed(main), "--cache-scope", "feature")
	main["main"] = "2"
	p.timedBuild(t, "default goes on", main, []string{"main"})
	feature["README"] = "a"
	p.timedBuild(t, "nothing on the branch", feature, []string{}, "--cache-scope", "feature")
	maps.Copy(feature, values{"main": "2"})
	p.timedBuild(t, "the branch merges default", feature, []string{"main"}, "--cache-scope", "feature")
	maps.Copy(main, values{"part": "2", "gen": "2", "bound": "2"})
	p.timedBuild(t, "default merges the branch", main, []string{"bound", "gen", "part"})
}

// TestSoakTimes edits at random, on random branches: what tools give is what a build from nothing gives.
func TestSoakTimes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := newCI(t, "toolchain", timedFiles)
	branches := map[string]values{}
	for n := range rounds(2, 150) {
		branch := []string{"default", "a", "b"}[r.IntN(3)]
		if branches[branch] == nil || r.IntN(6) == 0 { // another branch's state: begin, reset or merge
			branches[branch] = maps.Clone(branches[[]string{"default", "a", "b"}[r.IntN(3)]])
			if branches[branch] == nil {
				branches[branch] = values{"main": "0", "part": "0", "lib": "0", "gen": "0", "far": "0", "bound": "0"}
			}
		}
		v := branches[branch]
		for _, u := range append(slices.Clone(units), "README") {
			if r.IntN(3) == 0 {
				v[u] = strconv.Itoa(r.IntN(3))
			}
		}
		if p.stamp = (time.Time{}); r.IntN(3) == 0 {
			p.stamp = time.Date([]int{1970, 1980, 2020, 2021, 2100}[r.IntN(5)], 1, 1, 0, 0, 0, 0, time.UTC)
		}
		p.timedBuild(t, fmt.Sprintf("build %d, on %s: %v", n, branch, v), v, nil, "--cache-scope", branch)
		if t.Failed() {
			return
		}
	}
}
