package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A costStep is a Dockerfile whose last RUN step is measured: what stands before it is kept. Its working copy is what that step is
// given as an observed layer.
type costStep struct {
	workload
	bound float64 // what observation may cost: time with it divided by time without (issue 5)
}

// costSteps in the order in which they run.
var costSteps = []costStep{
	{workload{name: "npm-ci", from: "node", over: "cost/npm-ci"}, smallBound},
	{workload{name: "go-build", from: "go", over: "cost/go-build", generate: vendorModules}, smallBound},
	{workload{name: "apt-get", from: "apt", over: "cost/apt-get"}, smallBound},
	{workload{name: "configure", from: "cost/configure"}, smallBound},
	{workload{name: "bundle", from: "cost/bundle", generate: generateModules}, worstBound},
}

const (
	smallBound = 1.05 // where the step does more than to read the observed layer
	worstBound = 1.4
)

func costStepByName(name string) (costStep, error) {
	i := slices.IndexFunc(costSteps, func(s costStep) bool { return s.name == name })
	if i < 0 {
		return costStep{}, fmt.Errorf("no step %q; there are %s", name, strings.Join(costStepNames(), ", "))
	}
	return costSteps[i], nil
}

func costStepNames() (names []string) {
	for _, s := range costSteps {
		names = append(names, s.name)
	}
	return names
}

// vendorModules puts the sources of what a module requires beside its own.
func vendorModules(dir string) error {
	cmd := exec.Command("go", "mod", "vendor")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod vendor: %w\n%s", err, out)
	}
	return nil
}

// The modules that are bundled: directories of modules each of which imports the one before it, and one that imports the last of
// each directory. They are some hundred bytes long. Every run generates the same bytes.
const (
	moduleDirs    = 200
	modulesPerDir = 100
)

func generateModules(dir string) error { return writeModules(dir, moduleDirs) }

func writeModules(dir string, dirs int) error {
	r := rand.New(rand.NewPCG(20_000, 1))
	var first, parts strings.Builder
	for d := range dirs {
		part := fmt.Sprintf("part%03d", d)
		if err := os.MkdirAll(filepath.Join(dir, "src", part), 0o755); err != nil {
			return err
		}
		for m := range modulesPerDir {
			path := filepath.Join(dir, "src", part, fmt.Sprintf("m%02d.js", m))
			if err := os.WriteFile(path, module(r, m), 0o644); err != nil {
				return err
			}
		}
		fmt.Fprintf(&first, "import { value as %s } from \"./%s/m%02d.js\";\n", part, part, modulesPerDir-1)
		fmt.Fprintf(&parts, "\t%s,\n", part)
	}
	text := first.String() + "const state = {};\nfor (const part of [\n" + parts.String() + "]) part(state);\nconsole.log(state);\n"
	return os.WriteFile(filepath.Join(dir, "src", "main.js"), []byte(text), 0o644)
}

// module is number m of its directory.
func module(r *rand.Rand, m int) []byte {
	var b bytes.Buffer
	result := "state"
	if m > 0 {
		fmt.Fprintf(&b, "import { value as before } from \"./m%02d.js\";\n", m-1)
		result = "before(state)"
	}
	b.WriteString("export function value(state) {\n")
	word := func() string { return words[r.IntN(len(words))] }
	for range 2 + r.IntN(18) {
		fmt.Fprintf(&b, "\tstate.%s = (state.%s ?? %d) + %d; // %s %s %s\n", word(), word(), r.IntN(1000), r.IntN(100), word(), word(), word())
	}
	fmt.Fprintf(&b, "\treturn %s;\n}\n", result)
	return b.Bytes()
}

// countFiles tells how many regular files a directory has at all depths.
func countFiles(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	return n, err
}
