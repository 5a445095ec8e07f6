package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
)

// events are what a build said of itself.
type events struct {
	mounts mountTimes
	ran    []ranStep // in the order in which they began
	text   []byte    // for people: what steps wrote, and what is no event
}

// ranStep is a RUN step that was not spared.
type ranStep struct {
	name    string // its line of the Dockerfile, without the stage before it
	seconds float64
}

// mountTimes are the seconds in which a build restored cache mounts, and saved some.
type mountTimes struct{ restore, save float64 }

// What the names of larder's lines begin with that say what it does with cache mounts, and what stands in those of RUN steps, larder's
// and BuildKit's.
const (
	runLine     = "] RUN "
	restoreLine = "restore cache mount"
	saveLine    = "save cache mount"
)

// readEvents reads the output of a builder with --progress rawjson: events, and between them lines of its own and of what it runs.
func readEvents(out []byte) (e events) {
	restores, saves, steps := spans{}, spans{}, spans{}
	names := map[string]string{}
	for line := range bytes.Lines(out) {
		var st client.SolveStatus
		if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &st) != nil {
			e.text = append(e.text, line...)
			continue
		}
		for _, v := range st.Vertexes {
			if v.Error != "" {
				e.text = append(e.text, v.Name+": "+v.Error+"\n"...)
			}
			if v.Started == nil || v.Completed == nil {
				continue
			}
			_, command, isRun := strings.Cut(v.Name, runLine)
			switch {
			case isRun && !v.Cached:
				names[v.Digest.String()] = command
				steps[v.Digest.String()] = span{*v.Started, *v.Completed}
			case isRun:
				delete(steps, v.Digest.String())
			case strings.HasPrefix(v.Name, restoreLine):
				restores[v.Digest.String()] = span{*v.Started, *v.Completed}
			case strings.HasPrefix(v.Name, saveLine):
				saves[v.Digest.String()] = span{*v.Started, *v.Completed}
			}
		}
		for _, l := range st.Logs {
			e.text = append(e.text, l.Data...)
		}
	}
	e.mounts = mountTimes{restores.seconds(), saves.seconds()}
	digests := slices.SortedFunc(maps.Keys(steps), func(a, b string) int { return steps[a].from.Compare(steps[b].from) })
	for _, d := range digests {
		e.ran = append(e.ran, ranStep{names[d], steps[d].to.Sub(steps[d].from).Seconds()})
	}
	return e
}

// span is from when to when a line was busy.
type span struct{ from, to time.Time }

// spans are those of lines, by their digests.
type spans map[string]span

// seconds counts moments once at which several lines were busy.
func (s spans) seconds() float64 {
	var list []span
	for _, one := range s {
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b span) int { return a.from.Compare(b.from) })
	var sum time.Duration
	var until time.Time
	for _, one := range list {
		if one.from.Before(until) {
			one.from = until
		}
		if one.to.After(one.from) {
			sum += one.to.Sub(one.from)
			until = one.to
		}
	}
	return sum.Seconds()
}
