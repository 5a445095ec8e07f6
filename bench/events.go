package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
)

// mountTimes are the seconds in which a build restored cache mounts, and saved some.
type mountTimes struct{ restore, save float64 }

// What the names of larder's lines begin with that say what it does with cache mounts.
const (
	restoreLine = "restore cache mount"
	saveLine    = "save cache mount"
)

// readEvents reads the output of larder --progress rawjson: events, and between them lines of its own and of what it runs. text is for
// people: what steps wrote, and what is no event.
func readEvents(out []byte) (times mountTimes, text []byte) {
	restores, saves := spans{}, spans{}
	for line := range bytes.Lines(out) {
		var st client.SolveStatus
		if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &st) != nil {
			text = append(text, line...)
			continue
		}
		for _, v := range st.Vertexes {
			if v.Error != "" {
				text = append(text, v.Name+": "+v.Error+"\n"...)
			}
			if v.Started == nil || v.Completed == nil {
				continue
			}
			switch {
			case strings.HasPrefix(v.Name, restoreLine):
				restores[v.Digest.String()] = span{*v.Started, *v.Completed}
			case strings.HasPrefix(v.Name, saveLine):
				saves[v.Digest.String()] = span{*v.Started, *v.Completed}
			}
		}
		for _, l := range st.Logs {
			text = append(text, l.Data...)
		}
	}
	return mountTimes{restores.seconds(), saves.seconds()}, text
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
