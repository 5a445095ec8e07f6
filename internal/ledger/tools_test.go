package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"larder/internal/key"
	"larder/internal/tree"
)

// source is a file as a step sees it. All contents have one size, as a tool that compares sizes has it hardest.
type source struct {
	content string
	mtime   int64
}

// object is a file that a tool made in a cache mount.
type object struct {
	of    map[string]string // the contents that went in, by path
	mtime int64
}

// mount is a cache mount with what several tools keep in it, and its ledger.
type mount struct {
	ledger  *tree.Node
	objects map[string]object // make and ninja: an object per source is made again when the source is newer
	coarse  bool              // make compares whole seconds
	lib     object            // made again when an object of today's sources is newer
	pyc     map[string]string // "path seconds" -> content, as Python notes it
	tests   map[string]string // "path nanoseconds" -> content, as go test does
	newest  int64
}

func newMount() *mount {
	return &mount{objects: map[string]object{}, pyc: map[string]string{}, tests: map[string]string{}}
}

func (m *mount) copy() *mount {
	c := *m
	c.objects, c.pyc, c.tests = maps.Clone(m.objects), maps.Clone(m.pyc), maps.Clone(m.tests)
	return &c
}

// run lets the tools work on sources. It gives how many things were made, and says what is stale.
func (m *mount) run(sources map[string]source, now int64) (made int, stale []string) {
	made, stale = m.tested(sources, now)
	paths := slices.Sorted(maps.Keys(sources))
	lib := object{of: map[string]string{}, mtime: now + 1}
	isNew := m.lib.of == nil
	for _, p := range paths {
		s := sources[p]
		o, ok := m.objects[p]
		newer := s.mtime > o.mtime
		if m.coarse {
			newer = endOfSecond(s.mtime) > endOfSecond(o.mtime)
		}
		if !ok || newer {
			o = object{of: map[string]string{p: s.content}, mtime: now}
			m.objects[p] = o
			made, isNew = made+1, true
		}
		if o.of[p] != s.content {
			stale = append(stale, fmt.Sprintf("the object of %s", p))
		}
		isNew = isNew || o.mtime > m.lib.mtime
		maps.Copy(lib.of, o.of)

		note := fmt.Sprint(p, endOfSecond(s.mtime))
		if _, ok := m.pyc[note]; !ok {
			maps.DeleteFunc(m.pyc, func(old, _ string) bool { return old[:len(p)] == p })
			m.pyc[note] = s.content
			made++
		}
		if m.pyc[note] != s.content {
			stale = append(stale, fmt.Sprintf("the bytecode of %s", p))
		}
	}
	if isNew {
		m.lib = lib
		made++
	}
	for _, p := range paths {
		if m.lib.of[p] != sources[p].content {
			stale = append(stale, fmt.Sprintf("%s in the library", p))
		}
	}
	m.newest = max(m.newest, now+1)
	return made, stale
}

// tested is the part of run that a content-addressed mount knows.
func (m *mount) tested(sources map[string]source, now int64) (made int, stale []string) {
	for p, s := range sources {
		note := fmt.Sprint(p, s.mtime)
		if _, ok := m.tests[note]; !ok {
			m.tests[note] = s.content
			m.newest = max(m.newest, now)
			made++
		}
		if m.tests[note] != s.content {
			stale = append(stale, fmt.Sprintf("the test of %s", p))
		}
	}
	return made, stale
}

// look shows a step's files as a RUN step with this mount is shown them, and notes that in the ledger.
func (m *mount) look(by key.Digest, root *tree.Node, now int64) (*tree.Node, error) {
	look := Look{By: by, Now: time.Unix(0, now), Newest: m.newest}
	if m.ledger != nil {
		look.Ledgers = []*tree.Node{m.ledger}
	}
	shown, err := Show(root, look)
	if err != nil {
		return nil, err
	}
	m.ledger, err = mergeAt(m.ledger, shown, by, look.Now)
	return shown, err
}
