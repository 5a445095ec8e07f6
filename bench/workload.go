package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A workload is a directory to build, and what a day's work does to it. Edits are numbered from 1 and all different,
// so that no builder has seen the result of one before.
type workload struct {
	name string
	// generate adds what is not checked in; nil for nothing.
	generate func(dir string) error
	lineFile func(n int) string // the file in which oneLine makes its edit n
	oneLine  func(path string, n int) error
	oneDep   func(dir string, n int) error
	maxDeps  int // so many different oneDep edits there are
}

// workloads in the order in which they run.
var workloads = []workload{
	{name: "go", lineFile: always("main.go"), oneLine: setRevision, oneDep: goDependency, maxDeps: len(chiVersions)},
	{name: "node", lineFile: always("src/main.jsx"), oneLine: setRevision, oneDep: nodeDependency, maxDeps: len(dayjsVersions)},
	{name: "apt", lineFile: always("src/greet.c"), oneLine: setRevision, oneDep: aptDependency, maxDeps: len(aptPackages)},
	{name: "files", generate: generateFiles, lineFile: fileOfLine, oneLine: fileLine, oneDep: fileDirectory, maxDeps: fileDirs},
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

// change is what happens to a working copy between two builds.
type change int

const (
	nothing change = iota
	oneLine
	oneDependency
)

// scenario is what happens between two builds, and what the second one finds of the first.
type scenario struct {
	name   string
	title  string
	cold   bool // nothing: no local state, nothing in the registry's repositories
	fresh  bool // what is in the registry: a new machine, on which the builder starts as part of the measurement
	cache  bool // builds read and write a remote cache
	few    bool // it takes long: -cold-runs applies
	change change
}

// scenarios in the order in which results show them.
var scenarios = []scenario{
	{name: "cold", title: "no local state", cold: true, few: true},
	{name: "nochange", title: "nothing changed"},
	{name: "oneline", title: "one source line changed", change: oneLine},
	{name: "onedep", title: "one dependency changed", change: oneDependency},
	{name: "cold-cache", title: "no local state, and a remote cache to fill", cold: true, cache: true, few: true},
	{name: "fresh", title: "a new machine, nothing changed", fresh: true, cache: true},
	{name: "fresh-oneline", title: "a new machine, one source line changed", fresh: true, cache: true, few: true, change: oneLine},
}

func scenarioByName(name string) (scenario, error) {
	var names []string
	for _, s := range scenarios {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	return scenario{}, fmt.Errorf("no scenario %q; there are %s", name, strings.Join(names, ", "))
}
