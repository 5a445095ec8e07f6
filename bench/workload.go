package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// A workload is a directory to build, and what a day's work does to it. Edits are numbered from 1 and all different,
// so that no builder has seen the result of one before.
type workload struct {
	name string
	// generate adds what is not checked in; nil for nothing.
	generate func(dir string) error
	oneLine  func(dir string, n int) error
	oneDep   func(dir string, n int) error
	maxDeps  int // so many different oneDep edits there are
}

// workloads in the order in which they run.
var workloads = []workload{
	{name: "go", oneLine: revisionIn("main.go"), oneDep: goDependency, maxDeps: len(chiVersions)},
	{name: "node", oneLine: revisionIn("src/main.jsx"), oneDep: nodeDependency, maxDeps: len(dayjsVersions)},
	{name: "apt", oneLine: revisionIn("src/greet.c"), oneDep: aptDependency, maxDeps: len(aptPackages)},
	{name: "files", generate: generateFiles, oneLine: fileLine, oneDep: fileDirectory, maxDeps: fileDirs},
}

func workloadByName(name string) (workload, error) {
	for _, w := range workloads {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("no workload %q; there are go, node, apt and files", name)
}

// copyTo makes a fresh working copy in dir, which must not exist.
func (w workload) copyTo(sources, dir string) error {
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(sources, w.name))); err != nil {
		return err
	}
	if w.generate == nil {
		return nil
	}
	return w.generate(dir)
}

// scenario is what happens between two builds, and whether the second one finds the local state of the first.
type scenario struct {
	name  string
	title string
	cold  bool
	edit  func(w workload, dir string, n int) error
}

var scenarios = []scenario{
	{name: "cold", title: "no local state", cold: true},
	{name: "nochange", title: "nothing changed"},
	{name: "oneline", title: "one source line changed",
		edit: func(w workload, dir string, n int) error { return w.oneLine(dir, n) }},
	{name: "onedep", title: "one dependency changed",
		edit: func(w workload, dir string, n int) error { return w.oneDep(dir, n) }},
}

func scenarioByName(name string) (scenario, error) {
	for _, s := range scenarios {
		if s.name == name {
			return s, nil
		}
	}
	return scenario{}, fmt.Errorf("no scenario %q; there are cold, nochange, oneline and onedep", name)
}
