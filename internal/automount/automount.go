// Package automount knows which cache mounts the commands of RUN instructions want, so that package managers keep what
// they downloaded without a word in the Dockerfile.
//
// A mount hides what the image has at its place, and what a command leaves there does not enter the image. So one is
// attached only where nothing else in the build can miss it, and where the command itself does not treat its cache in
// a way of its own. When in doubt there is none: that costs time, a wrong one costs a build.
package automount

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// Mount is a cache mount that a command wants.
type Mount struct {
	Tool    string // "npm"
	Target  string // absolute and clean
	ID      string // what id= says by default, without a namespace: the target
	Sharing pb.CacheSharingOpt
	Owner   *Owner // of the mount's root; nil is root, as it is without uid= and gid=
	Beside  *File  // nil for most
}

// Owner is who may write to a mount, as uid= and gid= of --mount=type=cache would have it.
type Owner struct {
	UID, GID int
}

// File is a file shown read-only to the command, for a tool that has to be told to keep its cache.
type File struct {
	Path string
	Data []byte
}

// Skipped says why a command that has a cache is not given a mount for it.
type Skipped struct {
	Tool   string
	Target string // "" where it is not known
	Why    string
}

// Find says which cache mounts the command of a RUN wants, and which it does not get, as far as its own words tell.
// args is the process's argv (shell form: ["/bin/sh", "-c", "..."]), env its environment as NAME=value, user its user
// ("" is root), cwd its working directory. The mounts are sorted by target, none lies within another.
func Find(args, env []string, user, cwd string) ([]Mount, []Skipped) {
	s := scan(args, env, user, cwd)
	var mounts []Mount
	for _, w := range s.granted() {
		mounts = append(mounts, w.Mount)
	}
	return mounts, s.skipped
}

// wish is a mount, with what else the command says of that place.
type wish struct {
	Mount
	// offline: the command takes only what is there already, which a mount would hide.
	offline bool
	// leaves: it puts there what later commands need, such as Maven's "install".
	leaves bool
	// beside: it lies in a directory of other things, so that who copies the directory does not mean the cache.
	beside bool
	// stock: what an image has at the place may be what the command is to work with, such as modules that can be had nowhere else.
	// For the others it is a mere store of downloads: it stays in the image, hidden while the command runs, which loads anew what
	// it needs.
	stock bool
	// lasts: what the command leaves there may be used when the image runs.
	lasts bool
	// fills: the command does nothing but fill the place.
	fills bool
}

var (
	// stocks are tools whose caches hold more than downloads that can be had again.
	stocks = []string{"go", "cargo", "maven", "gradle", "bundler"}
	// lasting are tools whose caches are used when the image runs: by "go run", and so on.
	lasting = []string{"go", "cargo", "maven", "gradle"}
)

// granted are the wishes of a command that its own words do not speak against. What is denied is noted.
func (s *script) granted() []wish {
	var out []wish
	for _, w := range s.distinct() {
		if why := s.denies(w); why != "" {
			s.skip(w.Tool, w.Target, why)
			continue
		}
		if f := w.Beside; f != nil && (s.says(f.Path) || s.touches(f.Path, false) != "") {
			w.Beside = nil
		}
		if !slices.ContainsFunc(out, func(o wish) bool { return within(o.Target, w.Target) }) {
			out = append(out, w)
		}
	}
	return out
}

// distinct gives each target once, sorted, so that a directory stands before what lies in it.
func (s *script) distinct() []wish {
	list := slices.Clone(s.wishes)
	slices.SortStableFunc(list, func(a, b wish) int { return strings.Compare(a.Target, b.Target) })
	var out []wish
	for _, w := range list {
		if n := len(out); n > 0 && out[n-1].Target == w.Target {
			out[n-1].offline = out[n-1].offline || w.offline
			out[n-1].leaves = out[n-1].leaves || w.leaves
			out[n-1].stock = out[n-1].stock || w.stock
			out[n-1].lasts = out[n-1].lasts || w.lasts
			out[n-1].fills = out[n-1].fills && w.fills
			continue
		}
		out = append(out, w)
	}
	return out
}

// denies gives what speaks against a wish in the command's own words, "" if nothing does.
func (s *script) denies(w wish) string {
	switch {
	case w.offline:
		return "the command works offline, with what the image has"
	case s.cleared[w.Tool]:
		return "the command looks after its cache itself"
	}
	if word := s.touches(w.Target, w.stock); word != "" {
		return "the command itself says " + word
	}
	return ""
}

// skip notes why a tool gets no mount; each reason once.
func (s *script) skip(tool, target, why string) {
	n := Skipped{Tool: tool, Target: target, Why: why}
	if !slices.Contains(s.skipped, n) {
		s.skipped = append(s.skipped, n)
	}
}
