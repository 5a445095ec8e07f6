package main

import (
	"fmt"
	"strings"
)

// change is what happens to a working copy between two builds.
type change int

const (
	nothing change = iota
	oneLine
	oneDependency
	readmeLine
)

// series are builds that find each other, in the local state and in repositories of their own.
type series int

const (
	alone  series = iota // without a remote cache
	cached               // with one, which all of them read and write
	ran                  // the same, and a command runs in what was built: larder run
)

// state is what a machine has of the builds before.
type state int

const (
	kept  state = iota // everything
	cold               // nothing, and nothing is in the registry's repositories
	fresh              // nothing: a new machine, on which the builder starts as part of the measurement
	based              // the base images' layers, unpacked, and nothing else
)

// scenario is what happens between two builds, and what the second one finds of the first.
type scenario struct {
	name   string
	title  string
	series series
	state  state
	change change
	few    bool // it takes long: -cold-runs applies
	// only tells which workloads take part; nil for all.
	only func(workload) bool
	// packages says that what comes from package registries is counted.
	packages bool
	// warm is the scenario of a machine that kept everything, with which this one is compared; "" for none.
	warm string
}

// scenarios in the order in which results show them.
var scenarios = []scenario{
	{name: "cold", title: "no local state", state: cold, few: true},
	{name: "nochange", title: "nothing changed"},
	{name: "oneline", title: "one source line changed", change: oneLine},
	{name: "onedep", title: "one dependency changed", change: oneDependency},
	{name: "readme", title: "what no step reads changed", change: readmeLine, only: hasReadme},
	{name: "cold-cache", title: "no local state, and a remote cache to fill", state: cold, series: cached, few: true},
	{name: "fresh", title: "a new machine, nothing changed", state: fresh, series: cached},
	{name: "fresh-oneline", title: "a new machine, one source line changed", state: fresh, series: cached, few: true, change: oneLine, warm: "oneline"},
	{name: "fresh-readme", title: "a new machine, what no step reads changed", state: fresh, series: cached, change: readmeLine, only: hasReadme, warm: "readme"},
	{
		name: "base-oneline", title: "a new machine that has the base images, one source line changed",
		state: based, series: cached, few: true, change: oneLine, only: hasMounts, warm: "oneline",
	},
	{
		name: "fresh-onedep", title: "a new machine, one dependency changed",
		state: fresh, series: cached, few: true, change: oneDependency, packages: true, warm: "onedep",
		only: func(w workload) bool { return hasMounts(w) || hasReadme(w) },
	},
	{name: "run", title: "the tests once more", series: ran, only: hasMounts},
	{name: "fresh-run", title: "a new machine, the tests once more", state: fresh, series: ran, few: true, only: hasMounts, warm: "run"},
	{
		name: "base-run", title: "a new machine that has the base images, the tests once more",
		state: based, series: ran, few: true, only: hasMounts, warm: "run",
	},
}

func hasMounts(w workload) bool { return w.mounts }
func hasReadme(w workload) bool { return w.readme != "" }

func scenarioByName(name string) (scenario, error) {
	for _, s := range scenarios {
		if s.name == name {
			return s, nil
		}
	}
	return scenario{}, fmt.Errorf("no scenario %q; there are %s", name, strings.Join(scenarioNames(), ", "))
}

func scenarioNames() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}
