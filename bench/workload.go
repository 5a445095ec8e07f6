package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A workload is a directory to build, and what a day's work does to it. Edits are numbered from 1 and all different,
// so that no builder has seen the result of one before.
type workload struct {
	name string
	from string // the directory of its sources, where that has another name
	over string // a directory whose files come over those; "" for none
	// generate adds what is not checked in; nil for nothing.
	generate func(dir string) error
	lineFile func(n int) string // the file in which oneLine makes its edit n
	oneLine  func(path string, n int) error
	oneDep   func(dir string, n int) error
	maxDeps  int    // so many different oneDep edits there are
	readme   string // a file that no step reads, in which readmeLine makes its edits; "" where they mean nothing
	mounts   bool   // its steps have cache mounts
	// target is the stage in which its tests run, by the command test; nil for a workload without tests.
	target string
	test   []string
}

// workloads in the order in which they run.
var workloads = []workload{
	{
		name: "go", lineFile: always("main.go"), oneLine: setRevision, oneDep: goDependency, maxDeps: len(chiVersions),
		mounts: true, target: "build", test: []string{"go", "test", "./..."},
	},
	{name: "node", lineFile: always("src/main.jsx"), oneLine: setRevision, oneDep: nodeDependency, maxDeps: len(dayjsVersions)},
	{
		name: "node-mounts", from: "node", generate: mountNpmCache, lineFile: always("src/main.jsx"), oneLine: setRevision,
		oneDep: nodeDependency, maxDeps: len(dayjsVersions), mounts: true,
	},
	{name: "apt", lineFile: always("src/greet.c"), oneLine: setRevision, oneDep: aptDependency, maxDeps: len(aptPackages)},
	{
		name: "order", from: "node", over: "order", generate: loosenDayjs, lineFile: always("src/main.jsx"), oneLine: setRevision,
		oneDep: lockDependency, maxDeps: len(dayjsVersions), readme: "README.md",
	},
	{name: "files", generate: generateFiles, lineFile: fileOfLine, oneLine: fileLine, oneDep: fileDirectory, maxDeps: fileDirs},
}

func workloadByName(name string) (workload, error) {
	for _, w := range workloads {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("no workload %q; there are %s", name, strings.Join(workloadNames(), ", "))
}

func workloadNames() (names []string) {
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}

// takesPart tells whether a scenario means anything for the workload.
func (w workload) takesPart(s scenario) bool {
	return (s.only == nil || s.only(w)) && (s.series != ran || w.test != nil)
}

// copyTo makes a fresh working copy in dir, which must not exist.
func (w workload) copyTo(sources, dir string) error {
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(sources, cmp.Or(w.from, w.name)))); err != nil {
		return err
	}
	if w.over != "" {
		if err := copyOver(dir, filepath.Join(sources, w.over)); err != nil {
			return err
		}
	}
	if w.generate == nil {
		return nil
	}
	return w.generate(dir)
}

// copyOver copies the files of a directory, which has no other directories in it, over those of another.
func copyOver(to, from string) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
