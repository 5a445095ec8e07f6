package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// mountTraffic is what a build restored of cache mounts, and saved.
type mountTraffic struct{ restored, saved moved }

// moved is how long something went on, in seconds, whether once or several times at once, and how many bytes its lines counted.
type moved struct {
	seconds float64
	bytes   int64
}

// The names of larder's lines, of their own or below a step's, that say what it does with cache mounts.
const (
	restoreLine = "restore cache mount"
	saveLine    = "save cache mount"
)

// said is what larder's output says.
type said struct {
	mounts mountTraffic
	text   []byte // for people: what steps wrote, and what is no event
}

// readEvents reads the output of larder --progress rawjson: events, and between them lines of its own and of what it runs.
func readEvents(out []byte) said {
	var s said
	names := map[digest.Digest]string{}
	restores, saves := newSpans(), newSpans()
	spansOf := func(name string) *spans {
		switch {
		case strings.HasPrefix(name, restoreLine):
			return restores
		case strings.HasPrefix(name, saveLine):
			return saves
		}
		return nil
	}
	for line := range bytes.Lines(out) {
		var st client.SolveStatus
		if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &st) != nil {
			s.text = append(s.text, line...)
			continue
		}
		for _, v := range st.Vertexes {
			names[v.Digest] = v.Name
			if w := spansOf(v.Name); w != nil {
				w.note(v.Digest.String(), v.Started, v.Completed)
			}
			if v.Error != "" {
				s.text = append(s.text, v.Name+": "+v.Error+"\n"...)
			}
		}
		for _, part := range st.Statuses {
			id := part.Vertex.String() + " " + part.ID
			w := spansOf(part.ID)
			if w != nil {
				w.note(id, part.Started, part.Completed)
			} else {
				w = spansOf(names[part.Vertex])
			}
			if w != nil {
				w.bytes[id] = part.Current
			}
		}
		for _, l := range st.Logs {
			s.text = append(s.text, l.Data...)
		}
	}
	s.mounts = mountTraffic{restored: restores.moved(), saved: saves.moved()}
	return s
}

// spans are the times of lines that say the same, and what they counted, by the lines.
type spans struct {
	times map[string][2]time.Time
	bytes map[string]int64
}

func newSpans() *spans { return &spans{map[string][2]time.Time{}, map[string]int64{}} }

func (w *spans) note(id string, begin, end *time.Time) {
	if begin != nil && end != nil {
		w.times[id] = [2]time.Time{*begin, *end}
	}
}

// moved counts moments once at which several lines were busy.
func (w *spans) moved() moved {
	var list [][2]time.Time
	for _, t := range w.times {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b [2]time.Time) int { return a[0].Compare(b[0]) })
	var m moved
	var until time.Time
	for _, t := range list {
		begin := t[0]
		if begin.Before(until) {
			begin = until
		}
		if t[1].After(begin) {
			m.seconds += t[1].Sub(begin).Seconds()
			until = t[1]
		}
	}
	for _, n := range w.bytes {
		m.bytes += n
	}
	return m
}
