package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"
)

// A comparison collects one readable line for each difference between two builds, which it calls by their names.
type comparison struct {
	want, got string
	diffs     []string

	// lenient overlooks user attributes that want lacks: BuildKit writes layers through a tar writer that knows
	// security.capability only, so what a step or COPY gave a file is lost with the build's own disk, and the same
	// build from a remote cache sees other files than the one that filled it. larder keeps them. overlooked says that
	// there were some.
	lenient, overlooked bool
}

func (c *comparison) differ(where, want, got string) {
	c.diffs = append(c.diffs, fmt.Sprintf("%s: %s %s, %s %s", where, c.want, want, c.got, got))
}

func (c *comparison) images(want, got []*image) {
	if len(want) != len(got) {
		c.differ("number of images", fmt.Sprint(len(want)), fmt.Sprint(len(got)))
		return
	}
	for i, w := range want {
		before := len(c.diffs)
		c.image(w, got[i])
		if len(want) > 1 {
			for j := before; j < len(c.diffs); j++ {
				c.diffs[j] = w.platform + ": " + c.diffs[j]
			}
		}
	}
}

func (c *comparison) image(want, got *image) {
	c.json("config", withoutTimes(want.config), withoutTimes(got.config))
	c.nodes("/", want.root, got.root, [2]map[*inode]string{linkGroups(want.root), linkGroups(got.root)})
}

// withoutTimes returns the config without its times, and with the number of diff IDs in place of them: a diff ID covers
// mtimes, which two builds do not share.
func withoutTimes(config map[string]any) map[string]any {
	c := maps.Clone(config)
	delete(c, "created")
	if rootfs, ok := c["rootfs"].(map[string]any); ok {
		rootfs = maps.Clone(rootfs)
		if ids, ok := rootfs["diff_ids"].([]any); ok {
			rootfs["diff_ids"] = len(ids)
		}
		c["rootfs"] = rootfs
	}
	if history, ok := c["history"].([]any); ok {
		history = slices.Clone(history)
		for i, h := range history {
			if entry, ok := h.(map[string]any); ok {
				entry = maps.Clone(entry)
				delete(entry, "created")
				history[i] = entry
			}
		}
		c["history"] = history
	}
	return c
}

func (c *comparison) json(where string, want, got any) {
	wm, ok1 := want.(map[string]any)
	gm, ok2 := got.(map[string]any)
	if ok1 && ok2 {
		for _, k := range unionKeys(wm, gm) {
			w, inWant := wm[k]
			g, inGot := gm[k]
			switch {
			case !inGot:
				c.differ(where+"."+k, show(w), "has none")
			case !inWant:
				c.differ(where+"."+k, "has none", show(g))
			default:
				c.json(where+"."+k, w, g)
			}
		}
		return
	}
	wl, ok1 := want.([]any)
	gl, ok2 := got.([]any)
	if ok1 && ok2 && len(wl) == len(gl) {
		for i := range wl {
			c.json(fmt.Sprintf("%s[%d]", where, i), wl[i], gl[i])
		}
		return
	}
	if !reflect.DeepEqual(want, got) {
		c.differ(where, show(want), show(got))
	}
}

func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

func unionKeys[V any](a, b map[string]V) []string {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	return keys
}

func (c *comparison) nodes(name string, want, got *node, groups [2]map[*inode]string) {
	if c.lenient {
		plain := c.withoutUserAttributes(want, got)
		groups[1][plain.inode] = groups[1][got.inode]
		got = plain
	}
	w, g := describe(want, groups[0]), describe(got, groups[1])
	for i := range w {
		if w[i] == g[i] {
			continue
		}
		c.differ(fmt.Sprintf("%q %s", name, w[i][0]), w[i][1], g[i][1])
		if i == 0 {
			// Of another type, the rest differs as a matter of course.
			break
		}
	}
	for _, k := range unionKeys(want.children, got.children) {
		w, g := want.children[k], got.children[k]
		child := strings.TrimSuffix(name, "/") + "/" + k
		switch {
		case g == nil:
			c.differ(fmt.Sprintf("%q", child), "has a "+w.kind, "has none")
		case w == nil:
			c.differ(fmt.Sprintf("%q", child), "has none", "has a "+g.kind)
		default:
			c.nodes(child, w, g, groups)
		}
	}
}

// withoutUserAttributes gives got without the user attributes that want lacks.
func (c *comparison) withoutUserAttributes(want, got *node) *node {
	kept := map[string]string{}
	for name, v := range got.xattrs {
		if _, ok := want.xattrs[name]; ok || !strings.HasPrefix(name, "user.") {
			kept[name] = v
		}
	}
	if len(kept) == len(got.xattrs) {
		return got
	}
	c.overlooked = true
	if len(kept) == 0 {
		kept = nil
	}
	clone, in := *got, *got.inode
	clone.inode, in.xattrs = &in, kept
	return &clone
}

// fields are an inode's properties in words, in the order in which they are shown.
type fields [][2]string

func describe(n *node, groups map[*inode]string) fields {
	f := fields{
		{"type", n.kind},
		{"mode", fmt.Sprintf("%04o", n.mode)},
		{"owner", fmt.Sprintf("%d:%d", n.uid, n.gid)},
		{"size", fmt.Sprint(n.size)},
		{"content", orNone(n.sum)},
		{"link target", orNone(n.target)},
		{"device", fmt.Sprintf("%d:%d", n.major, n.minor)},
		{"hard links", orNone(groups[n.inode])},
	}
	return append(f, [2]string{"xattrs", show(n.xattrs)})
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// linkGroups names, for every inode with several names, all of them.
func linkGroups(root *node) map[*inode]string {
	names := map[*inode][]string{}
	walk("", root, func(name string, n *node) {
		if n.kind != "dir" {
			names[n.inode] = append(names[n.inode], name)
		}
	})
	groups := map[*inode]string{}
	for in, list := range names {
		if len(list) > 1 {
			groups[in] = strings.Join(list, " ")
		}
	}
	return groups
}

// walk visits the tree depth first in the order of names.
func walk(name string, n *node, visit func(name string, n *node)) {
	visit(name, n)
	for _, k := range slices.Sorted(maps.Keys(n.children)) {
		walk(name+"/"+k, n.children[k], visit)
	}
}

// listing shows an image as text, for whoever writes a case.
func (img *image) listing() string {
	var b strings.Builder
	config, err := json.MarshalIndent(withoutTimes(img.config), "", "  ")
	if err != nil {
		config = []byte(err.Error())
	}
	fmt.Fprintf(&b, "%s\n%s\n", img.platform, config)
	groups := linkGroups(img.root)
	walk("", img.root, func(name string, n *node) {
		fmt.Fprintf(&b, "%-5s %04o %5d:%-5d %8d %q", n.kind, n.mode, n.uid, n.gid, n.size, name)
		switch {
		case n.kind == "link":
			fmt.Fprintf(&b, " -> %q", n.target)
		case n.kind == "char" || n.kind == "block":
			fmt.Fprintf(&b, " %d:%d", n.major, n.minor)
		case n.kind == "file":
			fmt.Fprintf(&b, " %.12s", n.sum)
		}
		if g := groups[n.inode]; g != "" {
			fmt.Fprintf(&b, " = %s", g)
		}
		if len(n.xattrs) > 0 {
			fmt.Fprintf(&b, " %s", show(n.xattrs))
		}
		b.WriteByte('\n')
	})
	return b.String()
}
